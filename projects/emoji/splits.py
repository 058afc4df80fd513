"""What is held out, decided by stable hashes so that every machine and every run agrees."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

HELD_OUT_CONCEPTS = 0.3
"""Share of the concepts that hold one family out."""
HELD_OUT_COMPOSITIONS = 0.1
"""Share of the (concept, count) and (pair, relation) compositions that are held out."""
FEWEST_FAMILIES = 3
"""A concept drawn by fewer families holds nothing out, so at least two thirds of every concept is seen."""

SEEN_FROM_THE_OTHER = {"left": "right", "right": "left", "above": "below", "below": "above", "and": "and"}
"""What each relation is called when the two items are named in the other order."""


def stable_fraction(*words: object) -> float:
    """A number in [0, 1) that depends on the words alone, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(str(word) for word in words).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def held_out_family(concept: str, families: Collection[str]) -> str | None:
    """The one family whose pictures of this concept are held out, or None.

    Held-out pictures also serve as the validation pictures of the VQGAN."""
    if len(set(families)) < FEWEST_FAMILIES or stable_fraction("concept", concept) >= HELD_OUT_CONCEPTS:
        return None
    return min(set(families), key=lambda family: stable_fraction("family", concept, family))


def held_out_pairs(families_by_concept: Mapping[str, Collection[str]]) -> frozenset[tuple[str, str]]:
    """Every held-out (concept, family), at most one a concept."""
    chosen = ((concept, held_out_family(concept, families)) for concept, families in families_by_concept.items())
    return frozenset((concept, family) for concept, family in chosen if family is not None)


def is_held_out_count(concept: str, count: int) -> bool:
    """Whether this many copies of this concept are kept for testing; one copy never is."""
    return count > 1 and stable_fraction("count", concept, count) < HELD_OUT_COMPOSITIONS


def is_held_out_pair(first: str, second: str, relation: str) -> bool:
    """Whether this arrangement is kept for testing, in whichever order the two are named:
    "a left of b" and "b right of a" are the same arrangement and share their fate."""
    if first > second:
        first, second, relation = second, first, SEEN_FROM_THE_OTHER[relation]
    return stable_fraction("pair", first, second, relation) < HELD_OUT_COMPOSITIONS
