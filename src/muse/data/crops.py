"""Batches of pictures by the number of the step, read from a source as they are wanted: what a VQGAN trains on."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from muse.data.order import check_rows, digest_of, order_of, sampled, shuffled
from muse.data.pictures import CONVERTED, SKIPPED, Tally, Unusable, fit, read_picture
from muse.data.sources import RowSource
from muse.images import to_tensor
from muse.shapes import Pictures

HELD_OUT, TRAINED, CROPPED = 4, 5, 6
"""Streams of random numbers: which rows are held out, their order in training, where they are cropped."""
STRIDES = 20
"""A row that cannot be read gives way to one that is this part of an epoch away, lest a batch have it twice."""
AT_ONCE = 20
"""Rows whose places are computed together, as nearly always the first can be read."""
KINDS = (*CONVERTED, *SKIPPED)
FIRST_BYTES = 2**16
"""So much of a file is read to tell it from another one."""


class PicturesOfStep:
    """Squares of `size` pixels: the shorter side scaled to it, the longer one cropped at random, by the seed.

    Each epoch takes every row once, in an order of its own. A row that cannot be read gives way to another, and is not
    tried again; how many were looked at, and not read or converted, in this and all worker processes, is in `tally`."""

    def __init__(self, source: RowSource, size: int, batch_size: int, seed: int, held_out: int = 0):
        """Raises ValueError if there are too few rows, or counts that cannot be."""
        check_rows(len(source), batch_size, held_out, f"the source has {len(source)} pictures")
        num = len(source) - held_out
        self.source, self.size, self.batch_size, self.seed = source, size, batch_size, seed
        self.held_out, self.num = held_out, num
        self.stride = next(step for step in range(num // STRIDES + 1, num + 2) if math.gcd(step, num) == 1)
        self.seen = torch.zeros(len(source), dtype=torch.int16).share_memory_()  # a bit for each kind, and one more

    @property
    def order(self) -> dict[str, int | str]:
        """What decides which rows come in which step, and how large."""
        order = order_of(len(self.source), self.batch_size, self.held_out, self.seed, self.content)
        return order | {"size": self.size}

    @cached_property
    def content(self) -> str:
        """A digest of the pictures of a few rows, which tells the source from others with as many."""
        return digest_of(beginning_of(self.source.row(row).picture) for row in sampled(len(self.source)))

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
        for row in self._rows(place):
            if not self.seen[row] & SKIPS and (picture := self._read(row, crop)) is not None:
                return picture
        raise ValueError(f"none of the {self.num} pictures can be read; see that the source holds pictures")

    def _rows(self, place: int) -> Iterator[int]:
        """Every row that is trained on, in the order in which they are tried for a place."""
        epoch, first = divmod(place, self.num)
        for tried in range(0, self.num, AT_ONCE):
            inside = (first + np.arange(tried, min(tried + AT_ONCE, self.num)) * self.stride) % self.num
            inside = shuffled(inside, self.num, (TRAINED, self.seed, epoch)) + self.held_out
            yield from shuffled(inside, len(self.source), (HELD_OUT,)).tolist()

    def _read(self, row: int, crop: tuple[float, float]) -> Float[Tensor, "3 size size"] | None:
        source = self.source.row(row).picture
        try:
            if source is None:
                raise Unusable("without a picture")
            image, kinds = read_picture(source)
        except Unusable as error:
            self.seen[row] = LOOKED_AT | bits_of([str(error)])
            return None
        self.seen[row] = LOOKED_AT | bits_of(kinds)
        return to_tensor(fit(image, self.size, crop))

    @property
    def tally(self) -> Tally:
        """The rows that were looked at, and those of them that have been found to be unusable or were converted."""

        def counts(kinds: Iterable[str]) -> Counter[str]:
            return +Counter({kind: int((self.seen & bits_of([kind]) != 0).sum()) for kind in kinds})

        return Tally(int((self.seen != 0).sum()), counts(SKIPPED), counts(CONVERTED))

    def sentence(self) -> str:
        """The tally in one line."""
        return self.tally.sentence("pictures that this run looked at were used")


def beginning_of(picture: bytes | Path | None) -> bytes:
    """The first bytes of a picture's file and how many it has; nothing if there is none."""
    if isinstance(picture, bytes):
        return picture[:FIRST_BYTES] + str(len(picture)).encode()
    try:
        if picture is not None:
            with picture.open("rb") as file:
                return file.read(FIRST_BYTES) + str(picture.stat().st_size).encode()
    except OSError:
        pass
    return b""


def bits_of(kinds: Iterable[str]) -> int:
    """Kinds as one number."""
    return sum(1 << KINDS.index(kind) for kind in kinds)


SKIPS, LOOKED_AT = bits_of(SKIPPED), 1 << len(KINDS)
