"""Runs small enough for a test, of every stage, that a test can stop at any step."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from muse.data.batches import TokenBatch
from muse.models.discriminator import DiscriminatorConfig
from muse.models.superres import SuperResConfig
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.training.base import BaseTraining, train_base
from muse.training.decoder import DecoderTraining, train_decoder
from muse.training.engine import EngineOptions
from muse.training.superres import SuperResTraining, train_superres
from muse.training.vqgan import VQGANTraining, train_vqgan

VQGAN_CONFIG = VQGANConfig(
    channels=(8, 8), blocks=1, decoder_blocks=1, num_codes=16, code_dim=4, attention=False, norm_groups=4
)
BASE_CONFIG = TransformerConfig(num_codes=8, height=3, width=3, dim=16, depth=2, heads=2, mlp_dim=32, text_dim=8)
CAPTIONS = ("a red apple", "a blue fox", "three octopuses", "a pizza on the left")
FINGERPRINT = "0123456789ab"


def options(folder: Path, steps: int = 6, **changes: Any) -> EngineOptions:
    """Float32 on any machine, so that equal means equal bits, and batches made in this process. Saved once on its way,
    as a checkpoint takes longer than a step."""
    settings = {"learning_rate": 1e-2, "precision": "32-true", "workers": 0, "save_every": 4, "log_every": 1}
    return EngineOptions(folder=folder, steps=steps, **{**settings, **changes})


# -- the VQGAN ----------------------------------------------------------------------------------------------------


def pictures_at(step: int) -> torch.Tensor:
    """Two-coloured pictures, others at each step."""
    colours = torch.rand(8, 3, 8, 1, generator=torch.Generator().manual_seed(step))
    return torch.cat([colours, 1 - colours], dim=-1).repeat_interleave(4, dim=-1)


def vqgan_training(engine: EngineOptions, **changes: Any) -> VQGANTraining:
    """All of its phases begin within the first four steps."""
    starts = {"quantize_from": 1, "discriminator_from": 2, "adversarial_from": 3}
    discriminator = DiscriminatorConfig(channels=4, layers=1, norm_groups=2)
    return VQGANTraining(engine=engine, model=VQGAN_CONFIG, discriminator=discriminator, **{**starts, **changes})


def run_vqgan(engine: EngineOptions, batch_at: Callable[[int], torch.Tensor] = pictures_at, **_: Any) -> Path:
    return train_vqgan(vqgan_training(engine), batch_at, pictures_at(99)[:2], perceptual=None)


# -- the base transformer -----------------------------------------------------------------------------------------


class WordIds:
    """A tokenizer that hashes whole words, and counts the prompts that it sees."""

    model_max_length = 77

    def __init__(self) -> None:
        self.num_prompts = 0

    def __call__(self, prompts: Sequence[str], **_: Any) -> dict[str, torch.Tensor]:
        self.num_prompts += len(prompts)
        words = [[1 + sum(map(ord, word)) % 62 for word in re.findall(r"\w+", prompt)] for prompt in prompts]
        longest = max(map(len, words))
        ids = torch.tensor([each + [0] * (longest - len(each)) for each in words])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


class WordVectors(nn.Module):
    """A language model that knows one vector for each word."""

    def __init__(self, dim: int):
        super().__init__()
        self.config = SimpleNamespace(hidden_size=dim)
        self.table = nn.Embedding.from_pretrained(torch.randn(64, dim, generator=torch.Generator().manual_seed(0)))

    @property
    def device(self) -> torch.device:
        return self.table.weight.device

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def text_encoder(dim: int = BASE_CONFIG.text_dim) -> TextEncoder:
    return TextEncoder(WordVectors(dim), WordIds())


def grids(config: TransformerConfig = BASE_CONFIG, seed: int = 7) -> torch.Tensor:
    """A random grid of tokens for each caption."""
    shape = (len(CAPTIONS), config.height * config.width)
    return torch.randint(config.num_codes, shape, generator=torch.Generator().manual_seed(seed))


def tokens_at(step: int) -> TokenBatch:
    """All captions with their grids, in another order at each step."""
    order = torch.randperm(len(CAPTIONS), generator=torch.Generator().manual_seed(step))
    return TokenBatch(grids()[order], [CAPTIONS[i] for i in order.tolist()])


def run_base(
    engine: EngineOptions, batch_at: Callable[[int], TokenBatch] = tokens_at, dropout: float = 0.1, **changes: Any
) -> Path:
    training = base_training(engine, dropout, **changes)
    return train_base(training, text_encoder(), FINGERPRINT, batch_at, [tokens_at(99)])


def base_training(
    engine: EngineOptions, dropout: float = 0.1, model: TransformerConfig | None = None, **changes: Any
) -> BaseTraining:
    """With dropout, so that a resumed run must draw as the unbroken one did."""
    return BaseTraining(engine=engine, model=replace(model or BASE_CONFIG, dropout=dropout), **changes)


# -- the super-resolution transformer ------------------------------------------------------------------------------

SUPERRES_CONFIG = SuperResConfig(
    num_codes=10,
    low_num_codes=BASE_CONFIG.num_codes,
    height=6,
    width=6,
    low_height=BASE_CONFIG.height,
    low_width=BASE_CONFIG.width,
    dim=16,
    depth=2,
    low_depth=1,
    heads=2,
    mlp_dim=32,
    text_dim=BASE_CONFIG.text_dim,
    block=3,
)


def large_grids(config: SuperResConfig = SUPERRES_CONFIG) -> torch.Tensor:
    """A random high-resolution grid of tokens for each caption."""
    shape = (len(CAPTIONS), config.height * config.width)
    return torch.randint(config.num_codes, shape, generator=torch.Generator().manual_seed(8))


def pairs_at(step: int) -> TokenBatch:
    """All captions with both of their grids, in another order at each step."""
    order = torch.randperm(len(CAPTIONS), generator=torch.Generator().manual_seed(step))
    return TokenBatch(grids()[order], [CAPTIONS[i] for i in order.tolist()], large_grids()[order])


def superres_training(engine: EngineOptions, dropout: float = 0.1, **changes: Any) -> SuperResTraining:
    """With dropout, so that a resumed run must draw as the unbroken one did."""
    return SuperResTraining(engine=engine, model=replace(SUPERRES_CONFIG, dropout=dropout), **changes)


def run_superres(engine: EngineOptions, batch_at: Callable[[int], TokenBatch] = pairs_at, dropout: float = 0.1) -> Path:
    training = superres_training(engine, dropout)
    return train_superres(training, text_encoder(), FINGERPRINT, FINGERPRINT[::-1], batch_at, [pairs_at(99)])


# -- a larger decoder ---------------------------------------------------------------------------------------------


def trained_vqgan() -> VQGAN:
    """A VQGAN that stands for a trained one: its codes are spread as its latents are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        vqgan = VQGAN(VQGAN_CONFIG)
        torch.nn.init.normal_(vqgan.quantizer.codebook, std=0.3)
    return vqgan.eval()


