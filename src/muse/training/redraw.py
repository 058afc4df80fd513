"""What super-resolution makes of pictures: tokens that a decoder will be given once it paints what is drawn."""

import hashlib
import zlib
from dataclasses import replace
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from muse.checkpoint import fingerprint_of
from muse.models.vqgan import VQGAN
from muse.pipeline import Muse
from muse.shapes import Pictures, Tokens


class Redraw:
    """Draws pictures anew, from their own low-resolution tokens and without a text. What becomes of a picture depends
    on it and the step alone, so another number of processes draws the same, and a picture that comes again has other
    mistakes."""

    def __init__(self, muse: Muse, vqgan: VQGAN, size: int, place: str | None = None):
        """By a model whose super-resolution draws the tokens of this VQGAN, for pictures of `size` pixels a side; it is
        called by its `place` when it is refused, if one is given.
        Raises ValueError if it draws no such tokens, or pictures of another size."""
        model = f"the model {place or repr(muse.name)}"
        if muse.superres is None:
            raise ValueError(f"{model} has no super-resolution, which would draw the pictures anew; give one that has")
        _, theirs = muse.high
        if theirs.fingerprint() != vqgan.fingerprint():
            raise ValueError(
                f"{model} draws the tokens of the VQGAN {theirs.fingerprint()}, and this one is "
                f"{vqgan.fingerprint()}; give the model that has it"
            )
        if muse.size != (size, size):
            width, height = muse.size
            raise ValueError(
                f"{model} draws {width} x {height} pixels and the pictures have {size} a side; give a size of {height}"
            )
        self.muse = muse
        self.options = replace(muse.superres_defaults, guidance=0.0)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the weights that draw, as runs of before noted them, but not with
        the arithmetic."""
        superres, _ = self.muse.high
        return fingerprint_of([self.muse.vqgan, superres], torch.bfloat16, configs=False)

    @torch.no_grad()
    def __call__(self, pictures: Pictures, step: int) -> Tokens:
        muse = self.muse
        if muse.device != pictures.device:
            muse.to(pictures.device)
        width, height = muse.low_size
        small = F.interpolate(pictures, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
        text = torch.zeros(0, 1, muse.base.config.text_dim, device=pictures.device)
        is_word = torch.zeros(0, 1, dtype=torch.bool, device=pictures.device)
        return muse.draw_superres(muse.vqgan.encode(small), text, is_word, seeds_of(pictures, step), self.options)


def fingerprints(pictures: Pictures) -> list[int]:
    """A number in [0, 2^32) for each picture, which depends on it alone."""
    return [zlib.crc32(each.cpu().contiguous().numpy().tobytes()) for each in pictures]


def seeds_of(pictures: Pictures, step: int) -> list[int]:
    """A number in [0, 2^32) for each picture, which depends on it and the step alone."""
    names = (f"{name} {step}".encode() for name in fingerprints(pictures))
    return [int.from_bytes(hashlib.blake2b(name, digest_size=4).digest()) for name in names]


def chosen(pictures: Pictures, share: float, step: int) -> Bool[Tensor, " batch"]:
    """Which of the pictures belong to a share of all there are, another share in each step."""
    places: Float[Tensor, " batch"] = torch.tensor(seeds_of(pictures, step), dtype=torch.float64) / 2**32
    return (places < share).to(pictures.device)
