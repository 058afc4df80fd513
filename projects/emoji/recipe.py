"""The recipe of the model that ships: what it is trained on, how large its parts are, and for how long.

python -m projects.emoji.train vqgan             pictures to one token for each 16x16 pixels
python -m projects.emoji.train decoder-low       a decoder of its tokens at the size at which it will paint
python -m projects.emoji.train base              captions to the tokens of a picture of 256 px
python -m projects.emoji.train vqgan-superres    pictures to one token for each 8x8 pixels
python -m projects.emoji.train superres          these tokens and captions to those of a picture of 512 px
python -m projects.emoji.train decoder           a larger decoder for the large pictures
python -m projects.emoji.train decoder-drawn     the same, shown what super-resolution draws

With `--places.scale half` pictures have half the size, and two cores train all of it in an evening.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from muse.checkpoint import CONFIG
from muse.models.discriminator import DiscriminatorConfig
from muse.models.transformer import TransformerConfig
from muse.models.vqgan import VQGANConfig
from muse.sampling import SamplingOptions
from muse.training.base import BaseTraining
from muse.training.decoder import DecoderTraining
from muse.training.engine import EngineOptions
from muse.training.masked import MaskedTraining
from muse.training.pictures import PictureTraining
from muse.training.recipes import superres_laptop, vqgan_laptop_f8
from muse.training.superres import SuperResTraining
from muse.training.vqgan import VQGANTraining
from projects.emoji.captions import OLDER_STYLES
from projects.emoji.dataset import DATA
from projects.emoji.scenes import SceneWeights
from projects.emoji.tokens import CacheOptions

STYLES = ("fluent-3d", "fluent-flat", "noto", "twemoji")
"""One of the three styles that share silhouettes twice, for its shading; then the two complete sets of another hand.
These are what the model is for, and judged by."""
TRAINED_STYLES = (*STYLES, *OLDER_STYLES)
"""With three older, smaller sets, of which a thing that is held out in one style may be known better; captions always
name these."""
VQGAN_DATA, VQGAN_LARGE_DATA = DATA, "data-256"
"""What the two VQGANs learn from: pictures of 128 and 256 px. They are convolutions, and what they have learnt of small
pictures holds for large ones (docs/log.md)."""
SCENES = SceneWeights()
CANONICAL_SHARE = 0.5
"""Share of the painted pictures with everything at its plain size and place; the rest vary in both."""


SINGLE_TOKENS = CacheOptions(singles_per_picture=1, compositions=0, background=0.0, seed=1)


@dataclass(frozen=True)
class Scale:
    """How large the pictures of the two transformers are, and what they learn from."""

    size: int
    """Side of a picture in pixels, before super-resolution; f=16 tokens."""
    data: str
    """The data set of these pictures: `python -m projects.emoji.build --size SIZE --data DATA`."""
    large_size: int
    """Side of a picture in pixels after it; f=8 tokens."""
    large_data: str
    """The data set of these."""
    styles: tuple[str, ...]
    """The styles that they learn."""
    tokens: CacheOptions
    """The scenes that the base learns from."""
    paired: CacheOptions
    """Those of super-resolution."""
    single_share: float
    """Share of the batches that shows one thing; the rest are counts and pairs."""
    style_mistaken: float
    """Of the styles that captions say of single things, how many are another one's (`captions.said_style`)."""
    held_out: CacheOptions = SINGLE_TOKENS
    """The scenes of the held-out pictures, in both."""


HALF_TOKENS = CacheOptions(singles_per_picture=3, varied=0, compositions=8_000, background=0.35)
SCALES = {
    "half": Scale(128, DATA, 256, "data-256", STYLES, HALF_TOKENS, HALF_TOKENS, 0.9, 0.4),
    "paper": Scale(
        size=256,
        data="data-256",
        large_size=512,
        large_data="data-512",
        styles=TRAINED_STYLES,
        tokens=CacheOptions(
            singles_per_picture=2,
            varied=0,
            compositions=44_000,
            plain_compositions=True,
            older_compositions=False,
            background=0.4,
            seed=3,
        ),
        paired=CacheOptions(singles_per_picture=1, varied=0, compositions=6_000, background=0.4, seed=2),
        single_share=0.4,
        style_mistaken=0.25,
    ),
}
"""The paper's, 16x16 tokens to 64x64, is what ships; its transformers took 25 minutes of a GPU (docs/gpu-runs.md). Half
of it, 8x8 to 32x32, shipped before: two cores can train it."""


