"""The frozen language model that reads the prompt: any encoder of `transformers`, T5 first.
Muse, section 2.1."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from muse.shapes import TextMask, TextStates

LONGEST = 512
"""Words read at most where a tokenizer names no limit."""


class TextEncoder(nn.Module):
    """A frozen encoder and its tokenizer: prompts to one state for each sub-word."""

    def __init__(self, encoder: nn.Module, tokenizer: Any):
        super().__init__()
        self.encoder = encoder.requires_grad_(False).eval()
        self.tokenizer = tokenizer

    @classmethod
    def from_folder(cls, folder: Path) -> "TextEncoder":
        """Load a folder as `transformers` saves it, in float32 and without asking any hub.
        Raises OSError or ValueError if it is no such folder."""
        from transformers import AutoModelForTextEncoding, AutoTokenizer  # a second of imports

        encoder = AutoModelForTextEncoding.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        return cls(encoder, AutoTokenizer.from_pretrained(folder, local_files_only=True))

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the encoder, rounded to `dtype`, and the tokenizer as `transformers` does."""
        original = self.encoder.dtype
        self.encoder.to(dtype).save_pretrained(folder)  # pyright: ignore[reportCallIssue]
        self.encoder.to(original)  # pyright: ignore[reportArgumentType, reportCallIssue]
        self.tokenizer.save_pretrained(folder)

    @property
    def dim(self) -> int:
        """Features of a state."""
        return self.encoder.config.hidden_size  # pyright: ignore

    @property
    def max_words(self) -> int:
        """Sub-words read at most, special ones included."""
        return min(self.tokenizer.model_max_length, LONGEST)

    def train(self, mode: bool = True) -> "TextEncoder":
        """Frozen: it stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, prompts: Sequence[str]) -> tuple[TextStates, TextMask]:
        """States of every sub-word, and which are words and not padding.
        Raises ValueError if a prompt is longer than the encoder reads."""
        batch = self.tokenizer(list(prompts), padding=True, return_tensors="pt", verbose=False)
        is_word = batch["attention_mask"].bool()
        if (longest := int(is_word.sum(1).max())) > self.max_words:
            raise ValueError(
                f"the prompt has {longest:,} sub-words and the text encoder reads at most {self.max_words}; shorten it"
            )
        device = self.encoder.device
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state, is_word.to(device)
