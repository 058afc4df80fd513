"""What a step of training is given: a seeded batch of tokens or of pictures, whole or one process's share of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from muse.shapes import TextMask, TextStates, Tokens


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of pictures and what the pictures show."""

    tokens: Tokens
    captions: Sequence[str]
    high: Int[Tensor, "batch high_position"] | None = None
    """Tokens of the same pictures by the VQGAN of super-resolution, where a cache holds them."""
    text: TextStates | None = None
    """The text encoder's states of the captions, where a cache holds them."""
    is_word: TextMask | None = None
    """Which of the states are no padding."""

    @property
    def high_tokens(self) -> Int[Tensor, "batch high_position"]:
        """Tokens of the same pictures by the VQGAN of super-resolution.
        Raises ValueError if there are none."""
        if self.high is None:
            raise ValueError("the batch has no high-resolution tokens; make a token cache with both VQGANs")
        return self.high

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice) -> "TokenBatch":
        def part(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[rows]

        return TokenBatch(self.tokens[rows], self.captions[rows], part(self.high), part(self.text), part(self.is_word))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenBatch":
        """The same batch on a device."""
        moved = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)
