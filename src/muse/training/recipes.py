"""Recipes: what a run is made of, as functions; every field of what they return can be changed on the command line.

Times are for the command in each docstring; where none was taken, the docstring says so."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from muse.models.discriminator import DiscriminatorConfig
from muse.models.superres import PRESETS as SUPERRES_PRESETS
from muse.models.superres import SuperResConfig
from muse.models.transformer import PRESETS, TransformerConfig
from muse.models.vqgan import VQGANConfig
from muse.requests import keep_whole
from muse.training.base import BaseTraining
from muse.training.decoder import DecoderTraining
from muse.training.engine import EngineOptions
from muse.training.superres import SuperResTraining
from muse.training.vqgan import VQGANTraining


@dataclass(frozen=True)
class VQGANRecipe:
    """A run of the VQGAN."""

    training: Annotated[VQGANTraining, tyro.conf.arg(name="")]
    size: int = 256
    """Side of a picture in pixels: the shorter side is scaled to it, the longer one cropped at random."""
    batch_size: int = 256
    """Pictures in the batch of a step, of all processes together."""
    held_out: int = 16
    """Pictures that training never sees; their reconstructions are drawn and compared at every checkpoint."""

    def __post_init__(self) -> None:
        keep_counts(self)


@dataclass(frozen=True)
class BaseRecipe:
    """A run of the base transformer."""

    training: Annotated[BaseTraining, tyro.conf.arg(name="")]
    batch_size: int = 512
    """Token grids in the batch of a step, of all processes together."""
    held_out: int = 64
    """Rows of the cache that training never sees; the loss on them is reported at every checkpoint."""

    def __post_init__(self) -> None:
        keep_counts(self)


@dataclass(frozen=True)
class SuperResRecipe:
    """A run of the super-resolution transformer."""

    training: Annotated[SuperResTraining, tyro.conf.arg(name="")]
    batch_size: int = 512
    """Pairs of token grids in the batch of a step, of all processes together."""
    held_out: int = 64
    """Rows of the cache that training never sees; the loss on them is reported at every checkpoint."""

    def __post_init__(self) -> None:
        keep_counts(self)


@dataclass(frozen=True)
class DecoderRecipe:
    """A run of a larger decoder for a trained VQGAN."""

    training: Annotated[DecoderTraining, tyro.conf.arg(name="")]
    size: int = 256
    """Side of a picture in pixels: the shorter side is scaled to it, the longer one cropped at random."""
    batch_size: int = 256
    """Pictures in the batch of a step, of all processes together."""
    held_out: int = 16
    """Pictures that training never sees; their reconstructions are drawn and compared at every checkpoint."""
    made_for: Annotated[VQGANConfig, tyro.conf.Fixed, tyro.conf.Suppress] = field(default_factory=VQGANConfig)
    """The VQGAN that the recipe was made for, with which a dry run counts that is given none."""

    def __post_init__(self) -> None:
        keep_counts(self)


def keep_counts(recipe: VQGANRecipe | BaseRecipe | SuperResRecipe | DecoderRecipe) -> None:
    """Keep the counts of a recipe as Python's own numbers.
    Raises ValueError if pictures would have no pixels, or batches no samples."""
    if isinstance(recipe, VQGANRecipe | DecoderRecipe):
        keep_whole(recipe, "size")
    keep_whole(recipe, "batch_size")
    keep_whole(recipe, "held_out", least=0)


# -- the VQGAN ----------------------------------------------------------------------------------------------------


def vqgan_paper_f16() -> VQGANRecipe:
    """The f=16 tokenizer of Muse: 256 pixels to 16x16 tokens of 8192 codes. Never run to its end by us."""
    engine = EngineOptions(
        folder=Path("runs/vqgan"),
        steps=1_000_000,
        learning_rate=1e-4,
        warmup=10_000,
        ema_decay=0.9999,
        workers=8,
        save_every=5_000,
    )
    return VQGANRecipe(VQGANTraining(engine, discriminator_from=50_000, adversarial_from=60_000))


def vqgan_paper_f8() -> VQGANRecipe:
    """The f=8 tokenizer of Muse: trained on 256 pixels, and run on 512, to 64x64 tokens. Never run to its end by us."""
    paper = vqgan_paper_f16()
    return replace(paper, training=replace(paper.training, model=VQGANConfig(channels=(128, 256, 256, 512))))


def vqgan_laptop() -> VQGANRecipe:
    """f=16 at 128 pixels, 512 codes, for a few hundred to a few thousand pictures.
    About 20 minutes on 2 cores, by the seconds a step of the emoji model's run, which is like it."""
    engine = EngineOptions(
        folder=Path("runs/vqgan"),
        steps=1500,
        learning_rate=6e-4,
        warmup=50,
        final_rate=0.02,
        ema_decay=0.99,
        save_every=250,
        log_every=25,
    )
    training = VQGANTraining(
        engine,
        model=VQGANConfig(
            channels=(16, 32, 64, 128, 256),
            blocks=1,
            decoder_channels=(32, 32, 64, 128, 256),
            decoder_blocks=1,
            num_codes=512,
            code_dim=32,
            norm_groups=4,
        ),
        discriminator=DiscriminatorConfig(channels=32),
        adversarial_weight=0.02,
        commitment_weight=1.0,
        quantize_from=400,
        discriminator_from=1200,
        adversarial_from=1300,
    )
    return VQGANRecipe(training, size=128, batch_size=16, held_out=8)


