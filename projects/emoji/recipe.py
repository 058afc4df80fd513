"""The recipe of the model that ships: what it is trained on, how large its parts are, and for how long.

    python -m projects.emoji.train vqgan     pictures to 8x8 tokens
    python -m projects.emoji.train base      captions to tokens
"""

from dataclasses import dataclass
from pathlib import Path

from muse.models.discriminator import DiscriminatorConfig
from muse.models.vqgan import VQGANConfig
from muse.training.engine import EngineOptions
from muse.training.vqgan import VQGANTraining
from projects.emoji.scenes import SceneWeights

STYLES = ("fluent-3d", "fluent-flat", "noto", "twemoji")
"""One of the three styles that share silhouettes twice, for its shading; then the two complete sets of another hand."""
SIZE = 128
"""Side of a picture in pixels."""
SCENES = SceneWeights()


@dataclass(frozen=True)
class Places:
    """Where the project keeps what it makes."""

    folder: Path = Path("runs-local/emoji")
    """The data set, the networks and the runs."""

    @property
    def perceptual(self) -> Path:
        return self.folder / "networks" / "squeezenet" / "model.safetensors"


def vqgan(places: Places) -> VQGANTraining:
    """f=16 at 128 px: 64 tokens of 1024 codes. 45 min on 2 cores."""
    return VQGANTraining(
        engine=EngineOptions(
            folder=places.folder / "vqgan",
            steps=3400,
            learning_rate=6e-4,
            warmup=50,
            final_rate=0.02,
            ema_decay=0.995,
            compile=True,
            save_every=200,
            log_every=25,
        ),
        model=VQGANConfig(
            channels=(16, 32, 64, 128, 256),
            blocks=1,
            decoder_channels=(32, 32, 64, 128, 256),
            decoder_blocks=1,
            num_codes=1024,
            code_dim=32,
            norm_groups=4,
        ),
        discriminator=DiscriminatorConfig(channels=32, layers=3),
        perceptual_weight=0.1,
        adversarial_weight=0.02,
        quantize_from=250,
        discriminator_from=2300,
        adversarial_from=2450,
    )


BATCH = 16
"""Pictures in a batch of VQGAN training."""
