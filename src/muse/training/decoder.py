"""Stage 4: a larger decoder for a trained VQGAN, whose tokens stay as they are.
Muse, section 2.5: 4 ResNet blocks a resolution instead of 2, base width 256 instead of 128."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from muse.checkpoint import load_module
from muse.models.quantizer import as_grid
from muse.models.vqgan import VQGAN, Decoder, Padding, ResNetBlock, SpatialAttention, Upsample, VQGANConfig
from muse.requests import keep_whole
from muse.shapes import Pictures, Tokens
from muse.training.engine import Metrics
from muse.training.perceptual import PerceptualLoss
from muse.training.pictures import PictureStage, PictureTraining
from muse.training.redraw import chosen

Drawn = Callable[[Pictures, int], Tokens]
"""Pictures in [0, 1] and a step to tokens that a transformer draws in place of their own (`redraw.Redraw`)."""
DRAWN_SHARE = 0.75


@dataclass(frozen=True)
class DecoderTraining(PictureTraining):
    """What the training of a larger decoder can be told; the weights of the losses are Muse's."""

    decoder_channels: tuple[int, ...] | None = None
    """Feature channels of the new decoder, finest first; the old one's if not given. The paper doubles them."""
    decoder_blocks: int = 4
    """ResNet blocks at each resolution of the new decoder."""
    decoder_padding: Padding | None = None
    """What the new decoder's convolutions see beyond the picture; as the old one's if not given."""
    drawn_share: float | None = None
    """Share of the pictures, others in each step, that are given as super-resolution draws them, if a model is given
    that does: the decoder learns to paint over its mistakes. Three quarters if not given. Muse's decoder learns from
    pictures' own tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_whole(self, "decoder_blocks", least=None)  # the old decoder says how few are too few
        if self.drawn_share is not None and not 0 <= self.drawn_share <= 1:
            raise ValueError(f"drawn_share is {self.drawn_share}; give a share from 0 to 1")


class DecoderStage(PictureStage):
    """The networks, optimizers and averages of one run; of the VQGAN, only the decoder is trained."""

    training: DecoderTraining

    def __init__(
        self, training: DecoderTraining, vqgan: VQGAN, perceptual: PerceptualLoss | None, drawn: Drawn | None = None
    ):
        self.drawn = drawn
        self.drawn_share = DRAWN_SHARE if training.drawn_share is None else training.drawn_share
        self.drawn_watched: Tokens | None = None
        torch.manual_seed(training.engine.seed)
        larger = with_larger_decoder(
            vqgan, training.decoder_channels, training.decoder_blocks, training.decoder_padding
        )
        larger.encoder.requires_grad_(False)
        larger.quantizer.requires_grad_(False)
        super().__init__(training, larger, perceptual)
        self.engine.noted["drawn-by"] = None if drawn is None else getattr(drawn, "fingerprint", "another function")
        if drawn is not None:
            self.engine.noted["drawn-share"] = self.drawn_share

    def run(self, batch_at: Callable[[int], Pictures], watched: Pictures, dtype: torch.dtype | None = None) -> Path:
        """As that of any picture stage.
        Raises ValueError if the folder is of a run that has made the decoder of another VQGAN larger."""
        begun = self.training.engine.folder / "vqgan"
        if self.engine.has_begun and begun.is_dir():
            theirs, ours = load_module(VQGAN, VQGANConfig, begun).fingerprint(), self.vqgan.fingerprint()
            if theirs != ours:
                raise ValueError(
                    f"the run in {begun.parent} was begun with the VQGAN {theirs}, and this one is {ours}; "
                    "give another folder"
                )
        return super().run(batch_at, watched, dtype)

    def averaged(self) -> VQGAN:
        """The averaged network, with the very encoder and codebook that came: an average of -0 with -0 is 0, which is
        another fingerprint."""
        vqgan = super().averaged()
        vqgan.encoder.load_state_dict(self.vqgan.encoder.state_dict())
        vqgan.quantizer.load_state_dict(self.vqgan.quantizer.state_dict())
        return vqgan

    def painted(self, vqgan: VQGAN, watched: Pictures) -> Pictures:
        """What it makes of what is drawn of them, if anything draws; that is done once, as it is the same each time."""
        if self.drawn is None:
            return super().painted(vqgan, watched)
        if self.drawn_watched is None:
            self.drawn_watched = self.drawn(watched, 0)
        return vqgan.decode(self.drawn_watched, watched.shape[-2] // vqgan.config.stride)

    def reconstruct(self, pictures: Pictures, step: int) -> tuple[Pictures, Metrics, Metrics]:
        with torch.no_grad():  # and in float32: these are the tokens that the transformers know
            grid = self.vqgan.quantizer.nearest(self.vqgan.latents(pictures))
            if self.drawn is not None and (rows := chosen(pictures, self.drawn_share, step)).any():
                grid[rows] = as_grid(self.drawn(pictures[rows], step), grid.shape[1])
            codes = self.vqgan.quantizer.look_up(grid)
        decoded, losses = self.compare(codes, pictures, self.perceptual)
        return decoded, losses, {}


def with_larger_decoder(
    vqgan: VQGAN, channels: tuple[int, ...] | None, blocks: int, padding: Padding | None = None
) -> VQGAN:
    """A VQGAN with the same encoder and codebook and a decoder of other channels, more blocks or another padding.

    The decoder takes over the old weights where shapes agree, and added blocks start as shortcuts: one that only has
    more blocks paints as the old one did.
    Raises ValueError if the decoder would have fewer blocks, or other resolutions."""
    larger = VQGAN(larger_config(vqgan.config, channels, blocks, padding))
    larger.encoder.load_state_dict(vqgan.encoder.state_dict(), strict=True)
    larger.quantizer.load_state_dict(vqgan.quantizer.state_dict(), strict=True)
    take_over(larger.decoder, vqgan.decoder)
    return larger


def larger_config(
    config: VQGANConfig, channels: tuple[int, ...] | None, blocks: int, padding: Padding | None = None
) -> VQGANConfig:
    """The shape of a VQGAN with a decoder of other channels, more blocks or another padding.
    Raises ValueError if the decoder would have fewer blocks, or other resolutions."""
    if blocks < config.decoder_blocks:
        raise ValueError(
            f"decoder_blocks is {blocks} and the decoder has {config.decoder_blocks} already; give as many or more"
        )
    return replace(
        config,
        decoder_channels=channels or config.decoder_channels,
        decoder_blocks=blocks,
        decoder_padding=padding or config.decoder_padding,
    )


@torch.no_grad()
def take_over(decoder: Decoder, old: Decoder) -> None:
    """Fill a decoder with the weights of one of as many blocks or fewer, where their shapes agree."""
    for name in ("from_code", "conv_in", "middle", "norm_out", "conv_out"):
        copy_fitting(getattr(decoder, name), getattr(old, name))
    for level, old_level in zip(decoder.levels, old.levels, strict=True):
        parts, old_parts = list(level.children()), list(old_level.children())
        first = sum(not isinstance(part, Upsample) for part in old_parts)
        added = slice(first, first + len(parts) - len(old_parts))
        for part in parts[added]:
            assert isinstance(part, ResNetBlock | SpatialAttention)
            make_shortcut(part)
        del parts[added]  # what is left is as it was: the blocks, and what doubles the resolution
        for part, old_part in zip(parts, old_parts, strict=True):
            copy_fitting(part, old_part)


def make_shortcut(block: ResNetBlock | SpatialAttention) -> None:
    """Let a block change nothing, until it is trained."""
    last = block.conv2 if isinstance(block, ResNetBlock) else block.out
    for parameter in last.parameters():
        nn.init.zeros_(parameter)


def copy_fitting(module: nn.Module, old: nn.Module) -> None:
    """Copy the weights whose names and shapes agree."""
    theirs = old.state_dict()
    for name, weight in module.state_dict().items():
        if name in theirs and theirs[name].shape == weight.shape:
            weight.copy_(theirs[name])


def train_decoder(
    training: DecoderTraining,
    vqgan: VQGAN,
    batch_at: Callable[[int], Pictures],
    watched: Pictures,
    perceptual: PerceptualLoss | None,
    drawn: Drawn | None = None,
) -> Path:
    """Train a larger decoder on batches of pictures in [0, 1], `batch_at` a step; returns the folder of the VQGAN with
    the averaged decoder. It has the fingerprint of the one that came, as no token changes. A share of the pictures is
    painted from tokens that are `drawn` of them, if anything draws.

    At every checkpoint the reconstructions of the `watched` pictures are drawn, and how far they are from them is
    reported."""
    return DecoderStage(training, vqgan, perceptual, drawn).run(batch_at, watched)