@dataclass(frozen=True)
class Places:
    """Where the project keeps what it makes."""

    folder: Path = Path("runs-local/emoji")
    """The data set, the networks and the runs."""
    scale: Literal["half", "paper"] = "paper"
    """How large the pictures are; what is trained of half the paper's has a folder of that name in it."""

    @property
    def of_scale(self) -> Scale:
        """What goes with the scale."""
        return SCALES[self.scale]

    @property
    def runs(self) -> Path:
        """Where the transformers of the scale are."""
        return self.folder / self.scale if self.scale == "half" else self.folder

    @property
    def model(self) -> Path:
        """The whole model of the run in progress, as it would ship."""
        return self.runs / "model"

    @property
    def text_encoder(self) -> Path:
        return self.folder / "networks" / "text_encoder"

    @property
    def vqgan(self) -> Path:
        return self.folder / "vqgan" / "vqgan"

    @property
    def base(self) -> Path:
        return self.runs / "base" / "base"

    @property
    def vqgan_superres(self) -> Path:
        return self.folder / "vqgan-superres" / "vqgan"

    @property
    def superres(self) -> Path:
        return self.runs / "superres" / "superres"

    @property
    def decoder(self) -> Path:
        """The VQGAN of the large pictures with its larger decoder."""
        return self.runs / "decoder" / "vqgan"

    @property
    def decoder_low(self) -> Path:
        """The VQGAN of the small pictures with a decoder that was trained at their size."""
        return self.runs / "decoder-low" / "vqgan"

    @property
    def decoder_drawn(self) -> Path:
        """The VQGAN of the large pictures with a decoder that was shown what is drawn."""
        return self.runs / "decoder-drawn" / "vqgan"

    @property
    def painter(self) -> Path:
        """The VQGAN that paints the small pictures: of those of the run the last one that is trained."""
        return last_trained(self.vqgan, self.decoder_low)

    @property
    def large_painter(self) -> Path:
        """The one that paints the large ones."""
        return last_trained(self.vqgan_superres, self.decoder, self.decoder_drawn)

    @property
    def perceptual(self) -> Path:
        return self.folder / "networks" / "squeezenet" / "model.safetensors"


def last_trained(first: Path, *others: Path) -> Path:
    """The last of the folders that holds a network, or the first one if none does."""
    return next((each for each in reversed(others) if (each / CONFIG).is_file()), first)


PLACES = Places()


Training = TypeVar("Training", bound=PictureTraining | MaskedTraining)
PHASES = ("quantize_from", "discriminator_from", "adversarial_from")


def in_steps(training: Training, steps: int | None) -> Training:
    """The same run in another number of steps: what begins on its way begins after the same share of it."""
    if steps is None:
        return training
    share = steps / training.engine.steps
    engine = replace(training.engine, steps=steps, warmup=round(share * training.engine.warmup))
    phases = {name: round(share * getattr(training, name)) for name in PHASES if hasattr(training, name)}
    return replace(training, engine=engine, **phases)


def vqgan(places: Places) -> VQGANTraining:
    """f=16, 2048 codes, trained at 128 px."""
    return VQGANTraining(
        engine=EngineOptions(
            folder=places.vqgan.parent,
            steps=2600,
            learning_rate=6e-4,
            warmup=50,
            final_rate=0.02,
            ema_decay=0.998,
            save_every=500,
            log_every=50,
        ),
        model=VQGANConfig(
            channels=(128, 256, 256),
            blocks=1,
            decoder_channels=(96, 192, 256),
            decoder_blocks=2,
            num_codes=2048,
            code_dim=32,
            norm_groups=4,
            patch=4,
            encoder_kernels=(3, 1, 1),
            encoder_norm="place",
        ),
        discriminator=DiscriminatorConfig(channels=32, layers=3),
        perceptual_weight=0.2,
        adversarial_weight=0.02,
        commitment_weight=1.0,
        quantize_from=300,
        discriminator_from=2530,
        adversarial_from=2560,
    )


VQGAN_BATCH = 16
"""Pictures in a batch of VQGAN training."""


def base(places: Places) -> BaseTraining:
    """8x8 tokens from a caption, or 16x16: 15.7M parameters."""
    side = places.of_scale.size // 16
    return BaseTraining(
        engine=EngineOptions(
            folder=places.base.parent,
            steps=6600,
            learning_rate=1e-3,
            warmup=150,
            final_rate=0.02,
            ema_decay=0.998,
            save_every=1000,
            log_every=50,
        ),
        model=TransformerConfig(
            num_codes=2048,
            height=side,
            width=side,
            dim=384,
            depth=6,
            heads=6,
            mlp_dim=1536,
            text_dim=384,
            dropout=0.0,
        ),
        optimizer="muon",
    )


def vqgan_superres(places: Places) -> VQGANTraining:
    """f=8, 512 codes, trained at 256 px, each token of its own surroundings as those of the f=16 one are. Its sizes are
    those that 2 cores can train."""
    return VQGANTraining(
        engine=EngineOptions(
            folder=places.vqgan_superres.parent,
            steps=3000,
            learning_rate=6e-4,
            warmup=50,
            final_rate=0.02,
            ema_decay=0.998,
            save_every=500,
            log_every=25,
        ),
        model=vqgan_laptop_f8().training.model,
        discriminator=DiscriminatorConfig(channels=32, layers=3),
        perceptual_weight=0.2,
        adversarial_weight=0.02,
        commitment_weight=1.0,
        quantize_from=300,
        discriminator_from=2900,
        adversarial_from=2950,
    )


