"""Which of several processes this is, by what torchrun and other launchers write into the environment."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """Which part of the work is this process's."""

    rank: int = 0
    num_ranks: int = 1

    @classmethod
    def from_environment(cls) -> "Shard":
        """By RANK and WORLD_SIZE; all of the work if neither is set.
        Raises ValueError if they are no such pair."""
        rank, num_ranks = (os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
        if not (rank.isdecimal() and num_ranks.isdecimal() and int(rank) < int(num_ranks)):
            raise ValueError(f"RANK is {rank!r} and WORLD_SIZE {num_ranks!r}; give whole numbers, RANK the smaller")
        return cls(int(rank), int(num_ranks))

    @property
    def is_first(self) -> bool:
        """True in the one process that speaks for all."""
        return self.rank == 0


def is_of_torchrun() -> bool:
    """Whether torchrun started this process, and so told it where the others are."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def local_rank() -> int:
    """Which of the processes on this machine this is, and so which GPU is its own.
    Raises ValueError if LOCAL_RANK is no whole number."""
    rank = os.environ.get("LOCAL_RANK", "0")
    if not rank.isdecimal():
        raise ValueError(f"LOCAL_RANK is {rank!r}; give a whole number")
    return int(rank)
