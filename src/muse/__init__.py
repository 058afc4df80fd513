"""Muse: text to image by masked generative transformers (arXiv:2301.00704).

>>> from muse import Muse
>>> Muse.from_pretrained("emoji").generate(["a red apple, 3d style"], [0])[0].save("apple.png")
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["EditOptions", "Muse", "SamplingOptions", "__version__"]

if TYPE_CHECKING:
    from muse.pipeline import Muse
    from muse.sampling import EditOptions, SamplingOptions


def __getattr__(name: str) -> Any:
    """Import torch and the networks only when they are asked for, so that `muse --help` answers at once."""
    if name == "Muse":
        from muse.pipeline import Muse

        return Muse
    if name in ("EditOptions", "SamplingOptions"):
        from muse import sampling

        return getattr(sampling, name)
    raise AttributeError(f"module 'muse' has no attribute {name!r}")
