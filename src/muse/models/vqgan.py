"""The VQGAN tokenizer: pictures to a grid of codes and back.
Muse, section 2.2; taming transformers (arXiv:2012.09841)."""

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from muse.models.group_norm import GroupNorm
from muse.models.quantizer import VectorQuantizer, as_grid, as_sequence
from muse.precision import exact_convolutions
from muse.requests import check_choices, keep_whole, whole_number
from muse.shapes import Pictures, Tokens

Padding = Literal["zeros", "replicate"]


@dataclass(frozen=True)
class VQGANConfig:
    """The shape of a VQGAN; the defaults are Muse's f=16 tokenizer.

    Muse counts 19 ResNet blocks, two at each resolution, and does not say which. Here are two at each of five in either
    half, and two more at the middle of either, where published VQGANs have them: 24."""

    channels: tuple[int, ...] = (128, 128, 256, 256, 512)
    """Feature channels at each resolution, finest first; each step after the first halves the picture."""
    blocks: int = 2
    """ResNet blocks at each resolution of the encoder."""
    decoder_channels: tuple[int, ...] | None = None
    """Feature channels of the decoder, finest first; the encoder's if not given."""
    decoder_blocks: int = 2
    """ResNet blocks at each resolution of the decoder; published VQGANs have one more than their encoder."""
    num_codes: int = 8192
    """Vectors in the codebook."""
    code_dim: int = 256
    """Numbers in a codebook vector."""
    attention: bool = False
    """Self-attention between the two blocks at the coarsest resolution, as published VQGANs have and Muse has not."""
    level_attention: bool = False
    """Self-attention also after each other block at the coarsest resolution, as those of taming transformers have."""
    norm_groups: int = 32
    """Groups of every group normalisation; each number of channels is a multiple of it."""
    encoder_kernels: tuple[int, ...] | None = None
    """Side of the encoder's convolutions at each resolution, finest first; 3 everywhere if not given. With 1 at the
    coarse ones and `encoder_norm="place"` a token depends on its own surroundings alone, and equal places have equal
    tokens, which are easier to predict (docs/log.md)."""
    encoder_norm: Literal["group", "place"] = "group"
    """Whether the encoder normalises groups of channels over the whole picture, or all channels at each place."""
    decoder_padding: Padding = "zeros"
    """What the decoder's convolutions see beyond the picture: nothing, as in the published VQGAN, or its edge again,
    which leaves plain corners plain (docs/log.md)."""
    patch: int = 1
    """Side of the squares of pixels that the first convolution takes in, and the last gives out, as channels of one
    place. 1 is the published VQGAN; 2 or 4 leave out the finest resolutions, which cost most and hold few weights."""

    def __post_init__(self) -> None:
        for name in ("blocks", "decoder_blocks", "code_dim", "norm_groups", "patch"):
            keep_whole(self, name)
        keep_whole(self, "num_codes", least=2)  # one says nothing
        check_choices(self)
        decoder = self.decoder_channels or self.channels
        kernels = self.encoder_kernels
        if kernels is not None and (len(kernels) != len(self.channels) or any(side not in (1, 3) for side in kernels)):
            raise ValueError(
                f"encoder_kernels is {kernels} for {len(self.channels)} resolutions; give 1 or 3 for each of them"
            )
        if len(decoder) != len(self.channels):
            raise ValueError(
                f"the decoder has {len(decoder)} resolutions and the encoder {len(self.channels)}; give equally many"
            )
        for width in {*self.channels, *decoder}:
            if whole_number("channels", width) % self.norm_groups:
                raise ValueError(
                    f"{width} channels cannot be split into {self.norm_groups} norm groups; "
                    f"try {max(width // self.norm_groups, 1) * self.norm_groups} channels or fewer groups"
                )

    @property
    def stride(self) -> int:
        """Pixels along the side of one token (f in the paper)."""
        return self.patch * 2 ** (len(self.channels) - 1)


