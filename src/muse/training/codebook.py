"""A codebook that follows its latents, and revives the codes that none of them uses."""

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from muse.models.quantizer import VectorQuantizer
from muse.training.losses import perplexity
from muse.training.ranks import ALONE, Ranks


class CodebookTracker(nn.Module):
    """Moving averages of how many latents each code has, and of their sum.

    Each code is moved to the mean of its latents (VQ-VAE, arXiv:1711.00937, appendix A.1). A code whose average
    count falls below `revive_below` is set on a latent of the batch, drawn with probability proportional to its squared
    distance from its code, as k-means++ (Arthur and Vassilvitskii, 2007) seeds clusters: the remedy for dead codes.
    Drawn evenly, half of the codes of pictures on white would go to white.
    """

    def __init__(self, num_codes: int, dim: int, decay: float = 0.99, revive_below: float = 0.1):
        super().__init__()
        self.decay, self.revive_below = decay, revive_below
        self.counts: Tensor
        self.sums: Tensor
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, dim))

    @torch.no_grad()
    def follow(
        self,
        quantizer: VectorQuantizer,
        latents: Float[Tensor, "batch dim h w"],
        tokens: Int[Tensor, "batch h w"],
        generator: torch.Generator,
        ranks: Ranks = ALONE,
    ) -> Int[Tensor, ""]:
        """Move the codebook towards a batch of latents, of which each process has a share; returns how many codes were
        revived. The generator, of the latents' device, draws where these go. Every process ends with the same codebook,
        the one that the first process draws."""
        rows = rearrange(latents, "batch dim h w -> (batch h w) dim").float()
        errors = (rows - quantizer.codebook[tokens.flatten()]).square().sum(1)
        counts, sums = counts_and_sums(quantizer, rows, tokens.flatten())
        self.counts.lerp_(ranks.sum(counts), 1 - self.decay)
        self.sums.lerp_(ranks.sum(sums), 1 - self.decay)
        quantizer.codebook.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])
        errors = ranks.gather(errors.reshape(len(latents), -1))
        # Of broken latents the loss is told to be no number; a draw of such errors would fail before that.
        weights = errors.flatten().nan_to_num(0.0, posinf=0.0) + 1e-8
        picks = torch.multinomial(weights, quantizer.num_codes, replacement=True, generator=generator)
        fresh = rows_of_all(rows, ranks.from_first(picks), errors.shape[1], ranks)
        return self._revive(quantizer, fresh, errors.numel())

    def _revive(self, quantizer: VectorQuantizer, fresh: Float[Tensor, "code dim"], num_rows: int) -> Int[Tensor, ""]:
        typical = min(num_rows / quantizer.num_codes, 1.0)
        # A few at a time, so that the errors are looked at anew before the next.
        at_once = max(8, quantizer.num_codes // 16)
        is_dead = (self.counts < self.revive_below * typical) & self._is_among_lowest(at_once)
        quantizer.codebook.copy_(torch.where(is_dead[:, None], fresh, quantizer.codebook))
        self.counts.masked_fill_(is_dead, typical)
        self.sums.copy_(self.counts[:, None] * quantizer.codebook)
        return is_dead.sum()

    def _is_among_lowest(self, num: int) -> Bool[Tensor, " code"]:
        return self.counts.argsort().argsort() < num

    def perplexity(self) -> Float[Tensor, ""]:
        """How many codes are in use, weighted by how often; between 1 and num_codes."""
        return perplexity(self.counts)

    def usage(self) -> Float[Tensor, ""]:
        """The share of codes that the recent latents use, in [0, 1]."""
        return (self.counts > self.revive_below * self.counts.mean()).float().mean()


def counts_and_sums(
    quantizer: VectorQuantizer, rows: Float[Tensor, "rows dim"], tokens: Int[Tensor, " rows"]
) -> tuple[Float[Tensor, " code"], Float[Tensor, "code dim"]]:
    """How many of the rows each code has, and their sum. By products, as a GPU that adds row by row adds in another
    order each time; of some rows at a time, as those products are of rows x codes numbers."""
    codes = torch.arange(quantizer.num_codes, device=rows.device)
    counts, sums = torch.zeros_like(codes, dtype=rows.dtype), torch.zeros_like(quantizer.codebook, dtype=rows.dtype)
    at_once = quantizer.rows_at_once
    for some, theirs in zip(rows.split(at_once), tokens.split(at_once), strict=True):
        is_chosen = (theirs[:, None] == codes).to(rows)
        counts += is_chosen.sum(0)
        sums += is_chosen.T @ some
    return counts, sums


def rows_of_all(
    rows: Float[Tensor, "rows dim"], picks: Int[Tensor, " pick"], rows_a_sample: int, ranks: Ranks
) -> Float[Tensor, "pick dim"]:
    """Some of the rows of all processes, by their places in the whole batch; each process has those of its samples."""
    samples, place = picks // rows_a_sample, picks % rows_a_sample
    is_mine = samples % ranks.count == ranks.index
    mine = torch.where(is_mine, samples // ranks.count * rows_a_sample + place, 0)
    return ranks.sum(torch.where(is_mine[:, None], rows[mine], 0.0))
