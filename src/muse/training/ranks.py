"""The processes of one run, and what they tell each other; alone, each of these is nothing at all.

A batch of a step is dealt like cards: of `count` processes, process `index` has samples index, index + count, ..."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

BUCKET = 32 * 2**20
"""Numbers that go round in one message."""


@dataclass(frozen=True)
class Ranks:
    """Which process of a run this is, and of how many."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """True in the one process that writes files and speaks."""
        return self.index == 0

    @property
    def share(self) -> slice:
        """The samples of a batch that are this process's."""
        return slice(self.index, None, self.count)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over all processes in the place of each tensor."""
        if self.count == 1:
            return
        for bucket in buckets(tensors):
            flat = self.sum(torch.cat([tensor.flatten() for tensor in bucket])) / self.count
            for tensor, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather(self, rows: Shaped[Tensor, "mine ..."]) -> Shaped[Tensor, "all ..."]:
        """The rows of all processes, in the order of the whole batch."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        dist.all_gather(parts, rows.contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1)

    def from_first(self, tensor: Tensor) -> Tensor:
        """The first process's tensor, in place."""
        if self.count > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def any(self, is_so: bool, device: torch.device | str = "cpu") -> bool:
        """Whether it is so in any process."""
        return is_so if self.count == 1 else bool(self.sum(torch.tensor(int(is_so), device=device)))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


ALONE = Ranks()


def buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Tensors in order, in groups of one kind of number and of at most BUCKET numbers, or of one tensor."""
    groups: list[list[Tensor]] = []
    size = 0
    for tensor in tensors:
        if groups and groups[-1][0].dtype == tensor.dtype and size + tensor.numel() <= BUCKET:
            groups[-1].append(tensor)
            size += tensor.numel()
        else:
            groups.append([tensor])
            size = tensor.numel()
    return groups


def part() -> None:
    """Leave the other processes, if there are any; each does so at its end, or threads that still listen to them may be
    cut off in the middle of a word."""
    if dist.is_initialized():
        dist.destroy_process_group()
