"""The paper's numbers, where the recipes of its models have them (Muse, arXiv:2301.00704)."""

from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch

from muse.models.discriminator import DiscriminatorConfig
from muse.training import export
from muse.training.base import BaseStage
from muse.training.decoder import DecoderStage
from muse.training.optimizers import AdaFactor
from muse.training.recipes import (
    base_paper_3b,
    base_paper_632m,
    decoder_paper_f8,
    superres_paper_738m,
    vqgan_paper_f8,
    vqgan_paper_f16,
)
from muse.training.superres import SuperResStage
from muse.training.vqgan import VQGANStage
from tests.training.tiny_runs import BASE_CONFIG, SUPERRES_CONFIG, VQGAN_CONFIG, text_encoder, trained_vqgan

VQGANS, BASES = (vqgan_paper_f16, vqgan_paper_f8), (base_paper_3b, base_paper_632m)
TRANSFORMERS = (*BASES, superres_paper_738m)
PAPER: list[tuple[str, tuple[Callable[[], Any], ...], dict[str, Any]]] = [
    ("2.2, f=16", (vqgan_paper_f16,), {"model.stride": 16, "model.channels": (128, 128, 256, 256, 512)}),
    ("2.2, f=8", (vqgan_paper_f8,), {"model.stride": 8, "model.channels": (128, 256, 256, 512)}),
    ("2.2, codebook", VQGANS, {"model.num_codes": 8192}),
    ("2.2, blocks", VQGANS, {"model.blocks": 2, "model.decoder_blocks": 2, "model.decoder_channels": None}),
    ("2.2, only convolutions", VQGANS, {"model.attention": False, "model.level_attention": False}),
    ("2.2, convolutions as published", VQGANS, {"model.encoder_norm": "group", "model.decoder_padding": "zeros"}),
    ("2.2, pictures", (vqgan_paper_f16,), {"size": 256}),
    ("appendix, VQGAN, losses", (*VQGANS, decoder_paper_f8), {"perceptual_weight": 0.05, "adversarial_weight": 0.1}),
    ("appendix, VQGAN, losses", (*VQGANS, decoder_paper_f8), {"gradient_weight": 0.0}),
    (
        "appendix, VQGAN, rate",
        VQGANS,
        {"engine.learning_rate": 1e-4, "engine.warmup": 10_000, "engine.final_rate": 0.0},
    ),
    ("appendix, VQGAN, steps", VQGANS, {"batch_size": 256, "engine.steps": 1_000_000}),
    ("2.3, grid", BASES, {"model.num_codes": 8192, "model.height": 16, "model.width": 16}),
    ("2.1, T5-XXL", TRANSFORMERS, {"model.text_dim": 4096}),
    ("3, 3B", (base_paper_3b,), {"model.depth": 48, "model.dim": 2048, "model.mlp_dim": 8192}),
    ("table 1, 632M", (base_paper_632m,), {"model.depth": 24, "model.dim": 1280}),
    ("3, optimizer", TRANSFORMERS, {"optimizer": "adafactor", "weight_decay": 0.045}),
    ("3, rate", TRANSFORMERS, {"engine.learning_rate": 1e-4, "engine.warmup": 5_000, "engine.final_rate": 0.0}),
    ("3, steps", BASES, {"engine.steps": 1_500_000}),
    ("3, batch", TRANSFORMERS, {"batch_size": 512}),
    ("2.3, cross-entropy", TRANSFORMERS, {"label_smoothing": 0.0}),
    ("appendix, averaging", TRANSFORMERS, {"engine.keep_every": 5_000}),
    ("2.7, dropped captions", TRANSFORMERS, {"caption_drop": 0.1, "caption_mix": 0.0}),
    ("2.4, grids", (superres_paper_738m,), {"model.height": 64, "model.width": 64, "model.num_codes": 8192}),
    (
        "2.4, grids",
        (superres_paper_738m,),
        {"model.low_height": 16, "model.low_width": 16, "model.low_num_codes": 8192},
    ),
    ("table 6", (superres_paper_738m,), {"model.depth": 32, "model.low_depth": 16}),
    ("table 6", (superres_paper_738m,), {"model.dim": 1024, "model.mlp_dim": 4096}),
    ("2.4, attention", (superres_paper_738m,), {"model.attention": "multi-axis"}),
    (
        "2.4, low tokens",
        (superres_paper_738m,),
        {"low_corruption": 0.0, "model.aligned": False, "model.upsampled_dim": 0},
    ),
    ("2.5, larger decoder", (decoder_paper_f8,), {"decoder_blocks": 4, "decoder_channels": (256, 512, 512, 1024)}),
    ("2.5, tokens of pictures", (decoder_paper_f8,), {"drawn_share": None, "decoder_padding": None}),
]
"""Where the paper says it, the recipes, and fields of these or of their training with their values. Where it is silent,
as on what the larger decoder is trained with and how many steps super-resolution takes, nothing is here."""
OF_RECIPES = ("size", "batch_size")
ROWS = [
    pytest.param(recipe, name, value, id=f"{where}: {recipe.__name__} {name}")
    for where, recipes, values in PAPER
    for recipe in recipes
    for name, value in values.items()
]


@pytest.mark.parametrize(("recipe", "name", "value"), ROWS)
def test_a_recipe_of_the_paper_has_the_papers_number(recipe, name, value):
    found = attrgetter(name if name in OF_RECIPES else f"training.{name}")(recipe())
    assert (type(found), found) == (type(value), value)


def tiny(recipe: Callable[[], Any], folder: Path, **model: Any) -> Any:
    """The training of a recipe, with networks that are small."""
    training = recipe().training
    engine = replace(training.engine, folder=folder, workers=0, precision="32-true")
    return replace(training, engine=engine, **model)


@pytest.mark.parametrize("recipe", TRANSFORMERS)
def test_the_papers_transformers_are_trained_by_its_adafactor(recipe, tmp_path):  # section 3 and the appendix
    is_base = recipe in BASES
    training = tiny(recipe, tmp_path, model=BASE_CONFIG if is_base else SUPERRES_CONFIG)
    optimizer = (BaseStage if is_base else SuperResStage)(training, text_encoder()).optimizer
    assert isinstance(optimizer, AdaFactor)
    assert [(group["lr"], group["betas"]) for group in optimizer.param_groups] == [(1e-4, (0.9, 0.96))] * 2
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.045, 0.0]


@pytest.mark.parametrize("recipe", [*VQGANS, decoder_paper_f8])
def test_the_papers_vqgans_and_their_discriminators_are_trained_by_its_adam(recipe, tmp_path):  # appendix, VQGAN
    discriminator = DiscriminatorConfig(channels=4, layers=1, norm_groups=2)
    if recipe in VQGANS:
        stage = VQGANStage(tiny(recipe, tmp_path, discriminator=discriminator, model=VQGAN_CONFIG), None)
    else:
        training = tiny(recipe, tmp_path, discriminator=discriminator, decoder_channels=(8, 8))
        stage = DecoderStage(training, trained_vqgan(), None)
    for optimizer in (stage.optimizer, stage.optimizer_d):
        assert isinstance(optimizer, torch.optim.AdamW)
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-4, (0.9, 0.99), 1e-4)


def test_what_a_run_keeps_is_averaged_as_the_paper_says():  # appendix, averaging
    assert export.DECAY == 0.7
