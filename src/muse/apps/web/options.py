"""`muse web`: everything that can be turned on the page's server."""

import os
from dataclasses import dataclass

from muse.requests import Precision


@dataclass(frozen=True)
class Web:
    """Open a page in the browser that draws and edits. Needs `pip install muse-t2i[web]`."""

    model: str = "emoji"
    """A model that ships, a folder, or a name on the hub, like owner/name."""
    precision: Precision = "auto"
    """Arithmetic of the networks that draw; auto takes bfloat16 where the machine computes in it. int8, on
    processors, and float8, on GPUs, round products and are faster with large models."""
    graphs: bool = False
    """On a CUDA GPU, draw each grid that begins with nothing as one CUDA graph: faster, but for the second of its
    kind, which is captured. In bfloat16 it can be another picture."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 lets other machines in."""
    port: int = 7860
    """The port to listen on."""
    open: bool = False
    """Also open the page in a browser."""

    def run(self) -> None:
        """Load the model and serve its page until stopped.
        Raises ValueError or OSError if that cannot be."""
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; give a whole number from 1 to 65,535")
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # the page tells nobody that it is there
        try:
            from muse.apps.web.page import serve
        except ModuleNotFoundError as error:
            raise ValueError(
                f"the page needs {error.name}, which is not installed; `pip install muse-t2i[web]` brings it"
            ) from error
        serve(self)
