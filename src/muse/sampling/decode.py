"""Parallel decoding: at each step draw every hidden token, keep the best, hide the rest again.
Muse, section 2.8; MaskGIT (arXiv:2202.04200), section 3.2."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from muse.masking import halton_order, hidden_counts, lowest
from muse.sampling.options import SamplingOptions
from muse.shapes import Counts, Hidden, Logits, Predict, Scores, Step, Tokens

Noise = Float[Tensor, "2 batch position"]
"""Uniforms in [0, 1) of one step: for the tokens, and for the choice among them."""
# Below this temperature float32 would overflow, and the draw is the likeliest code anyway.
GREEDY_BELOW = 1e-6


@dataclass(frozen=True)
class StepReport:
    """What stands after one step: a copy of the tokens, the mask id among them, and which are still hidden."""

    step: Step
    tokens: Tokens
    is_hidden: Hidden
    stage: Literal["base", "superres"] = "base"
    """Which network's grid this is; `Muse` says so, as decoding does not know."""


def generators_for(seeds: Sequence[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """One generator for each picture of a batch, so that a picture depends on its own seed and on no neighbour."""
    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


@torch.no_grad()
def decode(
    start_tokens: Tokens,
    predict: Predict,
    options: SamplingOptions,
    generator: torch.Generator | Sequence[torch.Generator],
    mask_id: int,
    callback: Callable[[StepReport], None] | None = None,
) -> Tokens:
    """Replace every `mask_id` in the start tokens by a code in [0, mask_id), in exactly `options.steps` predictions.

    Given tokens stay as they are. With one generator for each sample, every sample is what it would be alone.
    Guidance is not applied here: `predict` brings it (`muse.guidance.guided`).
    Raises ValueError if a start token is neither a code nor `mask_id`, if the generators or the logits do not fit the
    tokens, or if a grid in Halton order is not square; FloatingPointError if the network gave NaN or infinite logits.
    Muse, section 2.8; the confidence is MaskGIT's, section 3.2."""
    check_tokens(start_tokens, mask_id)
    batch, num_positions = start_tokens.shape
    generators = one_for_each(generator, batch)
    counts, halton = schedule(start_tokens, options, mask_id)

    def noise_at(index: int) -> Noise:
        return draw_noise(generators, num_positions).to(start_tokens.device)

    tokens, is_broken = reveal(start_tokens, counts, predict, options, mask_id, noise_at, halton, callback)
    raise_if_broken(is_broken)
    return tokens


def schedule(
    start_tokens: Tokens, options: SamplingOptions, mask_id: int
) -> tuple[Int[Tensor, "step batch"], Float[Tensor, " position"] | None]:
    """How many tokens are hidden after each step, and the scores of Halton order if that is the sampler.
    Raises ValueError if a grid in Halton order is not square."""
    counts = hidden_counts((start_tokens == mask_id).sum(dim=1), options.steps)
    if options.sampler != "halton":
        return counts, None
    return counts, halton_scores(start_tokens.shape[1]).to(start_tokens.device)


def reveal(
    start_tokens: Tokens,
    counts: Int[Tensor, "step batch"],
    predict: Predict,
    options: SamplingOptions,
    mask_id: int,
    noise_at: Callable[[int], Noise],
    halton: Float[Tensor, " position"] | None = None,
    callback: Callable[[StepReport], None] | None = None,
) -> tuple[Tokens, Bool[Tensor, " step"]]:
    """The steps of `decode`: the tokens, and at which steps the logits were broken.

    `counts` and `halton` are those of `schedule`, and `noise_at` gives the uniforms of a step. Nothing
    here looks at what a device has computed, or waits for it, so that all of it can be one CUDA graph
    (`muse.sampling.graph`)."""
    tokens, is_hidden = start_tokens, start_tokens == mask_id
    batch, num_positions = start_tokens.shape
    is_ours, kept_log_probs = is_hidden, torch.zeros(start_tokens.shape, device=tokens.device)
    any_broken: list[Tensor] = []

    for index in range(options.steps):
        step = Step(index, options.steps)
        logits = predict(tokens, is_hidden, step)
        check_shape(logits, (batch, num_positions, mask_id))
        token_noise, choice_noise = noise_at(index)

        log_probs = logits.float().log_softmax(dim=-1)  # a softmax over 8192 codes loses digits in bf16
        drawn = draw_codes(log_probs, token_noise, options.temperature, options.top_k)
        drawn_log_probs = log_probs.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
        any_broken.append((drawn_log_probs.isnan() & is_hidden).any())

        if halton is None:
            scores = confidence(drawn_log_probs, choice_noise, options.choice_noise, step)
        else:
            scores = halton.expand(batch, -1)
        again = remasked(is_ours & ~is_hidden, kept_log_probs, choice_noise, counts[index], options, step)
        # Known tokens have infinite confidence: editing needs no decoder of its own.
        stays_hidden = lowest(scores.masked_fill(~is_hidden, math.inf), counts[index] - again.sum(1))
        is_revealed = is_hidden & ~stays_hidden
        kept_log_probs = torch.where(is_revealed, drawn_log_probs, kept_log_probs)
        tokens = torch.where(is_revealed, drawn.to(tokens.dtype), tokens).masked_fill(again, mask_id)
        is_hidden = stays_hidden | again
        if callback is not None:
            callback(StepReport(step, tokens.clone(), is_hidden.clone()))
    return tokens, torch.stack(any_broken)


def draw_codes(log_probs: Logits, uniforms: Scores, temperature: float, top_k: int | None) -> Tokens:
    """Draw a code at every position by inverting its cumulative distribution at a uniform in [0, 1).
    `top_k` is how many of the likeliest codes can be drawn; temperature 0 takes the likeliest."""
    if temperature < GREEDY_BELOW:
        return log_probs.argmax(dim=-1)
    if top_k is None:
        return _invert_cumulative(log_probs / temperature, uniforms)
    kept, codes = log_probs.topk(min(top_k, log_probs.shape[-1]), dim=-1)
    drawn = _invert_cumulative(kept / temperature, uniforms)
    return codes.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)


def confidence(drawn_log_probs: Scores, uniforms: Scores, choice_noise: float, step: Step) -> Scores:
    """The log-probability of each drawn token plus tau * (1 - progress) * Gumbel noise.
    MaskGIT (arXiv:2202.04200), as its published code has it; tau is `choice_noise`."""
    # A uniform of exactly 0 would be infinite noise.
    gumbel = -(-uniforms.clamp(min=torch.finfo(uniforms.dtype).tiny).log()).log()
    return drawn_log_probs + choice_noise * (1 - step.progress) * gumbel


def remasked(
    is_revealed: Hidden, log_probs: Scores, uniforms: Scores, num_hidden: Counts, options: SamplingOptions, step: Step
) -> Hidden:
    """Which revealed tokens are hidden again: a share of them, those drawn with the least confidence, but no more than
    `num_hidden`, the tokens that are hidden after this step: so the schedule holds, and the last step hides none.
    After ReMDM (arXiv:2503.00307), section 4, its remasking by confidence; here the share is of the revealed tokens."""
    if options.remask == 0:
        return torch.zeros_like(is_revealed)
    counts = (options.remask * is_revealed.sum(1)).floor().long().minimum(num_hidden)
    scores = confidence(log_probs, uniforms, options.choice_noise, step)
    return lowest(scores.masked_fill(~is_revealed, math.inf), counts)


def _invert_cumulative(logits: Logits, uniforms: Scores) -> Tokens:
    """The first code whose cumulative probability exceeds the uniform; so never one of probability 0."""
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1)
    # The total is not quite 1; even the largest uniform, 1 - 2^-24, times the total rounds to less than the total.
    threshold = uniforms.unsqueeze(-1) * cumulative[..., -1:]
    # Only NaN logits fall off the end; decode reports them.
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)


