"""How well a picture fits its prompt where CLIP cannot be had: two linear towers over frozen encoders.

The loss is CLIP's (arXiv:2103.00020, section 2.3); data and encoders are not, and so neither is the name: its figures
are called `alignment`, and compare only with those of the same towers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from muse.checkpoint import load_module
from muse.evaluation.metrics import Features, PerPicture
from muse.evaluation.networks import BATCH, FeatureNetwork, MissingWeights, hash_of_folder, load_exported
from muse.models.text_encoder import TextEncoder, mean_state
from muse.pipeline import load_text_encoder
from muse.requests import keep_whole

Directions = Float[Tensor, "sample shared"]
"""Rows of length 1."""
Candidates = Float[Tensor, "candidate shared"]
"""Rows of length 1, among which each of the others looks for its own."""
TOWERS, TEXT_ENCODER, FEATURES = "towers", "text_encoder", "features.pt2"


@dataclass(frozen=True)
class AlignmentConfig:
    """Sizes of the two towers."""

    text_dim: int
    """Features of a text: those of the text encoder's states."""
    image_dim: int
    """Features of a picture."""
    dim: int = 256
    """Features in which both meet."""

    def __post_init__(self) -> None:
        for name in ("text_dim", "image_dim", "dim"):
            keep_whole(self, name)


class AlignmentTowers(nn.Module):
    """One linear layer for texts and one for pictures, into directions that can be compared."""

    def __init__(self, config: AlignmentConfig):
        super().__init__()
        self.config = config
        self.text = nn.Linear(config.text_dim, config.dim)
        self.image = nn.Linear(config.image_dim, config.dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def texts(self, states: Float[Tensor, "sample text_dim"]) -> Directions:
        """Texts as directions."""
        return F.normalize(self.text(F.normalize(states, dim=-1)), dim=-1)

    def images(self, features: Float[Tensor, "sample image_dim"]) -> Directions:
        """Pictures as directions."""
        return F.normalize(self.image(F.normalize(features, dim=-1)), dim=-1)

    def forward(
        self, states: Float[Tensor, "sample text_dim"], features: Float[Tensor, "sample image_dim"]
    ) -> Float[Tensor, ""]:
        """The contrastive loss of texts and their own pictures, each against all others of the batch."""
        logits = self.log_scale.exp().clamp(max=100) * self.texts(states) @ self.images(features).T
        own = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class AlignmentScorer:
    """The towers with the frozen encoders that they stand on."""

    def __init__(self, towers: AlignmentTowers, text_encoder: TextEncoder, network: FeatureNetwork, weights: str):
        self.towers, self.text_encoder, self.network, self.weights = towers.eval(), text_encoder, network, weights

    @classmethod
    def load(cls, folder: Path | str | None, device: torch.device | str = "cpu") -> "AlignmentScorer":
        """A folder with towers/, text_encoder/ and features.pt2.
        Raises MissingWeights if there is none, CheckpointError if it is damaged or is something else."""
        if folder is None or not Path(folder).is_dir():
            said = "no towers were given" if folder is None else f"there is no folder {folder}"
            raise MissingWeights(f"{said}; train them (projects/emoji/alignment.py) and give the folder as --alignment")
        folder = Path(folder)
        towers = load_module(AlignmentTowers, AlignmentConfig, folder / TOWERS)
        text_encoder = load_text_encoder(folder / TEXT_ENCODER)
        network = load_exported(folder / FEATURES, device)
        text_encoder.to(device)
        return cls(towers, text_encoder, network, f"{folder.name} {hash_of_folder(folder / TOWERS)}")

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> PerPicture:
        """The cosine of each picture and its own prompt, in [-1, 1]."""
        return self.of_features(self.network(images), prompts)

    @torch.no_grad()
    def of_features(self, features: Features, prompts: Sequence[str]) -> PerPicture:
        """As a call, for pictures of which the network's features are known."""
        return (self.towers.images(features) * self.towers.texts(read(self.text_encoder, prompts))).sum(-1)


@torch.no_grad()
def read(text_encoder: TextEncoder, prompts: Sequence[str]) -> Features:
    """One row for each prompt: the mean of its states."""
    parts = [prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH)]
    return torch.cat([mean_state(*text_encoder(part)) for part in parts])


def ranks_of_own(queries: Directions, candidates: Candidates, own: Int[Tensor, " sample"]) -> Int[Tensor, " sample"]:
    """At which place, from 0, each query finds its own candidate; of equals it gets the worst."""
    scores = queries @ candidates.T
    return (scores >= scores.gather(1, own[:, None])).sum(1) - 1