def vqgan_laptop_f8() -> VQGANRecipe:
    """f=8 at 256 pixels, 512 codes, for super-resolution of what the laptop's f=16 draws.
    About 20 minutes on 2 cores, by the seconds a step of the emoji model's run, which is like it."""
    laptop = vqgan_laptop()
    training = replace(
        laptop.training,
        engine=replace(laptop.training.engine, folder=Path("runs/vqgan-high"), steps=3000),
        model=VQGANConfig(
            channels=(64, 128),
            blocks=1,
            decoder_channels=(64, 128),
            decoder_blocks=1,
            num_codes=512,
            code_dim=32,
            norm_groups=4,
            patch=4,
            encoder_kernels=(3, 1),
            encoder_norm="place",
        ),
        quantize_from=300,
        discriminator_from=2800,
        adversarial_from=2900,
    )
    return VQGANRecipe(training, size=256, batch_size=8, held_out=8)


def vqgan_debug() -> VQGANRecipe:
    """A few steps of a tiny network, to see that everything works: seconds."""
    engine = EngineOptions(folder=Path("runs/vqgan"), steps=6, learning_rate=1e-3, workers=0, save_every=3, log_every=1)
    training = VQGANTraining(
        engine,
        model=VQGANConfig(channels=(8, 8, 16), blocks=1, decoder_blocks=1, num_codes=32, code_dim=4, norm_groups=4),
        discriminator=DiscriminatorConfig(channels=8, layers=1, norm_groups=2),
        quantize_from=1,
        discriminator_from=3,
        adversarial_from=4,
    )
    return VQGANRecipe(training, size=16, batch_size=4, held_out=2)


# -- the base transformer -----------------------------------------------------------------------------------------


def base_paper_3b() -> BaseRecipe:
    """Muse-3B as the paper trains it: AdaFactor, batch 512, 1.5M steps, over sharded weights. Never run by us."""
    engine = EngineOptions(
        folder=Path("runs/base"),
        steps=1_500_000,
        learning_rate=1e-4,
        warmup=5_000,
        ema_decay=0.9999,
        strategy="fsdp",
        recompute=True,
        workers=4,
        save_every=5_000,
        keep_every=5_000,
    )
    return BaseRecipe(BaseTraining(engine=engine, model=PRESETS["muse-3b"], optimizer="adafactor"), held_out=2048)


def base_paper_632m() -> BaseRecipe:
    """The 632M model of the paper's CC3M table, otherwise as the 3B. Never run by us."""
    paper = base_paper_3b()
    engine = replace(paper.training.engine, strategy="ddp", recompute=False)
    return replace(paper, training=replace(paper.training, engine=engine, model=PRESETS["muse-632m"]))


def base_laptop() -> BaseRecipe:
    """8 layers of width 256: 9 million parameters on 8x8 tokens.
    About 8 minutes on 2 cores, by the seconds a step of the emoji model's run, which is like it."""
    engine = EngineOptions(
        folder=Path("runs/base"),
        steps=1500,
        learning_rate=1e-3,
        warmup=100,
        final_rate=0.02,
        ema_decay=0.995,
        save_every=250,
        log_every=25,
    )
    model = TransformerConfig(
        num_codes=512, height=8, width=8, dim=256, depth=8, heads=4, mlp_dim=1024, text_dim=384, dropout=0.1
    )
    return BaseRecipe(BaseTraining(engine=engine, model=model), batch_size=32, held_out=8)


def base_debug() -> BaseRecipe:
    """A few steps of a tiny network, to see that everything works: seconds."""
    engine = EngineOptions(
        folder=Path("runs/base"), steps=6, learning_rate=1e-3, workers=0, save_every=3, log_every=1, keep_every=2
    )
    model = TransformerConfig(num_codes=32, height=4, width=4, dim=16, depth=2, heads=2, mlp_dim=32, text_dim=384)
    return BaseRecipe(BaseTraining(engine=engine, model=model), batch_size=4, held_out=2)


# -- super-resolution and the larger decoder -----------------------------------------------------------------------


