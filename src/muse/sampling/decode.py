"""Parallel decoding: at each step draw every hidden token, keep the best, hide the rest again.
Muse, section 2.8; MaskGIT (arXiv:2202.04200), section 3.2."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from muse.masking import halton_order, hidden_counts, hidden_places, lowest
from muse.sampling.options import EditOptions, SamplingOptions
from muse.shapes import Counts, Hidden, Logits, PlaceLogits, Places, Predict, Scores, Step, Tokens

Noise = Float[Tensor, "2 batch position"]
"""Uniforms in [0, 1) of one step: for the tokens, and for the choice among them."""
# Below this temperature float32 would overflow, and the draw is the likeliest code anyway.
GREEDY_BELOW = 1e-6
BLOCK = 64
"""Codes that are drawn among at a time."""
LARGEST_UNIFORM = 1 - 2**-24


@dataclass(frozen=True)
class StepReport:
    """What stands after one step: a copy of the tokens, the mask id among them, and which are still hidden."""

    step: Step
    tokens: Tokens
    is_hidden: Hidden
    stage: Literal["base", "superres"] = "base"
    """Which network's grid this is; `Muse` says so, as decoding does not know."""
    log_probs: Scores | None = None
    """How likely each token was when it was drawn, in nats; 0 where it was given. None in an edit, which draws tokens
    again and again."""


def generators_for(seeds: Sequence[int], device: torch.device | str = "cpu") -> list[torch.Generator]:
    """One generator for each picture of a batch, so that a picture depends on its own seed and on no neighbour."""
    return [torch.Generator(device).manual_seed(folded(seed)) for seed in seeds]


def folded(seed: int) -> int:
    """A seed in the 32 bits that a generator reads of it; a larger one gives its upper bits their say too, mixed as by
    Steele, Lea and Flood, Fast splittable pseudorandom number generators (2014)."""
    if seed < 2**32:
        return seed
    for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):
        seed = (seed ^ (seed >> 31)) * factor % 2**64
    return seed >> 32


@torch.no_grad()
def decode(
    start_tokens: Tokens,
    predict: Predict,
    options: SamplingOptions,
    generator: torch.Generator | Sequence[torch.Generator],
    mask_id: int,
    callback: Callable[[StepReport], None] | None = None,
    height: int | None = None,
) -> Tokens:
    """Replace every `mask_id` in the start tokens by a code in [0, mask_id), in exactly `options.steps` predictions.

    Given tokens stay as they are. With one generator for each sample, every sample is what it would be alone.
    Guidance is not applied here: `predict` brings it (`muse.guidance.guided`). Halton order wants to know the `height`
    of the grid, if it is not square.
    Raises ValueError if there are no start tokens or one is neither a code nor `mask_id`, if the generators, the logits
    or the height do not fit the tokens; FloatingPointError if the network gave logits that are NaN or +inf.
    Muse, section 2.8; the confidence is MaskGIT's, section 3.2."""
    check_tokens(start_tokens, mask_id)
    batch, num_positions = start_tokens.shape
    generators = one_for_each(generator, batch)
    plan = plan_for(start_tokens, options, mask_id, height)

    def noise_at(index: int) -> Noise:
        return draw_noise(generators, num_positions).to(start_tokens.device)

    tokens, is_broken = reveal(start_tokens, plan, predict, options, mask_id, noise_at, callback)
    raise_if_broken(is_broken)
    return tokens


@dataclass(frozen=True)
class Plan:
    """What is known of all steps before the first."""

    steps: tuple[Step, ...]
    """The steps, each with how many tokens are hidden before it at most."""
    counts: Int[Tensor, "step batch"]
    """How many tokens of each sample are hidden after each step."""
    halton: Float[Tensor, " position"] | None
    """The scores of Halton order, if that is the sampler."""


def plan_for(start_tokens: Tokens, options: SamplingOptions, mask_id: int, height: int | None = None) -> Plan:
    """The plan for some start tokens, of a square grid or one of a height.
    Raises ValueError if a grid in Halton order is neither."""
    unknown = (start_tokens == mask_id).sum(dim=1).cpu()
    after = hidden_counts(unknown, options.steps)
    before = torch.cat([unknown[None], after[:-1]])
    again = (options.remask * (unknown - before)).floor().long().minimum(after)
    touched = torch.cat([before[:1], (before + again)[:-1]])
    most = ([max(int(count), 1) for count in counts.amax(1)] for counts in (before, touched))
    steps = tuple(
        Step(index, options.steps, *counts, draws_for_good=options.remask == 0)
        for index, counts in enumerate(zip(*most, strict=True))
    )
    device, is_halton = start_tokens.device, options.sampler == "halton"
    halton = halton_scores(start_tokens.shape[1], height).to(device) if is_halton else None
    return Plan(steps, after.to(device), halton)