class PlaceNorm(nn.Module):
    """Layer normalisation of the channels at each place, which no other place of the picture has a part in."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, features: Float[Tensor, "batch dim h w"]) -> Float[Tensor, "batch dim h w"]:
        places = features.permute(0, 2, 3, 1)
        return F.layer_norm(places, places.shape[-1:], self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class BlockStyle:
    """How the blocks of one side of a VQGAN are built."""

    norm_groups: int
    """Groups of the group normalisation; 0 normalises each place by itself."""
    kernel: int = 3
    """Side of the convolutions."""
    padding: Padding = "zeros"
    """What they see beyond the edge."""

    def norm(self, channels: int) -> nn.Module:
        return GroupNorm(self.norm_groups, channels, eps=1e-6) if self.norm_groups else PlaceNorm(channels)

    def conv(self, channels_in: int, channels_out: int) -> nn.Conv2d:
        return nn.Conv2d(channels_in, channels_out, self.kernel, padding=self.kernel // 2, padding_mode=self.padding)


class ResNetBlock(nn.Module):
    """Two convolutions, each behind a normalisation and SiLU, around a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, style: BlockStyle):
        super().__init__()
        self.norm1, self.conv1 = style.norm(channels_in), style.conv(channels_in, channels_out)
        self.norm2, self.conv2 = style.norm(channels_out), style.conv(channels_out, channels_out)
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, features: Float[Tensor, "batch dim_in h w"]) -> Float[Tensor, "batch dim_out h w"]:
        hidden = self.conv1(F.silu(self.norm1(features)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        return self.shortcut(features) + hidden


class SpatialAttention(nn.Module):
    """One head of self-attention over all places of a feature map."""

    def __init__(self, channels: int, norm_groups: int):
        super().__init__()
        self.norm = GroupNorm(norm_groups, channels, eps=1e-6)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, features: Float[Tensor, "batch dim h w"]) -> Float[Tensor, "batch dim h w"]:
        height = features.shape[2]
        rows = rearrange(self.norm(features), "b c h w -> b 1 (h w) c")
        mixed = F.scaled_dot_product_attention(self.query(rows), self.key(rows), self.value(rows))
        return features + rearrange(self.out(mixed), "b 1 (h w) c -> b c h w", h=height)


class Downsample(nn.Module):
    """Halve height and width by a strided convolution, padded at the right and the bottom."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, features: Float[Tensor, "batch dim h w"]) -> Float[Tensor, "batch dim h2 w2"]:
        return self.conv(F.pad(features, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double height and width by repeating pixels, then a convolution."""

    def __init__(self, channels: int, style: BlockStyle):
        super().__init__()
        self.conv = style.conv(channels, channels)

    def forward(self, features: Float[Tensor, "batch dim h w"]) -> Float[Tensor, "batch dim h2 w2"]:
        return self.conv(F.interpolate(features, scale_factor=2.0, mode="nearest"))


def level_blocks(
    channels_in: int, channels_out: int, blocks: int, has_attention: bool, config: VQGANConfig, style: BlockStyle
) -> list[nn.Module]:
    """The ResNet blocks of one resolution, each with attention behind it if asked for."""
    parts: list[nn.Module] = []
    for i in range(blocks):
        parts.append(ResNetBlock(channels_in if i == 0 else channels_out, channels_out, style))
        if has_attention:
            parts.append(SpatialAttention(channels_out, config.norm_groups))
    return parts


def coarsest_blocks(channels: int, config: VQGANConfig, style: BlockStyle) -> nn.Sequential:
    """Two ResNet blocks at the coarsest resolution, with attention between them if the config asks for it."""
    attention = [SpatialAttention(channels, config.norm_groups)] if config.attention else []
    first, last = (ResNetBlock(channels, channels, style) for _ in range(2))
    return nn.Sequential(first, *attention, last)


class Encoder(nn.Module):
    """Pictures in [-1, 1] to latents at 1/stride of their size."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        channels = config.channels
        kernels = config.encoder_kernels or (3,) * len(channels)
        groups = config.norm_groups if config.encoder_norm == "group" else 0
        styles = [BlockStyle(groups, kernel) for kernel in kernels]
        self.patch = config.patch
        self.conv_in = styles[0].conv(3 * config.patch**2, channels[0])
        self.levels = nn.ModuleList()
        for i, width in enumerate(channels):
            before, is_last = channels[max(i - 1, 0)], i == len(channels) - 1
            level = level_blocks(before, width, config.blocks, config.level_attention and is_last, config, styles[i])
            self.levels.append(nn.Sequential(*level, *([] if is_last else [Downsample(width)])))
        self.middle = coarsest_blocks(channels[-1], config, styles[-1])
        self.norm_out = styles[-1].norm(channels[-1])
        self.conv_out = styles[-1].conv(channels[-1], config.code_dim)
        self.to_code = nn.Conv2d(config.code_dim, config.code_dim, 1)

    def forward(self, pictures: Pictures) -> Float[Tensor, "batch dim h w"]:
        features = self.conv_in(F.pixel_unshuffle(pictures, self.patch))
        for level in self.levels:
            features = level(features)
        features = self.conv_out(F.silu(self.norm_out(self.middle(features))))
        return self.to_code(features)


class Decoder(nn.Module):
    """Codebook vectors to pictures in about [-1, 1], `stride` times their size."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        channels = (config.decoder_channels or config.channels)[::-1]
        style = BlockStyle(config.norm_groups, padding=config.decoder_padding)
        self.from_code = nn.Conv2d(config.code_dim, config.code_dim, 1)
        self.conv_in = style.conv(config.code_dim, channels[0])
        self.middle = coarsest_blocks(channels[0], config, style)
        self.levels = nn.ModuleList()
        for i, width in enumerate(channels):
            before, is_last = channels[max(i - 1, 0)], i == len(channels) - 1
            level = level_blocks(before, width, config.decoder_blocks, config.level_attention and i == 0, config, style)
            self.levels.append(nn.Sequential(*level, *([] if is_last else [Upsample(width, style)])))
        self.norm_out = style.norm(channels[-1])
        self.patch = config.patch
        self.conv_out = style.conv(channels[-1], 3 * config.patch**2)

    def forward(self, codes: Float[Tensor, "batch dim h w"]) -> Pictures:
        features = self.middle(self.conv_in(self.from_code(codes.to(self.from_code.weight.dtype))))
        for level in self.levels:
            features = level(features)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(features))), self.patch)