def superres_paper_738m() -> SuperResRecipe:
    """The super-resolution transformer of Muse, trained after the base as that is. Never run by us."""
    engine = replace(base_paper_3b().training.engine, folder=Path("runs/superres"), steps=1_000_000)
    training = SuperResTraining(
        engine=engine, model=SUPERRES_PRESETS["superres-738m"], low_corruption=0.0, optimizer="adafactor"
    )
    return SuperResRecipe(training, held_out=2048)


def superres_laptop() -> SuperResRecipe:
    """8x8 tokens to 32x32: 8.5 million parameters that begin with the upsampled low-resolution picture.
    About an hour and a quarter on 2 cores, by the seconds a step of the emoji model's run, which is like it."""
    laptop = base_laptop()
    engine = replace(laptop.training.engine, folder=Path("runs/superres"), steps=3500)
    model = SuperResConfig(
        num_codes=512,
        low_num_codes=512,
        height=32,
        width=32,
        low_height=8,
        low_width=8,
        dim=256,
        depth=6,
        low_depth=2,
        heads=4,
        mlp_dim=1024,
        text_dim=384,
        aligned=True,
        upsampled_dim=32,
    )
    return SuperResRecipe(
        SuperResTraining(engine=engine, model=model, optimizer="muon"), batch_size=16, held_out=laptop.held_out
    )


def superres_debug() -> SuperResRecipe:
    """A few steps of a tiny network, to see that everything works: seconds."""
    engine = replace(base_debug().training.engine, folder=Path("runs/superres"))
    model = SuperResConfig(
        height=8,
        width=8,
        low_height=4,
        low_width=4,
        dim=16,
        depth=2,
        low_depth=1,
        heads=2,
        mlp_dim=32,
        block=4,
        aligned=True,
        upsampled_dim=4,
    )
    return SuperResRecipe(SuperResTraining(engine=engine, model=model), batch_size=4, held_out=2)


def decoder_paper_f8() -> DecoderRecipe:
    """The decoder of Muse's f=8 tokenizer with twice the channels and blocks (section 2.5). Never run by us."""
    paper = vqgan_paper_f8()
    training = DecoderTraining(
        engine=replace(paper.training.engine, folder=Path("runs/decoder")),
        decoder_channels=(256, 512, 512, 1024),
        discriminator_from=50_000,
        adversarial_from=60_000,
    )
    return DecoderRecipe(training, made_for=paper.training.model)


def decoder_laptop() -> DecoderRecipe:
    """Half as many channels again and twice the blocks for the decoder of the laptop's f=8 VQGAN. Never run by us."""
    laptop = vqgan_laptop_f8()
    engine = replace(
        laptop.training.engine,
        folder=Path("runs/decoder"),
        learning_rate=4e-4,
        warmup=100,
        ema_decay=0.995,
    )
    training = DecoderTraining(
        engine,
        decoder_channels=(96, 192),
        decoder_blocks=2,
        discriminator=laptop.training.discriminator,
        perceptual_weight=0.1,
        adversarial_weight=laptop.training.adversarial_weight,
        discriminator_from=1800,
        adversarial_from=2000,
    )
    return DecoderRecipe(training, laptop.size, laptop.batch_size, laptop.held_out, laptop.training.model)


def decoder_debug() -> DecoderRecipe:
    """A few steps of a tiny network, to see that everything works: seconds."""
    tiny = vqgan_debug()
    training = DecoderTraining(
        engine=replace(tiny.training.engine, folder=Path("runs/decoder")),
        discriminator=tiny.training.discriminator,
        discriminator_from=3,
        adversarial_from=4,
    )
    return DecoderRecipe(training, tiny.size, tiny.batch_size, tiny.held_out, tiny.training.model)


VQGAN_RECIPES: dict[str, Callable[[], VQGANRecipe]] = {
    "laptop": vqgan_laptop,
    "laptop_f8": vqgan_laptop_f8,
    "paper_f16": vqgan_paper_f16,
    "paper_f8": vqgan_paper_f8,
    "debug": vqgan_debug,
}
BASE_RECIPES: dict[str, Callable[[], BaseRecipe]] = {
    "laptop": base_laptop,
    "paper_632m": base_paper_632m,
    "paper_3b": base_paper_3b,
    "debug": base_debug,
}
SUPERRES_RECIPES: dict[str, Callable[[], SuperResRecipe]] = {
    "laptop": superres_laptop,
    "paper_738m": superres_paper_738m,
    "debug": superres_debug,
}
DECODER_RECIPES: dict[str, Callable[[], DecoderRecipe]] = {
    "laptop": decoder_laptop,
    "paper_f8": decoder_paper_f8,
    "debug": decoder_debug,
}
