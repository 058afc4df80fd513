"""Our own alignment scorer: two linear towers over MiniLM and EfficientNet-Lite0, trained on the emoji training split.

    python -m projects.emoji.alignment --out runs-local/emoji/alignment

Both encoders stay frozen and their features are computed once, so training takes seconds. Then the held-out pictures,
of (concept, family) pairs that no training picture shows, look for their captions among all held-out captions, and the
captions for their pictures: R@1 and R@5 are what the scorer is worth.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from muse.checkpoint import save_module
from muse.evaluation.alignment import (
    FEATURES,
    TEXT_ENCODER,
    TOWERS,
    AlignmentConfig,
    AlignmentTowers,
    ranks_of_own,
    read,
)
from muse.evaluation.intervals import Figure, wilson
from muse.evaluation.networks import export_features
from muse.evaluation.report import git_commit, machine
from muse.models.text_encoder import TextEncoder
from muse.shapes import Pictures
from projects.emoji import dataset, recipe
from projects.emoji.captions import caption
from projects.emoji.dataset import EmojiArt
from projects.emoji.files import run_command, write_atomically
from projects.emoji.judge import JUDGE_SIZE, Features, Network, efficientnet_lite0, features_of
from projects.emoji.scenes import Scene, paint, random_scene
from projects.emoji.train import usable

Read = Callable[[Sequence[str]], Features]
"""Captions to one row of features each."""


@dataclass(frozen=True)
class TowerTraining:
    """How the towers are trained."""

    scenes: int = 1
    """Varied scenes painted for each training picture, beside the plain one."""
    captions: int = 2
    """Wordings of each scene."""
    steps: int = 800
    batch: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dim: int = 256
    """Features in which texts and pictures meet."""
    seed: int = 0


@dataclass(frozen=True)
class Pairs:
    """Features of scenes, and of several wordings of each."""

    images: Features
    texts: Float[Tensor, "wording picture dim"]


@dataclass(frozen=True)
class Recall:
    """How often the own partner is nearest, or among the five nearest, of `num`."""

    num: int
    first: Figure
    first_five: Figure


def scenes_of(art: EmojiArt, pictures: Sequence[int], training: TowerTraining) -> list[Scene]:
    """The plain single of each picture, and varied scenes around any of them."""
    rng = np.random.default_rng(training.seed)
    varied = [random_scene(art, rng, pictures, recipe.SCENES) for _ in range(training.scenes * len(pictures))]
    return [*(Scene("single", (picture,)) for picture in pictures), *varied]


def training_pairs(art: EmojiArt, network: Network, read_texts: Read, training: TowerTraining) -> Pairs:
    """Features of the training split; nothing of a held-out picture or composition is among them."""
    scenes = scenes_of(art, usable(art, held_out=False), training)
    rng = np.random.default_rng((training.seed, 1))
    images = [Image.fromarray(paint(scene, art, rng)) for scene in scenes]
    wordings = [[caption(scene, art, rng) for scene in scenes] for _ in range(training.captions)]
    return Pairs(features_of(network, images), torch.stack([read_texts(texts) for texts in wordings]))


def held_out_pairs(art: EmojiArt, network: Network, read_texts: Read) -> Pairs:
    """Plain held-out pictures and their plain captions."""
    scenes = [Scene("single", (picture,)) for picture in usable(art, held_out=True)]
    images = [Image.fromarray(paint(scene, art)) for scene in scenes]
    return Pairs(features_of(network, images), read_texts([caption(scene, art) for scene in scenes])[None])


def train(pairs: Pairs, training: TowerTraining) -> AlignmentTowers:
    """Towers trained on random wordings of random scenes."""
    generator = torch.Generator().manual_seed(training.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        towers = AlignmentTowers(AlignmentConfig(pairs.texts.shape[-1], pairs.images.shape[-1], training.dim))
    optimizer = torch.optim.AdamW(
        towers.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    num = min(training.batch, len(pairs.images))
    for _ in tqdm(range(training.steps), unit="step", desc="towers", disable=None):
        rows = torch.randperm(len(pairs.images), generator=generator)[:num]
        wordings = torch.randint(len(pairs.texts), (num,), generator=generator)
        loss = towers(pairs.texts[wordings, rows], pairs.images[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return towers.eval()


@torch.no_grad()
def recalls(towers: AlignmentTowers, pairs: Pairs) -> dict[str, Recall]:
    """How well pictures find their captions and captions their pictures, among all of these."""
    images, texts = towers.images(pairs.images), towers.texts(pairs.texts[0])
    own = torch.arange(len(images))
    found = {"captions of pictures": (images, texts), "pictures of captions": (texts, images)}
    return {name: recall_of(ranks_of_own(*sides, own)) for name, sides in found.items()}


def recall_of(ranks: Tensor) -> Recall:
    num = len(ranks)
    return Recall(num, wilson(int((ranks < 1).sum()), num), wilson(int((ranks < 5).sum()), num))


class JudgeFeatures(nn.Module):
    """The judge's network from pictures in [0, 1] to mean features, as one module that can be exported."""

    def __init__(self, weights: Path):
        super().__init__()
        self.extract = efficientnet_lite0(weights)
        self.network = self.extract.__self__  # pyright: ignore[reportFunctionMemberAccess]  # its weights are ours

    def forward(self, pictures: Pictures) -> Float[Tensor, "batch dim"]:
        return self.extract(pictures * 2 - 1).mean((2, 3))


def export_judge(folder: Path, path: Path) -> None:
    """The judge's network as a file that `muse evaluate --features` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    export_features(JudgeFeatures(folder / "networks" / "judge" / "model.safetensors"), JUDGE_SIZE, path)


@dataclass(frozen=True)
class Command:
    """Train the towers, say what they are worth, and leave a folder for `muse evaluate --alignment`."""

    out: Path = Path("runs-local/emoji/alignment")
    """Folder for the scorer."""
    folder: Path = Path("runs-local/emoji")
    """Where the data set and the networks are."""
    training: tyro.conf.OmitArgPrefixes[TowerTraining] = TowerTraining()


def main(command: Command) -> None:
    """Features, training, recall, files."""
    art = dataset.load(command.folder)
    network = efficientnet_lite0(command.folder / "networks" / "judge" / "model.safetensors")
    text_encoder = TextEncoder.from_folder(command.folder / "networks" / "text_encoder")

    def read_texts(texts: Sequence[str]) -> Features:
        return read(text_encoder, texts)

    towers = train(training_pairs(art, network, read_texts, command.training), command.training)
    found = recalls(towers, held_out_pairs(art, network, read_texts))
    save_module(towers, command.out / TOWERS)
    shutil.copytree(command.folder / "networks" / "text_encoder", command.out / TEXT_ENCODER, dirs_exist_ok=True)
    export_judge(command.folder, command.out / FEATURES)
    about = {"commit": git_commit(), "machine": machine(), "training": asdict(command.training)}
    result = about | {name: asdict(recall) for name, recall in found.items()}
    write_atomically(command.out / "recall.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
