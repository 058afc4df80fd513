"""How many tokens are hidden, and which: the one cosine that training and sampling share.
MaskGIT (arXiv:2202.04200), section 3.1; Muse, sections 2.6 and 2.8."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from muse.shapes import Counts, Hidden, Places, Ratios, Scores, Tokens


def cosine_schedule(progress: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The share of tokens that is hidden, from 1 down to 0 as progress goes from 0 to 1.
    gamma(t/T) of MaskGIT (arXiv:2202.04200), section 3.3."""
    # In float32 the cosine of pi/2 is just below 0.
    return torch.cos(progress * (math.pi / 2)).clamp(min=0)


def draw_mask_ratio(num: int, generator: torch.Generator, device: torch.device | str) -> Ratios:
    """Shares to hide in training, in [0, 1], drawn with density (2/pi)(1-r^2)^(-1/2): mean 0.64, often close to 1.
    Drawn where the generator lives, so one seed gives the same on every device. Muse, section 2.6."""
    progress = torch.rand(num, generator=generator, device=generator.device)
    return cosine_schedule(progress).to(device)


def hide(tokens: Tokens, ratio: Ratios, mask_id: int, generator: torch.Generator) -> tuple[Tokens, Hidden]:
    """Replace round(ratio * positions) tokens of each sample, at least one, by `mask_id`; also say which they are.
    Muse, section 2.6."""
    is_hidden = draw_hidden(ratio, tokens.shape[1], generator)
    return tokens.masked_fill(is_hidden, mask_id), is_hidden


def draw_hidden(ratio: Ratios, num_positions: int, generator: torch.Generator) -> Hidden:
    """Which tokens to hide: round(ratio * positions) of each sample, at least one.
    The positions are uniformly random, drawn where the generator lives. Muse, section 2.6."""
    shape = (len(ratio), num_positions)
    scores = torch.rand(shape, generator=generator, device=generator.device).to(ratio.device)
    return lowest(scores, (ratio * num_positions).round().long().clamp(min=1))


def lowest(scores: Scores, counts: Counts) -> Hidden:
    """True at exactly the `counts` lowest scores of each sample; of equal scores the earlier position is lower."""
    ranks = scores.argsort(dim=1, stable=True).argsort(dim=1)
    return ranks < counts.unsqueeze(1)


def hidden_places(is_hidden: Hidden, num: int) -> Places:
    """`num` positions of each sample: the hidden ones in order, then visible ones in order. All of them, if so many are
    asked for, stay in their own order."""
    batch, num_positions = is_hidden.shape
    if num >= num_positions:
        return torch.arange(num_positions, device=is_hidden.device).expand(batch, -1)
    return (~is_hidden).byte().argsort(dim=1, stable=True)[:, :num]


def hidden_counts(unknown: Counts, num_steps: int) -> Int[Tensor, "step batch"]:
    """How many of each sample's initially `unknown` tokens are still hidden after each step.

    With at least as many unknown tokens as steps, every step reveals at least one and the last step reveals the last.
    With fewer, each step reveals exactly one until none is left, and the remaining steps have nothing to do.
    The cosine of Muse, section 2.8, rounded down."""
    # On the CPU in float64: every device must reveal the same number of tokens.
    initial = unknown.cpu()
    num_done = torch.arange(1, num_steps + 1).unsqueeze(1)
    ratios = cosine_schedule(num_done.double() / num_steps)
    # Whatever the CPU, cos(pi/3) must not come out just under one half.
    scheduled = (ratios * initial + 1e-9).floor().long()
    # Binds only at the start, where the cosine is flat: concave, it falls by more than one a step from there on.
    at_least_one_each = (initial - num_done).clamp(min=0)
    return scheduled.minimum(at_least_one_each).to(unknown.device)


def halton_order(height: int, width: int) -> Int[Tensor, " position"]:
    """All positions of a grid, those first that the 2-D Halton sequence meets first: spread evenly at every length.
    Halton scheduler (arXiv:2503.17076), here with base 2 for the rows and base 3 for the columns."""
    # A cell holds a whole elementary box of the sequence once the boxes are half its size; then each is surely met.
    num_points = 2 ** math.ceil(math.log2(2 * height)) * 3 ** math.ceil(math.log(2 * width, 3))
    positions = _halton_cells(num_points, base=2, num_cells=height) * width + _halton_cells(num_points, 3, width)
    return torch.tensor(list(dict.fromkeys(positions.tolist())))


def _halton_cells(num_points: int, base: int, num_cells: int) -> Int[Tensor, " point"]:
    """The cell, of `num_cells` equal ones in [0, 1), that each of the first points of a Halton sequence falls in."""
    remaining = torch.arange(1, num_points + 1)
    # The digits of the index, mirrored behind the point; in whole numbers, as 1/3 is no float.
    numerator, denominator = torch.zeros_like(remaining), 1
    while denominator <= num_points:
        numerator = numerator * base + remaining % base
        remaining = remaining // base
        denominator *= base
    return numerator * num_cells // denominator
