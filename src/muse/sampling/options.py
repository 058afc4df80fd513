"""Everything that can be turned when a picture is drawn."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from muse.guidance import Ramp
from muse.requests import check_choices, check_kind, is_number, keep_whole

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
        keep_whole(self, "steps", most=MOST_STEPS)
        _keep_amount(self, "guidance", most=STRONGEST)
        _keep_amount(self, "temperature", most=STRONGEST)
        if self.top_k is not None:
            keep_whole(self, "top_k")
        _keep_amount(self, "choice_noise", most=STRONGEST)
        _keep_amount(self, "remask", most=1)
        keep_whole(self, "refresh", most=MOST_STEPS)
        check_choices(self)


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
        keep_whole(self, "iterations", most=MOST_STEPS)
        _keep_share(self, "share")
        _keep_amount(self, "guidance", most=STRONGEST)
        _keep_amount(self, "temperature", most=STRONGEST)
        if self.top_k is not None:
            keep_whole(self, "top_k")
        if self.most_changed is not None:
            _keep_share(self, "most_changed")
        keep_whole(self, "refresh", most=MOST_STEPS)


Options = TypeVar("Options", SamplingOptions, EditOptions)

# What numpy calls a number is kept as Python's own, which a JSON file can hold.


def _keep_amount(options: Any, name: str, most: float) -> None:
    value = getattr(options, name)
    if not is_number(value) or not 0 <= value <= most:
        raise ValueError(f"{name} is {value!r}; give a number from 0 to {most:,}")
    object.__setattr__(options, name, float(value))


def _keep_share(options: Any, name: str) -> None:
    value = getattr(options, name)
    if not is_number(value) or not 0 < value <= 1:
        raise ValueError(f"{name} is {value!r}; give a number above 0, at most 1")
    object.__setattr__(options, name, float(value))


def given_or(name: str, options: Options | None, otherwise: Options) -> Options:
    """The options that are given, or others if none are.
    Raises ValueError for options of another kind."""
    if options is None:
        return otherwise
    check_kind(name, options, type(otherwise), f"muse.{type(otherwise).__name__}, or leave them out")
    return options