class VQGAN(nn.Module):
    """A fully convolutional encoder, a codebook and a decoder.
    It trains on crops and runs on any picture whose sides are multiples of its stride."""

    def __init__(self, config: VQGANConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantizer = VectorQuantizer(config.num_codes, config.code_dim)
        self.decoder = Decoder(config)

    def latents(self, pictures: Pictures) -> Float[Tensor, "batch dim h w"]:
        """Continuous latents of pictures in [0, 1]; without a gradient in float32 on a GPU too, as tokens are made of
        them.
        Raises ValueError if a side is not a multiple of the stride."""
        for side in pictures.shape[-2:]:
            if side % self.config.stride or side == 0:
                fitting = max(side // self.config.stride, 1) * self.config.stride
                raise ValueError(f"size {side} is not a multiple of {self.config.stride}; try {fitting}")
        with nullcontext() if torch.is_grad_enabled() else exact_convolutions():
            return self.encoder(pictures * 2 - 1)

    @torch.no_grad()
    def encode(self, pictures: Pictures) -> Tokens:
        """Tokens of pictures in [0, 1], one for each stride x stride pixels, row by row.
        Raises ValueError if a side is not a multiple of the stride."""
        return as_sequence(self.quantizer.nearest(self.latents(pictures)))

    def decode(self, tokens: Tokens, height: int) -> Pictures:
        """Pictures in [0, 1] of grids of tokens with `height` rows."""
        return self.decode_grid(as_grid(tokens, height))

    def decode_grid(self, grid: Int[Tensor, "batch h w"]) -> Pictures:
        """Pictures in [0, 1] of grids of tokens."""
        return to_unit_range(self.decoder(self.quantizer.look_up(grid)))

    def reconstruct(self, pictures: Pictures) -> Pictures:
        """Pictures in [0, 1] as their tokens give them back.
        Raises ValueError if a side is not a multiple of the stride."""
        return self.decode(self.encode(pictures), pictures.shape[-2] // self.config.stride)

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change when any picture's tokens could: of the encoder and the codebook, and
        of how the encoder normalises, which no weight tells, where that is not as published.
        The decoder may be finetuned without changing it."""
        config = self.config
        has_groups = config.encoder_norm == "group" or config.attention or config.level_attention
        norm = (config.encoder_norm, config.norm_groups if has_groups else 0)
        digest = hashlib.sha256(b"" if norm == ("group", VQGANConfig.norm_groups) else repr(norm).encode())
        for part in (self.encoder, self.quantizer):
            for name, tensor in sorted(part.state_dict().items()):
                digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]


def to_unit_range(pictures: Pictures) -> Pictures:
    """From the networks' [-1, 1] to [0, 1], clamped, in float32."""
    return (pictures.float() / 2 + 0.5).clamp(0, 1)
