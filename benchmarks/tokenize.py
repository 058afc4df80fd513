"""Pictures a second of `muse tokenize`, beside those of the VQGAN alone: what reading, scaling and writing cost.

    python -m benchmarks.tokenize
    python -m benchmarks.tokenize --text

JPEG files of 512 px go through the shipped model's VQGAN; with `--text` the states of one caption each are kept too.
"""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from benchmarks.data import picture_folder
from benchmarks.measure import interleaved, report
from muse.data.sources import open_source
from muse.data.tokenize import Networks, TokenizeOptions, tokenize
from muse.pipeline import Muse


@dataclass(frozen=True)
class Tokenize:
    """What is tokenized, and how often."""

    pictures: int = 256
    picture_size: int = 512
    """Side of the files in pixels; they are scaled to what the model draws."""
    model: str = "emoji"
    """A model that ships, a folder, or a name on the hub."""
    text: bool = False
    """Keep the states of the captions too."""
    rounds: int = 3
    """Times each is measured, in turns."""


def main(what: Tokenize) -> None:
    """Measure and print."""
    muse = Muse.from_pretrained(what.model, precision="float32")
    size = muse.low_size[0]
    options = TokenizeOptions(size=size)
    networks = Networks(muse.vqgan, text_encoder=muse.text_encoder if what.text else None)
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(str(picture_folder(Path(folder) / "pictures", what.pictures, what.picture_size)))
        num = 0

        def whole() -> None:
            nonlocal num
            num += 1
            tokenize(source, "pictures", Path(folder) / f"tokens-{num}", networks, options)

        @torch.no_grad()
        def alone() -> None:
            for start in range(0, what.pictures, options.batch_size):
                muse.vqgan.encode(torch.rand(min(options.batch_size, what.pictures - start), 3, size, size))

        tasks: dict[str, Callable[[], None]] = {"muse tokenize": whole, "the VQGAN alone": alone}
        seconds = interleaved(tasks, what.rounds)
    rows = [(name, f"{what.pictures / statistics.median(each):.0f}") for name, each in seconds.items()]
    report(("who", "pictures a second"), rows, pictures=what.pictures, size=size, text=what.text)


if __name__ == "__main__":
    main(tyro.cli(Tokenize))
