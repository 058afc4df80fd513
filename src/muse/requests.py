"""What people ask for, looked at before anything is drawn: prompts, seeds and strengths; and how paths are told."""

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

Precision = Literal["auto", "float32", "bfloat16", "int8", "float8"]
"""The arithmetic that networks draw in; auto takes bfloat16 where the machine computes in it, else float32. int8, on
processors, and float8, on GPUs, round the products of the transformers' layers."""
LARGEST_SEED = 2**63 - 1
MOST_TRIED = 1000
"""Seeds that are tried for one picture."""


def told_path(path: Path | str) -> str:
    """A path as text: what is no UTF-8 in a name is escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def random_seeds(num: int) -> list[int]:
    """Seeds that nobody chose, short enough to type."""
    return [random.SystemRandom().randrange(2**31) for _ in range(num)]


def check_request(prompts: Sequence[str], seeds: Sequence[int], negatives: Sequence[str] | None) -> None:
    """Raises ValueError, in one sentence, for what cannot be drawn."""
    if isinstance(prompts, str):
        raise ValueError("prompts is one string; give a list of prompts, even for a single one")
    if not prompts:
        raise ValueError("no prompt came; give at least one")
    wishes = {"prompt": "what the picture shows", "negative prompt": "what the picture shall not show, or leave it out"}
    for (kind, wish), texts in zip(wishes.items(), (prompts, negatives or ()), strict=True):
        if any(not isinstance(text, str) or not text.strip() for text in texts):
            raise ValueError(f"the {kind} is empty; say in a few words {wish}")
        if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):  # how Python reads broken UTF-8
            raise ValueError(f"the {kind} is not text in UTF-8; type it again")
    for kind, given in (("seeds", seeds), ("negative prompts", negatives)):
        if given is not None and len(given) != len(prompts):
            raise ValueError(f"{len(given)} {kind} came for {len(prompts)} prompts; give one for each")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
            raise ValueError(f"seed is {seed!r}; give a whole number from 0 to {LARGEST_SEED}")


def check_best_of(best_of: Any, seeds: Sequence[int]) -> None:
    """Raises ValueError if so many seeds cannot be tried from each of some on."""
    if isinstance(best_of, bool) or not isinstance(best_of, int) or not 1 <= best_of <= MOST_TRIED:
        raise ValueError(f"best_of is {best_of!r}; give a whole number from 1 to {MOST_TRIED:,}")
    if max(seeds) > LARGEST_SEED - best_of + 1:
        raise ValueError(f"seed is {max(seeds)} and {best_of} are tried from it on; the largest is {LARGEST_SEED}")


def check_clip(clip: str | None, best_of: int) -> None:
    """Raises ValueError if a CLIP is to choose and there is nothing to choose among."""
    if clip is not None and best_of == 1:
        raise ValueError("--clip chooses among several, and --best-of is 1; give both, or leave --clip out")


def check_guidance(guidance: float, *, has_negatives: bool) -> None:
    """Raises ValueError if there are negative prompts and no guidance, by which alone they act."""
    if has_negatives and guidance == 0:
        raise ValueError("guidance is 0, at which a negative prompt does nothing; give guidance 1, or leave it out")


def check_strength(strength: Any) -> None:
    """Raises ValueError for what is no number in [0, 1]."""
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength!r}; give a number from 0 (nothing changes) to 1 (everything may)")