def draw_noise(generators: Sequence[torch.Generator], num_positions: int) -> Noise:
    """Uniforms in [0, 1) for the tokens and for the choice among them; each sample's from its own generator."""
    noise = [torch.rand(2, num_positions, generator=each, device=each.device) for each in generators]
    return torch.stack(noise, dim=1)


def halton_scores(num_positions: int) -> Float[Tensor, " position"]:
    """A score for each position of a square grid, highest for the one that Halton order reveals first."""
    side = math.isqrt(num_positions)
    if side * side != num_positions:
        raise ValueError(f'{num_positions} tokens are not a square grid, which Halton order needs; use "confidence"')
    return -halton_order(side, side).argsort().float()


def one_for_each(generator: torch.Generator | Sequence[torch.Generator], batch: int) -> Sequence[torch.Generator]:
    if isinstance(generator, torch.Generator):
        return [generator] * batch
    if len(generator) != batch:
        raise ValueError(f"{len(generator)} generators came for {batch} samples; give one for each, or a single one")
    return generator


def check_tokens(tokens: Tokens, mask_id: int) -> None:
    is_foreign = (tokens < 0) | (tokens > mask_id)
    if is_foreign.any():
        raise ValueError(
            f"start tokens hold {tokens[is_foreign][0]}; wanted codes in [0, {mask_id}) and {mask_id} where hidden: "
            "were they made by the VQGAN that this network was trained with?"
        )


def check_shape(logits: Tensor, wanted: tuple[int, int, int]) -> None:
    if logits.shape != wanted:
        raise ValueError(
            f"predict gave logits of shape {tuple(logits.shape)}, wanted {wanted}: "
            f"batch, position and one column for each of the {wanted[2]} codes, with none for the mask id {wanted[2]}"
        )


def raise_if_broken(at_step: Bool[Tensor, " step"]) -> None:
    """Looked at once, at the end: looking at every step would make the device wait."""
    is_broken = at_step.tolist()
    if any(is_broken):
        raise FloatingPointError(
            f"the network gave NaN or infinite logits at step {is_broken.index(True)} of {len(is_broken)} (from 0); "
            "check its weights, or run it in bfloat16 or float32 if it runs in float16"
        )
