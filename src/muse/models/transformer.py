"""The base transformer: logits over the codebook for a grid of partly hidden tokens, given a text.
Muse, sections 2.4 and 2.7; sizes in section 3 and the appendix."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from muse.models.layers import CrossAttention, FeedForward, Positions2D, SelfAttention, States, TextHeads, Words
from muse.shapes import Logits, TextMask, TextStates, Tokens


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of a base transformer; the defaults are Muse-3B."""

    num_codes: int = 8192
    """Codes of the VQGAN; the mask id is one past the last."""
    height: int = 16
    """Rows of the token grid."""
    width: int = 16
    """Columns of the token grid."""
    dim: int = 2048
    """Features of a position."""
    depth: int = 48
    """Layers, each self-attention, cross-attention and MLP."""
    heads: int = 16
    """Attention heads; they share `dim` evenly."""
    mlp_dim: int = 8192
    """Features inside each MLP."""
    text_dim: int = 4096
    """Features of the text encoder's states."""
    dropout: float = 0.0
    """Share of each layer's output that training drops."""
    vqgan_fingerprint: str | None = None
    """The VQGAN whose codes these are; a model with another one is refused."""

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of {self.heads} heads; try {self.dim // 64} heads")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; give a share from 0 up to, not including, 1")

    @property
    def mask_id(self) -> int:
        """The token that stands for a hidden one; it lies outside the codebook."""
        return self.num_codes


PRESETS = {
    "muse-632m": TransformerConfig(dim=1280, depth=24, heads=20, mlp_dim=5120),
    "muse-3b": TransformerConfig(),
}
"""The sizes of the paper; heads are our choice where the paper is silent: 64 features each, 128 in the largest."""


@dataclass(frozen=True)
class TextContext:
    """All that the layers need of a text, computed once for a picture: keys and values of every layer."""

    keys_values: tuple[tuple[TextHeads, TextHeads], ...]
    is_word: Words

    def __len__(self) -> int:
        return len(self.is_word)

    def repeated(self, times: int) -> "TextContext":
        """The same texts, each `times` times one after the other."""
        return TextContext(
            tuple((k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for k, v in self.keys_values),
            self.is_word.repeat_interleave(times, 0),
        )


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention to the text and an MLP, each behind layer normalisation around a shortcut."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        dim, heads = config.dim, config.heads
        self.norm_self, self.attend_self = nn.LayerNorm(dim, bias=False), SelfAttention(dim, heads)
        self.norm_text, self.attend_text = nn.LayerNorm(dim, bias=False), CrossAttention(dim, heads)
        self.norm_mlp, self.mlp = nn.LayerNorm(dim, bias=False), FeedForward(dim, config.mlp_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: States, text: tuple[TextHeads, TextHeads] | None, is_word: Words | None) -> States:
        states = states + self.dropout(self.attend_self(self.norm_self(states)))
        if text is not None and is_word is not None:
            states = self._attend_text(states, text, is_word)
        return states + self.dropout(self.mlp(self.norm_mlp(states)))

    def _attend_text(self, states: States, text: tuple[TextHeads, TextHeads], is_word: Words) -> States:
        told, untold = states[: len(is_word)], states[len(is_word) :]
        told = told + self.dropout(self.attend_text(self.norm_text(told), *text, is_word))
        return torch.cat([told, untold]) if len(untold) else told


class MaskedTransformer(nn.Module):
    """Predicts every token of a grid at once from those that are visible and the text."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.project_text = nn.Linear(config.text_dim, config.dim)
        self.norm_text = nn.LayerNorm(config.dim, bias=False)
        self.embed = nn.Embedding(config.num_codes + 1, config.dim)
        self.positions = Positions2D(config.height, config.width, config.dim)
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, bias=False)
        self.head = nn.Sequential(
            nn.Linear(config.dim, config.dim),
            nn.GELU(),
            nn.LayerNorm(config.dim),
            nn.Linear(config.dim, config.num_codes),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights of standard deviation 0.02, those that end a shortcut scaled down by the depth."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in self.layers:
            assert isinstance(layer, TransformerLayer)
            for last in (layer.attend_self.out, layer.attend_text.out, layer.mlp.narrow):
                nn.init.normal_(last.weight, std=0.02 / math.sqrt(3 * self.config.depth))

    def read(self, text: TextStates, is_word: TextMask) -> TextContext:
        """What the layers need of a text; it does not change while a picture is drawn."""
        projected = self.norm_text(self.project_text(text))
        return TextContext(tuple(layer.attend_text.read(projected) for layer in self.layers), is_word)  # pyright: ignore

    def forward(self, tokens: Tokens, text: TextContext | None) -> Logits:
        """Logits of every code at every position.

        The texts belong to the first samples of the batch; samples beyond them, or all if there is no text, attend to
        image tokens only. So one batch holds both branches of guidance, and dropped captions in training.
        Raises ValueError if the grid is not the config's, or more texts than samples came."""
        self._check(tokens, text)
        states = self.embed(tokens) + self.positions()
        is_word = text.is_word if text is not None else None
        for i, layer in enumerate(self.layers):
            states = layer(states, text.keys_values[i] if text is not None else None, is_word)
        return self.head(self.norm(states))

    def _check(self, tokens: Tokens, text: TextContext | None) -> None:
        positions = self.config.height * self.config.width
        if tokens.shape[1] != positions:
            raise ValueError(
                f"{tokens.shape[1]} tokens came; this transformer was made for a grid of {self.config.height} x "
                f"{self.config.width} = {positions}"
            )
        if text is not None and len(text) > len(tokens):
            raise ValueError(f"{len(text)} texts came for {len(tokens)} grids of tokens; give at most one for each")


def drop_captions(num: int, probability: float, generator: torch.Generator) -> int:
    """How many of `num` captions are kept when each is dropped with `probability`.
    Samples of a batch are in random order, so that the last ones can be those without text. Muse, section 2.7."""
    return int((torch.rand(num, generator=generator, device=generator.device) >= probability).sum())