def decoder_training(engine: EngineOptions, **changes: Any) -> DecoderTraining:
    """The discriminator begins within the first four steps."""
    starts = {"discriminator_from": 1, "adversarial_from": 2}
    discriminator = DiscriminatorConfig(channels=4, layers=1, norm_groups=2)
    size = {"decoder_blocks": 2, "decoder_channels": (8, 12)}
    return DecoderTraining(engine=engine, discriminator=discriminator, **{**starts, **size, **changes})


def run_decoder(engine: EngineOptions, batch_at: Callable[[int], torch.Tensor] = pictures_at, **_: Any) -> Path:
    return train_decoder(decoder_training(engine), trained_vqgan(), batch_at, pictures_at(99)[:2], perceptual=None)


RUNS: dict[str, Callable[..., Path]] = {
    "vqgan": run_vqgan,
    "base": run_base,
    "superres": run_superres,
    "decoder": run_decoder,
}
BATCHES: dict[str, Callable[[int], Any]] = {
    "vqgan": pictures_at,
    "base": tokens_at,
    "superres": pairs_at,
    "decoder": pictures_at,
}
NETWORKS = {"vqgan": "vqgan", "base": "base", "superres": "superres", "decoder": "vqgan"}
"""What each stage calls the network that it trains, in its checkpoint and in the folder that it leaves."""


def signalling(batch_at: Callable[[int], Any], at: int, number: int) -> Callable[[int], Any]:
    """The same batches, but this process gets a signal while it makes that of one step."""

    def with_signal(step: int) -> Any:
        if step == at:
            os.kill(os.getpid(), number)
        return batch_at(step)

    return with_signal