def reveal(
    start_tokens: Tokens,
    plan: Plan,
    predict: Predict,
    options: SamplingOptions,
    mask_id: int,
    noise_at: Callable[[int], Noise],
    callback: Callable[[StepReport], None] | None = None,
) -> tuple[Tokens, Bool[Tensor, " step"]]:
    """The steps of `decode`: the tokens, and at which steps the logits were broken.

    The plan is that of `plan_for`, and `noise_at` gives the uniforms of a step. Nothing here looks at what a device has
    computed, or waits for it, so that all of it can be one CUDA graph (`muse.sampling.graph`)."""
    tokens, is_hidden = start_tokens, start_tokens == mask_id
    is_ours, kept_log_probs = is_hidden, torch.zeros(start_tokens.shape, device=tokens.device, dtype=torch.float32)
    any_broken: list[Tensor] = []

    for step, count in zip(plan.steps, plan.counts, strict=True):
        token_noise, choice_noise = noise_at(step.index)
        drawn = draw_tokens(predict, tokens, is_hidden, step, mask_id, token_noise, options)
        places, is_drawn = drawn.places, drawn.is_drawn
        any_broken.append(drawn.is_broken)

        if plan.halton is None:
            scores = confidence(drawn.log_probs, choice_noise.gather(1, places), options.choice_noise, step)
        else:
            scores = plan.halton[places]
        again = remasked(is_ours & ~is_hidden, kept_log_probs, choice_noise, count, options, step)
        # Known tokens have infinite confidence: editing needs no decoder of its own.
        stays_hidden = lowest(scores.masked_fill(~is_drawn, math.inf), count - again.sum(1))
        is_revealed = is_drawn & ~stays_hidden
        kept_log_probs = put(kept_log_probs, places, is_revealed, drawn.log_probs)
        tokens = put(tokens, places, is_revealed, drawn.tokens).masked_fill(again, mask_id)
        is_hidden = is_hidden.scatter(1, places, stays_hidden) | again
        if callback is not None:
            callback(StepReport(step, tokens.clone(), is_hidden.clone(), log_probs=kept_log_probs.clone()))
    return tokens, torch.stack(any_broken)


@dataclass(frozen=True)
class Drawn:
    """What one step drew, at some places of each sample."""

    places: Places
    """The hidden places of each sample, and others where it has fewer than its neighbours."""
    tokens: Tokens
    """A code for each."""
    log_probs: Scores
    """How likely each was, in nats."""
    is_drawn: Hidden
    """Which of the places were hidden: nothing was drawn for the others."""
    is_broken: Bool[Tensor, ""]
    """Whether the logits of a hidden place were NaN or +inf."""


def draw_tokens(
    predict: Predict,
    tokens: Tokens,
    is_hidden: Hidden,
    step: Step,
    mask_id: int,
    noise: Scores,
    options: SamplingOptions | EditOptions,
) -> Drawn:
    """A code for every hidden token, by a uniform of each position; in float32, whatever the logits come in, as a
    softmax over 8192 codes loses digits in bf16.
    Raises ValueError if the logits do not fit the tokens."""
    logits, places = logits_at(predict, tokens, is_hidden, step, mask_id)
    log_probs, is_drawn = logits.float().log_softmax(dim=-1), is_hidden.gather(1, places)
    drawn = draw_codes(log_probs, noise.gather(1, places), options.temperature, options.top_k)
    of_drawn = log_probs.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
    return Drawn(places, drawn, of_drawn, is_drawn, (of_drawn.isnan() & is_drawn).any())


def logits_at(
    predict: Predict, tokens: Tokens, is_hidden: Hidden, step: Step, mask_id: int
) -> tuple[PlaceLogits, Places]:
    """Logits of the places where tokens are hidden, and these places, whether or not `predict` gave those of all.
    Raises ValueError if it gave neither."""
    logits = predict(tokens, is_hidden, step)
    batch, num_positions = tokens.shape
    assert step.most_hidden is not None, "a step of decoding that does not know how many tokens are hidden"
    places = hidden_places(is_hidden, step.most_hidden)
    if logits.shape == (batch, places.shape[1], mask_id):
        return logits, places
    check_shape(logits, (batch, num_positions, mask_id))
    return logits.take_along_dim(places[..., None], dim=1), places


def put(values: Tensor, places: Places, is_new: Hidden, new: Tensor) -> Tensor:
    """The values, with new ones at those of the places where they are new."""
    return values.scatter(1, places, torch.where(is_new, new.to(values.dtype), values.gather(1, places)))


