"""The base transformer: logits over the codebook for a grid of partly hidden tokens, given a text.
Muse, sections 2.3 and 2.7; sizes in section 3 and the appendix."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from muse.models.layers import (
    Context,
    Merge,
    Positions2D,
    SelfAttention,
    Stack,
    TransformerLayer,
    check_grid,
    check_transformer,
    code_head,
    logits_of,
    reset_weights,
)
from muse.models.reuse import EVERYWHERE, Focus, through
from muse.shapes import Hidden, TextMask, TextStates, Tokens


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
        check_transformer(self)

    @property
    def mask_id(self) -> int:
        """The token that stands for a hidden one; it lies outside the codebook."""
        return self.num_codes


PRESETS = {
    "muse-632m": TransformerConfig(dim=1280, depth=24, heads=20, mlp_dim=5120),
    "muse-3b": TransformerConfig(),
}
"""The sizes of the paper; heads are our choice where the paper is silent: 64 features each, 128 in the largest."""


class MaskedTransformer(nn.Module):
    """Predicts every token of a grid at once from those that are visible and the text."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.project_text = nn.Linear(config.text_dim, config.dim)
        self.norm_text = nn.LayerNorm(config.dim, bias=False)
        self.embed = nn.Embedding(config.num_codes + 1, config.dim)
        self.positions = Positions2D(config.height, config.width, config.dim)
        self.layers = Stack(
            TransformerLayer(SelfAttention(config.dim, config.heads), config.mlp_dim, config.dropout)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, bias=False)
        self.head = code_head(config.dim, config.num_codes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights of standard deviation 0.02, those that end a shortcut scaled down by the depth."""
        reset_weights(self.modules())
        self.layers.reset_parameters()

    def read(self, text: TextStates, is_word: TextMask) -> Context:
        """What the layers need of a text; it does not change while a picture is drawn."""
        projected = self.norm_text(self.project_text(text.to(self.project_text.weight.dtype)))
        return Context(tuple(layer.attend_text.read(projected) for layer in self.layers), is_word)  # pyright: ignore

    def forward(
        self,
        tokens: Tokens,
        text: Context | None,
        at: Hidden | None = None,
        focus: Focus = EVERYWHERE,
        merge: Merge | None = None,
    ) -> Float[Tensor, "*position code"]:
        """Logits of every code at every position, [batch, position, code], or of the places that the focus wants; or
        `at` some only, one after the other. `merge` makes one sample of several, before the last layer.

        The texts belong to the first samples of the batch; samples beyond them, or all if there is no text, attend to
        image tokens only. So one batch holds both branches of guidance, and dropped captions in training.
        Raises ValueError if the grid is not the config's, or more texts than samples came."""
        check_grid(tokens, self.config.height, self.config.width)
        if text is not None and len(text) > len(tokens):
            raise ValueError(f"{len(text)} texts came for {len(tokens)} grids of tokens; give at most one for each")
        states = through(self.layers, self.embed(tokens) + self.positions(), text, focus, at)
        return logits_of(self.head, self.norm(states), merge)


def drop_captions(num: int, probability: float, generator: torch.Generator) -> int:
    """How many of `num` captions are kept when each is dropped with `probability`.
    Samples of a batch are in random order, so that the last ones can be those without text. Muse, section 2.7."""
    return int((torch.rand(num, generator=generator, device=generator.device) >= probability).sum())
