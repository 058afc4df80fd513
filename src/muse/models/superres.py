"""The super-resolution transformer: logits for a large grid of partly hidden tokens, given a small one and a text.
Muse, section 2.4; sizes in Tables 1 and 6."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from muse.models.layers import (
    Context,
    EncoderLayer,
    Merge,
    MultiAxisAttention,
    Positions2D,
    SelfAttention,
    Stack,
    States,
    Texts,
    TransformerLayer,
    Words,
    check_grid,
    check_transformer,
    code_head,
    logits_of,
    reset_weights,
)
from muse.models.reuse import EVERYWHERE, Focus, through
from muse.models.vqgan import VQGAN
from muse.requests import keep_whole
from muse.shapes import Hidden, LowTokens, Tokens

Attention = Literal["full", "multi-axis"]
Latents = Float[Tensor, "batch high latent"]
"""What the high-resolution VQGAN's encoder makes of pictures, before they are rounded to codes."""


@dataclass(frozen=True)
class SuperResConfig:
    """The shape of a super-resolution transformer; the defaults are those of Muse's Table 6."""

    num_codes: int = 8192
    """Codes of the high-resolution VQGAN; the mask id is one past the last."""
    low_num_codes: int = 8192
    """Codes of the low-resolution VQGAN."""
    height: int = 64
    """Rows of the high-resolution token grid."""
    width: int = 64
    """Columns of the high-resolution token grid."""
    low_height: int = 16
    """Rows of the low-resolution token grid."""
    low_width: int = 16
    """Columns of the low-resolution token grid."""
    dim: int = 1024
    """Features of a position, in both grids."""
    depth: int = 32
    """Layers over the high-resolution tokens, each self-attention, cross-attention and MLP."""
    low_depth: int = 16
    """Layers over the low-resolution tokens, each self-attention and MLP."""
    heads: int = 16
    """Attention heads; they share `dim` evenly."""
    mlp_dim: int = 4096
    """Features inside each MLP."""
    text_dim: int = 4096
    """Features of the text encoder's states."""
    attention: Attention = "multi-axis"
    """Whether high-resolution tokens attend to all of them, or half of the heads to a block and half to a spread."""
    block: int = 8
    """Side of such a block, and of such a spread, in tokens."""
    aligned: bool = False
    """Whether the states of the high-resolution tokens begin with that of the low-resolution one that covers them. Muse
    has them attend only; a small model learns slowly by attention where to look (docs/log.md)."""
    upsampled_dim: int = 0
    """Features of the high-resolution VQGAN's latents, if the states of the high-resolution tokens begin with those of
    the low-resolution picture, upsampled; 0 if they do not. Muse has them attend to its tokens only, and so learn to
    paint it; the second of cascaded diffusion models (arXiv:2106.15282, section 2) is given that picture. It is
    painted by the low-resolution VQGAN's decoder, which should stay what it was in training."""
    dropout: float = 0.0
    """Share of each layer's output that training drops."""
    vqgan_fingerprint: str | None = None
    """The high-resolution VQGAN whose codes these are; a model with another one is refused."""
    vqgan_low_fingerprint: str | None = None
    """The same of the low-resolution VQGAN."""

    def __post_init__(self) -> None:
        check_transformer(self)
        for name in ("low_num_codes", "low_height", "low_width"):
            keep_whole(self, name)
        for name in ("low_depth", "upsampled_dim"):
            keep_whole(self, name, least=0)
        keep_whole(self, "block", least=None)
        if self.attention == "multi-axis":
            self._check_multi_axis()
        if self.aligned and (self.height % self.low_height or self.width % self.low_width):
            raise ValueError(
                f"a grid of {self.height} x {self.width} cannot be aligned with one of {self.low_height} x "
                f"{self.low_width}; give multiples, or leave out aligned"
            )

    def _check_multi_axis(self) -> None:
        if self.heads % 2:
            raise ValueError(f"{self.heads} heads cannot be halved for multi-axis attention; give an even number")
        if self.block < 1 or self.height % self.block or self.width % self.block:
            raise ValueError(
                f"a grid of {self.height} x {self.width} cannot be cut into blocks of {self.block} x {self.block}; "
                "give a block that divides both sides"
            )
        longest = max(self.height, self.width)
        if self.block**2 < longest:
            raise ValueError(
                f"blocks of {self.block} x {self.block} leave parts of a grid of {self.height} x {self.width} that "
                f"never see each other; give at least {math.ceil(math.sqrt(longest))}"
            )

    @property
    def mask_id(self) -> int:
        """The token that stands for a hidden one; it lies outside the codebook."""
        return self.num_codes