def draw_codes(log_probs: Logits, uniforms: Scores, temperature: float, top_k: int | None) -> Tokens:
    """Draw a code at every position by inverting its cumulative distribution at a uniform in [0, 1).
    `top_k` is how many of the likeliest codes can be drawn; temperature 0 takes the likeliest."""
    if temperature < GREEDY_BELOW:
        return log_probs.argmax(dim=-1)
    if top_k is None:
        return _draw(_tempered(log_probs, temperature), uniforms)
    kept, codes = log_probs.topk(min(top_k, log_probs.shape[-1]), dim=-1)
    # Those that are kept do not sum to 1 any more, at any temperature.
    drawn = _draw((kept / temperature).softmax(dim=-1), uniforms)
    return codes.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)


def _tempered(log_probs: Logits, temperature: float) -> Logits:
    """Probabilities at a temperature."""
    return log_probs.exp() if temperature == 1 else (log_probs / temperature).softmax(dim=-1)


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


def _draw(weights: Logits, uniforms: Scores) -> Tokens:
    """The first code whose cumulative weight exceeds the uniform's share of all; so never one of weight 0.

    Of many codes first a block of them, then one of the block: one cumulative sum over 8192 codes would take as long as
    the softmax before it (docs/log.md)."""
    num = weights.shape[-1]
    if num < 2 * BLOCK:
        return _invert_cumulative(weights, uniforms)[0]
    blocks = F.pad(weights, (0, -num % BLOCK)).unflatten(-1, (-1, BLOCK))
    block, rest = _invert_cumulative(blocks.sum(dim=-1), uniforms)
    inside = blocks.take_along_dim(block[..., None, None], dim=-2).squeeze(-2)
    drawn = block * BLOCK + _invert_cumulative(inside, rest)[0]
    return drawn.clamp(max=num - 1)  # only NaN logits lead beyond the last; decode reports them


def _invert_cumulative(weights: Logits, uniforms: Scores) -> tuple[Tokens, Scores]:
    """The first place whose cumulative weight exceeds the uniform's share of all, and how far into that place's weight
    the uniform lies, in [0, 1)."""
    cumulative = weights.cumsum(dim=-1)
    # The total is not quite 1; even the largest uniform, 1 - 2^-24, times the total rounds to less than the total.
    threshold = uniforms.unsqueeze(-1) * cumulative[..., -1:]
    index = torch.searchsorted(cumulative, threshold, right=True).clamp(max=weights.shape[-1] - 1)
    weight = weights.gather(-1, index)
    rest = (threshold - (cumulative.gather(-1, index) - weight)) / weight
    return index.squeeze(-1), rest.squeeze(-1).clamp(0, LARGEST_UNIFORM)


def draw_noise(generators: Sequence[torch.Generator], num_positions: int) -> Noise:
    """Uniforms in [0, 1) for the tokens and for the choice among them; each sample's from its own generator."""
    return torch.stack(uniforms(generators, 2, num_positions), dim=1)


def uniforms(generators: Sequence[torch.Generator], *shape: int) -> list[Tensor]:
    """Uniforms in [0, 1) of each generator, the same whatever torch's default type is."""
    return [torch.rand(shape, generator=each, device=each.device, dtype=torch.float32) for each in generators]


def halton_scores(num_positions: int, height: int | None = None) -> Float[Tensor, " position"]:
    """A score for each position of a grid, square if no height is given, highest for the one that Halton order reveals
    first."""
    rows = math.isqrt(num_positions) if height is None else height
    width = rows if height is None else num_positions // max(rows, 1)
    if rows * width != num_positions:
        raise ValueError(
            f"{num_positions} tokens are no grid of {rows} rows and {width} columns, which Halton order needs; "
            'use "confidence"'
        )
    return -halton_order(rows, width).argsort().float()


def one_for_each(generator: torch.Generator | Sequence[torch.Generator], batch: int) -> Sequence[torch.Generator]:
    if isinstance(generator, torch.Generator):
        return [generator] * batch
    if len(generator) != batch:
        raise ValueError(f"{len(generator)} generators came for {batch} samples; give one for each, or a single one")
    return generator


def check_tokens(tokens: Tokens, mask_id: int) -> None:
    if not tokens.numel():
        raise ValueError(f"start tokens are of shape {tuple(tokens.shape)}; give at least one sample of one position")
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
            f"the network gave logits that are NaN or +inf at step {is_broken.index(True)} of {len(is_broken)} (from 0)"
            "; check its weights, or run it in bfloat16 or float32 if it runs in float16"
        )