def decoder(places: Places) -> DecoderTraining:
    """Three blocks a resolution instead of one for the decoder of the large pictures, and its edge again beyond it.
    It begins with the old one's weights and sees a discriminator for three quarters of its time."""
    return DecoderTraining(
        engine=EngineOptions(
            folder=places.decoder.parent,
            steps=1800,
            learning_rate=4e-4,
            warmup=50,
            final_rate=0.02,
            ema_decay=0.99,
            save_every=200,
            log_every=25,
        ),
        decoder_blocks=3,
        decoder_padding="replicate",
        discriminator=DiscriminatorConfig(channels=32, layers=3),
        perceptual_weight=0.2,
        adversarial_weight=0.04,
        discriminator_from=300,
        adversarial_from=450,
    )


LARGE_BATCH = 8
"""Pictures of 256 px in a batch."""


def last_decoder(folder: Path, steps: int, blocks: int) -> DecoderTraining:
    """A decoder of the same shape, trained on at the size at which it will paint: with a loss for stains and no
    discriminator."""
    return DecoderTraining(
        engine=EngineOptions(
            folder=folder,
            steps=steps,
            learning_rate=4e-4,
            warmup=30,
            final_rate=0.02,
            ema_decay=0.98,
            save_every=100,
            log_every=10,
        ),
        decoder_blocks=blocks,
        perceptual_weight=0.2,
        gradient_weight=1.0,
        discriminator_from=steps,
        adversarial_from=steps,
    )


def decoder_low(places: Places) -> DecoderTraining:
    """That of the f=16 VQGAN, which was trained at 128 px."""
    return last_decoder(places.decoder_low.parent, 1600, vqgan(places).model.decoder_blocks)


def decoder_drawn(places: Places) -> DecoderTraining:
    """The larger one of the f=8 VQGAN, on what super-resolution draws."""
    return last_decoder(places.decoder_drawn.parent, 800, decoder(places).decoder_blocks)


DRAWN_BATCH = 4
"""Pictures in a batch of the last training of the large pictures' decoder."""
DRAWN_PICTURES = 1000
"""How many pictures that shows; each is drawn once, which takes a processor longer than a step on it."""
CANONICAL_LAST = 0.85
"""Share of the pictures of these two with everything at its plain place, as the transformers draw it."""


def superres(places: Places) -> SuperResTraining:
    """8x8 tokens and a caption to 32x32 tokens, or 16x16 to 64x64: 8.9M parameters."""
    side, low_side = places.of_scale.large_size // 8, places.of_scale.size // 16
    return SuperResTraining(
        engine=EngineOptions(
            folder=places.superres.parent,
            steps=5200,
            learning_rate=1e-3,
            warmup=150,
            final_rate=0.02,
            ema_decay=0.995,
            save_every=500,
            log_every=25,
        ),
        model=replace(
            superres_laptop().training.model,
            low_num_codes=2048,
            height=side,
            width=side,
            low_height=low_side,
            low_width=low_side,
        ),
        optimizer="muon",
        low_corruption=0.0,  # better than the default, 0.1 (docs/log.md)
    )


SUPERRES_BATCH = 16
"""Pairs of token grids in a batch of the super-resolution transformer's training."""

BASE_BATCH = 64
"""Token grids in a batch of the base transformer's training."""
PLAIN_CAPTIONS = 0.35
"""Share of the captions that are the canonical ones; the rest say the same in one of many ways."""

DEFAULTS = SamplingOptions(steps=24, guidance=0.0, choice_noise=0.5, remask=0.6)
"""What the model draws with unless told otherwise: of the cells in docs/results.md the best guidance, and less noise
than is most varied, for the things in a style that was not seen, which are also better for having most of the less
likely tokens drawn again at each step."""
SUPERRES_DEFAULTS = SamplingOptions(steps=8, guidance=0.0, choice_noise=1.0, temperature=0.4)
"""The same of super-resolution: the nearest to real pictures in docs/results.md, without the guidance that doubles its
time and does nothing."""
WATCHED_PROMPTS = [
    f"{subject}, {style}"
    for subject in (
        "a red apple",
        "a fox",
        "a rocket",
        "a slice of pizza",
        "an octopus on a sky blue background",
        "three strawberries",
        "a cat and a bicycle",
        "a crab above a mushroom",
    )
    for style in ("3d style", "flat style", "noto style", "twitter style")
]
"""Drawn at every checkpoint, so that a person can watch the model learn."""