PRESETS = {
    "superres-268m": SuperResConfig(depth=13, low_depth=4),
    "superres-738m": SuperResConfig(),
}
"""The sizes of the paper. Table 1 names 268M, as many as 16 layers of width 1024 with cross-attention hold; so do 13 of
them and 4 without it, which is our division. Table 6 names 32 layers and 16 low-resolution ones of the same width."""


class SuperResTransformer(nn.Module):
    """Predicts every high-resolution token at once from those that are visible, the low-resolution ones and a text."""

    def __init__(self, config: SuperResConfig):
        super().__init__()
        self.config = config
        dim = config.dim
        self.project_text = nn.Linear(config.text_dim, dim)
        self.norm_text = nn.LayerNorm(dim, bias=False)
        self.embed_low = nn.Embedding(config.low_num_codes, dim)
        self.low_positions = Positions2D(config.low_height, config.low_width, dim)
        self.low_layers = Stack(
            EncoderLayer(SelfAttention(dim, config.heads), config.mlp_dim, config.dropout)
            for _ in range(config.low_depth)
        )
        self.norm_low = nn.LayerNorm(dim, bias=False)
        self.project_low = nn.Linear(dim, dim, bias=False) if config.aligned else None
        latent_dim = config.upsampled_dim
        self.project_upsampled = nn.Linear(latent_dim, dim, bias=False) if latent_dim else None
        self.embed = nn.Embedding(config.num_codes + 1, dim)
        self.positions = Positions2D(config.height, config.width, dim)
        self.layers = Stack(
            TransformerLayer(attention_of(config), config.mlp_dim, config.dropout) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(dim, bias=False)
        self.head = code_head(dim, config.num_codes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights of standard deviation 0.02, those that end a shortcut scaled down by the depth."""
        reset_weights(self.modules())
        for project in (self.project_low, self.project_upsampled):
            if project is not None:
                nn.init.zeros_(project.weight)  # what it adds is learnt
        self.low_layers.reset_parameters()
        self.layers.reset_parameters()

    def read(
        self,
        low_tokens: LowTokens,
        text: Texts | None = None,
        is_word: Words | None = None,
        upsampled: Latents | None = None,
    ) -> Context:
        """What the layers need of low-resolution tokens and texts; it does not change while a picture is drawn.
        `upsampled` are the latents that `Upsampling` makes of the same tokens, if the config has any.

        The texts belong to the first samples of the batch; samples beyond them, or all if there is no text, attend to
        their low-resolution tokens only: one batch holds both branches of guidance, and dropped captions in training.
        Raises ValueError if the low-resolution grid is not the config's, more texts than samples came, or there are
        latents and the config has none, or the other way round."""
        check_upsampled(upsampled, self.config)
        memory = low = self.encode_low(low_tokens)
        is_visible = torch.ones(memory.shape[:2], dtype=torch.bool, device=memory.device)
        if text is not None and is_word is not None:
            missing = len(low_tokens) - len(text)
            if missing < 0:
                raise ValueError(
                    f"{len(text)} texts came for {len(low_tokens)} low-resolution grids; give at most one for each"
                )
            words = self.norm_text(self.project_text(text.to(self.project_text.weight.dtype)))
            memory = torch.cat([memory, F.pad(words, (0, 0, 0, 0, 0, missing))], dim=1)
            is_visible = torch.cat([is_visible, F.pad(is_word, (0, 0, 0, missing))], dim=1)
        keys_values = tuple(layer.attend_text.read(memory) for layer in self.layers)  # pyright: ignore
        return Context(keys_values, is_visible, self.start(low, upsampled))

    def start(self, low: Float[Tensor, "batch low dim"], upsampled: Latents | None) -> States | None:
        """What the states of the high-resolution tokens begin with, beside their embeddings, if anything."""
        start = None if self.project_low is None else self.spread(self.project_low(low))
        if self.project_upsampled is None or upsampled is None:
            return start
        seen = self.project_upsampled(upsampled.to(self.project_upsampled.weight.dtype))
        return seen if start is None else start + seen

    def spread(self, low: Float[Tensor, "batch low dim"]) -> States:
        """To each high-resolution position the state of the low-resolution one that covers it."""
        config = self.config
        down, across = config.height // config.low_height, config.width // config.low_width
        return repeat(low, "b (h w) d -> b (h down w across) d", h=config.low_height, down=down, across=across)

    def encode_low(self, low_tokens: LowTokens) -> States:
        """The states of low-resolution tokens.
        Raises ValueError if the grid is not the config's."""
        check_grid(low_tokens, self.config.low_height, self.config.low_width)
        states = self.embed_low(low_tokens) + self.low_positions()
        for layer in self.low_layers:
            states = layer(states)
        return self.norm_low(states)

    def forward(
        self,
        tokens: Tokens,
        context: Context,
        at: Hidden | None = None,
        focus: Focus = EVERYWHERE,
        merge: Merge | None = None,
    ) -> Float[Tensor, "*position code"]:
        """Logits of every code at every high-resolution position, [batch, position, code], or of the places that the
        focus wants; or `at` some only, one after the other. `merge` makes one sample of several, before the last layer.
        Raises ValueError if the grid is not the config's, or there is not one context for each sample."""
        check_grid(tokens, self.config.height, self.config.width)
        if len(context) != len(tokens):
            raise ValueError(f"{len(context)} contexts came for {len(tokens)} grids of tokens; give one for each")
        states = self.embed(tokens) + self.positions()
        if context.start is not None:
            states = states + context.start
        states = through(self.layers, states, context, focus, at)
        return logits_of(self.head, self.norm(states), merge)


@dataclass(frozen=True)
class Upsampling:
    """Low-resolution tokens to the latents of their picture, upsampled bicubically, in the eyes of the high-resolution
    VQGAN."""

    low: VQGAN
    high: VQGAN
    config: SuperResConfig

    @classmethod
    def of(cls, config: SuperResConfig, low: VQGAN, high: VQGAN) -> "Upsampling | None":
        """What a transformer of this config takes: nothing, if it does not begin with the upsampled picture."""
        return cls(low, high, config) if config.upsampled_dim else None

    def to(self, device: torch.device) -> "Upsampling":
        """Move both VQGANs to a device."""
        self.low.to(device)
        self.high.to(device)
        return self

    @torch.no_grad()
    def __call__(self, low_tokens: LowTokens) -> Latents:
        config, stride = self.config, self.high.config.stride
        pictures = self.low.decode(low_tokens, config.low_height)
        size = (config.height * stride, config.width * stride)
        large = F.interpolate(pictures, size, mode="bicubic", align_corners=False).clamp(0, 1)
        return rearrange(self.high.latents(large), "batch latent h w -> batch (h w) latent")


def check_upsampled(upsampled: Latents | None, config: SuperResConfig) -> None:
    """Raises ValueError if latents are not what the config has."""
    found = 0 if upsampled is None else upsampled.shape[-1]
    if found != config.upsampled_dim:
        raise ValueError(
            f"latents of {found} numbers came for super-resolution that begins with {config.upsampled_dim}; give what "
            "Upsampling makes of the same low-resolution tokens, or nothing where that is 0"
        )


def attention_of(config: SuperResConfig) -> SelfAttention:
    """The self-attention of the high-resolution tokens."""
    if config.attention == "full":
        return SelfAttention(config.dim, config.heads)
    return MultiAxisAttention(config.dim, config.heads, config.height, config.width, config.block)
