"""Editing without a mask, and variations: which tokens of a given picture are drawn again.
Muse, on mask-free editing."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from muse.masking import lowest
from muse.requests import check_strength
from muse.sampling.decode import (
    StepReport,
    check_tokens,
    draw_noise,
    draw_tokens,
    one_for_each,
    put,
    raise_if_broken,
    uniforms,
)
from muse.sampling.options import EditOptions
from muse.shapes import Predict, Step, Tokens


@torch.no_grad()
def edit(
    tokens: Tokens,
    predict: Predict,
    options: EditOptions,
    generator: torch.Generator | Sequence[torch.Generator],
    mask_id: int,
    callback: Callable[[StepReport], None] | None = None,
) -> Tokens:
    """Move a picture's own tokens towards what `predict` wants: each iteration hides a few at random, draws them again.

    Guidance and `refresh` are not applied here: `predict` brings them. With one generator for each sample, every sample
    is what it would be alone. An iteration does not depend on how many are to come, so stopping early asks for fewer.
    Raises ValueError if a token is hidden or no code, or if the generators or the logits do not fit the tokens;
    FloatingPointError if the network gave logits that are NaN or +inf.
    Muse, on mask-free editing: 8% of the tokens, top-k of 3, guidance 4, 100 iterations."""
    check_tokens(tokens, mask_id)
    if (tokens == mask_id).any():
        raise ValueError("some of the tokens to edit are hidden; fill them first, or decode them")
    batch, num_positions = tokens.shape
    generators = one_for_each(generator, batch)
    num_hidden = max(round(options.share * num_positions), 1)
    counts = torch.full((batch,), num_hidden, device=tokens.device)
    original, is_done = tokens, torch.zeros(batch, dtype=torch.bool, device=tokens.device)
    any_broken: list[Tensor] = []

    for index in range(options.iterations):
        step = Step(index, options.iterations, num_hidden, 2 * num_hidden)
        token_noise, choice_noise = draw_noise(generators, num_positions).to(tokens.device)
        is_hidden = lowest(choice_noise, counts) & ~is_done.unsqueeze(1)
        masked = tokens.masked_fill(is_hidden, mask_id)
        drawn = draw_tokens(predict, masked, is_hidden, step, mask_id, token_noise, options)
        any_broken.append(drawn.is_broken)
        tokens = put(tokens, drawn.places, drawn.is_drawn, drawn.tokens)
        if callback is not None:
            callback(StepReport(step, tokens.clone(), torch.zeros_like(is_hidden)))
        if options.most_changed is not None:
            is_done = is_done | ((tokens != original).float().mean(dim=1) >= options.most_changed)
            if is_done.all():
                break

    raise_if_broken(torch.stack(any_broken))
    return tokens


def hide_share(
    tokens: Tokens, strength: float, mask_id: int, generator: torch.Generator | Sequence[torch.Generator]
) -> Tokens:
    """Hide round(strength * positions) tokens of each sample at random: none at 0, all at 1.
    With the same generators, what is hidden at one strength is hidden at every greater one.
    Raises ValueError if the strength is not in [0, 1], or the generators do not fit the tokens."""
    check_strength(strength)
    batch, num_positions = tokens.shape
    generators = one_for_each(generator, batch)
    scores = torch.stack(uniforms(generators, num_positions))
    counts = torch.full((batch,), round(float(strength) * num_positions), device=tokens.device)
    return tokens.masked_fill(lowest(scores.to(tokens.device), counts), mask_id)
