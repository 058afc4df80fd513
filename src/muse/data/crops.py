"""Batches of pictures by the number of the step, read from a source as they are wanted: what a VQGAN trains on."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from muse.data.order import shuffled
from muse.data.pictures import Tally, Unusable, fit, read_picture
from muse.data.sources import RowSource
from muse.shapes import Pictures

HELD_OUT, TRAINED, CROPPED = 4, 5, 6
"""Streams of random numbers: which rows are held out, their order in training, where they are cropped."""
TRIES = 20
"""Rows tried one after the other for one place in a batch."""


class PicturesOfStep:
    """Squares of `size` pixels: the shorter side scaled to it, the longer one cropped at random, by the seed.

    Each epoch takes every row once, in an order of its own. A row that cannot be read gives way to the next; which were
    not, in this and all worker processes, is in `tally`."""

    def __init__(self, source: RowSource, size: int, batch_size: int, seed: int, held_out: int = 0):
        """Raises ValueError if there are too few rows."""
        if (num := len(source) - held_out) < 1:
            raise ValueError(f"the source has {len(source)} pictures and {held_out} are held out; hold out fewer")
        self.source, self.size, self.batch_size, self.seed = source, size, batch_size, seed
        self.held_out, self.num = held_out, num
        self.is_damaged = torch.zeros(len(source), dtype=torch.bool).share_memory_()

    def __call__(self, step: int) -> Pictures:
        return self.share(step, slice(None))

    def share(self, step: int, rows: slice) -> Pictures:
        """Some rows of the batch of a step; the others are not read."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[rows]
        crops = np.random.default_rng((CROPPED, self.seed, step)).random((self.batch_size, 2))[rows]
        return torch.stack([self._picture(int(p), (x, y)) for p, (x, y) in zip(places, crops, strict=True)])

    def watched(self) -> Pictures:
        """The pictures that training never sees, cropped at the centre."""
        rows = shuffled(np.arange(self.held_out), len(self.source), (HELD_OUT,))
        found = [picture for row in rows if (picture := self._read(int(row), (0.5, 0.5))) is not None]
        return torch.stack(found) if found else torch.zeros(0, 3, self.size, self.size)

    def _picture(self, place: int, crop: tuple[float, float]) -> Float[Tensor, "3 size size"]:
        for attempt in range(TRIES):
            epoch, inside = divmod(place + attempt * (self.num // TRIES + 1), self.num)
            (inside,) = shuffled(np.array([inside]), self.num, (TRAINED, self.seed, epoch))
            (row,) = shuffled(np.array([inside + self.held_out]), len(self.source), (HELD_OUT,))
            if (picture := self._read(int(row), crop)) is not None:
                return picture
        raise ValueError(f"{TRIES} pictures one after the other cannot be read; see that the source holds pictures")

    def _read(self, row: int, crop: tuple[float, float]) -> Float[Tensor, "3 size size"] | None:
        source = self.source.row(row).picture
        try:
            image, _ = read_picture(source) if source is not None else (None, None)
        except Unusable:
            image = None
        if image is None:
            self.is_damaged[row] = True
            return None
        return torch.from_numpy(np.asarray(fit(image, self.size, crop)).copy()).permute(2, 0, 1).float() / 255

    @property
    def tally(self) -> Tally:
        """Rows so far found to be damaged."""
        tally = Tally(len(self.source))
        if damaged := int(self.is_damaged.sum()):
            tally.skipped["damaged"] = damaged
        return tally
