"""The codebook of a VQGAN: continuous latents to the nearest of a fixed set of vectors, and back."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from muse.shapes import Tokens

AT_ONCE = 2**26
"""Distances of latents to codes that are held at once, 256 MB of them: those of a whole batch can be tens of GB."""


class VectorQuantizer(nn.Module):
    """A codebook of `num_codes` vectors of `dim` numbers.
    VQ-VAE (arXiv:1711.00937); Muse, section 2.2."""

    def __init__(self, num_codes: int, dim: int):
        super().__init__()
        self.num_codes = num_codes
        self.codebook = nn.Parameter(torch.empty(num_codes, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the codebook uniformly in [-1/num_codes, 1/num_codes]."""
        nn.init.uniform_(self.codebook, -1 / self.num_codes, 1 / self.num_codes)

    def nearest(self, latents: Float[Tensor, "batch dim height width"]) -> Int[Tensor, "batch height width"]:
        """The code with the least Euclidean distance to each latent, in [0, num_codes)."""
        rows = rearrange(latents, "batch dim height width -> (batch height width) dim").float()
        codebook = self.codebook.float()
        with torch.autocast(rows.device.type, enabled=False):  # bfloat16 would choose other codes
            lengths = codebook.square().sum(1)
            # |z - e|^2 without |z|^2, which is the same for every code.
            tokens = [(lengths - 2 * some @ codebook.T).argmin(1) for some in rows.split(self.rows_at_once)]
        batch, _, height, width = latents.shape
        return rearrange(
            torch.cat(tokens), "(batch height width) -> batch height width", batch=batch, height=height, width=width
        )

    @property
    def rows_at_once(self) -> int:
        """Latents that are compared with all codes at once."""
        return max(AT_ONCE // self.num_codes, 1)

    def look_up(self, tokens: Int[Tensor, "batch height width"]) -> Float[Tensor, "batch dim height width"]:
        """The codebook vectors of a grid of tokens, channels first."""
        return rearrange(F.embedding(tokens, self.codebook), "batch height width dim -> batch dim height width")


def as_sequence(grid: Int[Tensor, "batch height width"]) -> Tokens:
    """A grid of tokens as rows one after the other."""
    return rearrange(grid, "batch height width -> batch (height width)")


def as_grid(tokens: Tokens, height: int) -> Int[Tensor, "batch height width"]:
    """A sequence of tokens as a grid of `height` rows."""
    return rearrange(tokens, "batch (height width) -> batch height width", height=height)
