"""Everything that can be turned when a picture is drawn."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from muse.guidance import Ramp

MOST_STEPS = 10_000
"""More than any grid has tokens."""
STRONGEST = 1000
"""Of any strength: far above what is of use, and far below what numbers overflow at."""

Sampler = Literal["confidence", "halton"]


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are drawn, for one network.
    Raises ValueError for a value outside its range."""

    steps: int = 24
    """Parallel decoding steps; more is slower and usually better."""
    guidance: float = 4.0
    """How strongly the prompt is followed: t in (1 + t) * l_c - t * l_u; 0 is the plain conditional model."""
    guidance_ramp: Ramp = "linear"
    """Whether guidance grows linearly from 0 at the first step, or is constant."""
    sampler: Sampler = "confidence"
    """Which tokens are revealed first: those the network is most confident of, or those next in Halton order."""
    temperature: float = 1.0
    """Temperature at which tokens are drawn, the same at every step; 0 always takes the likeliest code."""
    top_k: int | None = None
    """Draw among this many likeliest codes only; all if not given."""
    choice_noise: float = 4.5
    """Gumbel noise on the confidence, falling to 0 at the last step; more is more varied. Halton order has none."""
    remask: float = 0.0
    """Share of the revealed tokens, the least confident, that is hidden and drawn again at each step; 0 never does."""
    refresh: int = 4
    """Steps from one that computes every position to the next; between them, tokens that were drawn before keep the
    keys and values that they had, and in the first two thirds of the steps the unconditional branch says what it said,
    which takes less time and more memory. 1 computes everything each time."""

    def __post_init__(self) -> None:
        _check_whole("steps", self.steps, MOST_STEPS)
        _check_amount("guidance", self.guidance, most=STRONGEST)
        _check_choice("guidance_ramp", self.guidance_ramp, get_args(Ramp))
        _check_choice("sampler", self.sampler, get_args(Sampler))
        _check_amount("temperature", self.temperature, most=STRONGEST)
        if self.top_k is not None:
            _check_whole("top_k", self.top_k)
        _check_amount("choice_noise", self.choice_noise, most=STRONGEST)
        _check_amount("remask", self.remask, most=1)
        _check_whole("refresh", self.refresh, MOST_STEPS)


@dataclass(frozen=True)
class EditOptions:
    """How a picture is edited without a mask; the defaults are the paper's, but for `refresh`, which is not in it.
    Raises ValueError for a value outside its range. Muse, on mask-free editing."""

    iterations: int = 100
    """How often some tokens are drawn again; fewer keep more of the picture, and a picture after 50 of 100 is that of
    50."""
    share: float = 0.08
    """Which share of all tokens is drawn again in each iteration, chosen at random."""
    guidance: float = 4.0
    """How strongly the prompt is followed: t in (1 + t) * l_c - t * l_u; the same in every iteration."""
    temperature: float = 1.0
    """Temperature at which tokens are drawn; 0 always takes the likeliest code."""
    top_k: int | None = 3
    """Draw among this many likeliest codes only; all if not given."""
    most_changed: float | None = None
    """Stop a picture as soon as this share of its tokens is not what it was at first; never if not given."""
    refresh: int = 4
    """Iterations from one that computes every position to the next; between them, only tokens that are hidden or were
    in the last one are computed. 1 computes every position each time."""

    def __post_init__(self) -> None:
        _check_whole("iterations", self.iterations, MOST_STEPS)
        _check_share("share", self.share)
        _check_amount("guidance", self.guidance, most=STRONGEST)
        _check_amount("temperature", self.temperature, most=STRONGEST)
        if self.top_k is not None:
            _check_whole("top_k", self.top_k)
        if self.most_changed is not None:
            _check_share("most_changed", self.most_changed)
        _check_whole("refresh", self.refresh, MOST_STEPS)


# What a person or a JSON file gave may be anything, hence Any; and True is an int in Python, hence the bool checks.


def _check_whole(name: str, value: Any, most: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        wanted = "of at least 1" if most == math.inf else f"from 1 to {most:,}"
        raise ValueError(f"{name} is {value!r}; give a whole number {wanted}")


def _check_amount(name: str, value: Any, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{name} is {value!r}; give a number from 0 to {most:,}")


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; give one of {', '.join(map(repr, choices))}")


def _check_share(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{name} is {value!r}; give a number above 0, at most 1")
