"""Seeded shuffles of any length that take no memory: where a place goes is computed, not looked up."""

import hashlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int

Places = Int[np.ndarray, " place"]
ROUNDS = 6
SAMPLED = 16
"""Rows of a data set that are looked at to tell it from another."""


def shuffled(places: Places, num: int, seed: tuple[int, ...]) -> Places:
    """Where a shuffle of `num` things, decided by the seed, puts the thing at each of some places in [0, num).

    A Feistel network over the next power of 4, walked until it falls inside (Black and Rogaway, Ciphers with arbitrary
    finite domains, 2002)."""
    half = max((max(num - 1, 1).bit_length() + 1) // 2, 1)
    keys = np.random.default_rng(seed).integers(2**63, size=ROUNDS, dtype=np.uint64)
    current = rounds(places.astype(np.uint64), keys, half)
    while (outside := current >= num).any():
        current[outside] = rounds(current[outside], keys, half)
    return current.astype(np.int64)


def check_rows(num: int, batch_size: int, held_out: int, what: str) -> None:
    """Raises ValueError if no batches can be made of so many rows; `what` says what and where they are."""
    if batch_size < 1:
        raise ValueError(f"the batch size is {batch_size}; give at least 1")
    if held_out < 0:
        raise ValueError(f"{held_out} rows are to be held out; give 0 or more")
    if num - held_out < 1:
        raise ValueError(f"{what} and {held_out} are held out; hold out fewer")


def order_of(rows: int, batch_size: int, held_out: int, seed: int, content: str) -> dict[str, int | str]:
    """What decides which rows come in which step, by the names that the command line has for it, and the digest of
    what some of them hold."""
    return {
        "rows": rows,
        "held-out": held_out,
        "batch-size": batch_size,
        "engine.seed": seed,
        "content": content,
    }


def sampled(num: int) -> list[int]:
    """The numbers of a few of `num` rows, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, num - 1, min(num, SAMPLED)).astype(np.int64)).tolist()


def digest_of(parts: Iterable[bytes]) -> str:
    """Twelve hexadecimal digits that differ where the parts do."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:12]


def rounds(numbers: np.ndarray, keys: np.ndarray, half: int) -> np.ndarray:
    """One pass through the network; a permutation of all numbers of 2 * half bits."""
    shift, mask = np.uint64(half), np.uint64(2**half - 1)
    left, right = numbers >> shift, numbers & mask
    for key in keys:
        mixed = (right ^ key) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        left, right = right, left ^ ((mixed >> np.uint64(32)) & mask)
    return (left << shift) | right
