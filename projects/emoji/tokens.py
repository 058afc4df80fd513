"""The token cache: painted scenes through the VQGAN, once, so that the base transformer trains without pictures.

tokens.npy     uint16 [N, positions]
scenes.jsonl   what each shows, from which a caption is worded anew each time
cache.json     how many, and the VQGAN that made them; written last
"""

import copy
import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from muse.checkpoint import write_whole
from muse.models.vqgan import VQGAN
from projects.emoji.captions import OLDER_STYLES
from projects.emoji.dataset import EmojiArt
from projects.emoji.scenes import Scene, SceneWeights, paint, random_scene

BATCH = 32


@dataclass(frozen=True)
class TokenCache:
    """Token grids, row by row, and the scene of each."""

    tokens: np.ndarray
    """Integers [N, positions]."""
    scenes: tuple[Scene, ...]
    vqgan_fingerprint: str


@dataclass(frozen=True)
class CacheOptions:
    """How many scenes of which sort."""

    singles_per_picture: int = 4
    """Times each picture is painted alone."""
    varied: int = 0
    """Of these, how many show it at another size and place; the others are centred. A short training that meets every
    picture in one place draws shapes sooner."""
    compositions: int = 5_000
    """Scenes of several things."""
    plain_compositions: bool = False
    """Whether these have each thing in its plain place, where its tokens are always the same: so it is met as often as
    a thing alone. Else they vary in size and place."""
    older_compositions: bool = True
    """Whether these are also composed in the older styles."""
    background: float = 0.5
    """Probability that a picture alone has a named background."""
    seed: int = 0


def cache_name(options: CacheOptions, size: int, *, held_out: bool) -> str:
    """The folder of a token cache among those of a run."""
    return f"{'held-out' if held_out else 'seen'}-{options.seed}-{size}"


class PaintedScenes(Dataset):
    """Every scene of the cache and its picture, uint8 [size, size, 3]; the same scenes if they are painted larger."""

    def __init__(self, art: EmojiArt, pictures: Sequence[int], options: CacheOptions, larger: EmojiArt | None = None):
        self.art, self.painter, self.pictures, self.options = art, larger or art, pictures, options
        self.singles = np.repeat(pictures, options.singles_per_picture)
        self.composed = [
            each for each in pictures if options.older_compositions or art.records[each].style not in OLDER_STYLES
        ]

    def __len__(self) -> int:
        return len(self.singles) + self.options.compositions

    def __getitem__(self, index: int) -> tuple[Scene, np.ndarray]:
        options, place = self.options, index - len(self.singles)
        if place < 0:
            rng = np.random.default_rng((options.seed, 0, index))
            single = SceneWeights(single=1.0, count=0.0, pair=0.0, background=options.background)
            scene = random_scene(self.art, rng, (int(self.singles[index]),), single)
            is_varied = index % options.singles_per_picture < options.varied
            return scene, paint(scene, self.painter, rng if is_varied else None)
        rng = np.random.default_rng((options.seed, 1, place))
        several = SceneWeights(single=0.0, count=0.5, pair=0.5, background=options.background)
        scene = random_scene(self.art, rng, self.composed, several)
        return scene, paint(scene, self.painter, None if options.plain_compositions else rng)


def stacked(painted: list[tuple[Scene, np.ndarray]]) -> tuple[list[Scene], UInt8[Tensor, "scene size size 3"]]:
    """Scenes and their pictures as one batch."""
    return [scene for scene, _ in painted], torch.from_numpy(np.stack([picture for _, picture in painted]))


@torch.no_grad()
def build(
    art: EmojiArt,
    pictures: Sequence[int],
    vqgan: VQGAN,
    options: CacheOptions,
    folder: Path,
    larger: EmojiArt | None = None,
) -> None:
    """Paint and encode the scenes of the given pictures into a folder, unless this VQGAN has already done so.

    With the same pictures larger, paint the scenes with those: row by row the scenes of the cache without them.
    Raises ValueError if the larger pictures are not the same ones, FileNotFoundError if there are none."""
    if larger is not None and larger.records != art.records:
        raise ValueError(f"the pictures of {larger.size} px are not those of {art.size} px; build both in the same way")
    fingerprint = vqgan.fingerprint()
    about = {"vqgan_fingerprint": fingerprint, "pictures": len(pictures), **dataclasses.asdict(options)}
    if larger is not None:
        about["size"] = larger.size
    if (folder / "cache.json").is_file() and json.loads((folder / "cache.json").read_text()) == about:
        return
    if not (larger or art).has_pictures:
        raise FileNotFoundError(f"{folder} holds no tokens of these scenes, and the data set no pictures to paint them")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cache.json").unlink(missing_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vqgan = copy.deepcopy(vqgan).to(device)
    painted = PaintedScenes(art, pictures, options, larger)
    batches = DataLoader(painted, BATCH, num_workers=len(os.sched_getaffinity(0)), collate_fn=stacked)
    tokens, scenes = [], []
    with tqdm(total=len(painted), desc=f"encoding {folder.name}", unit="scene", mininterval=5) as progress:
        for shown, pictures_of_them in batches:
            scenes += [json.dumps(dataclasses.asdict(scene)) for scene in shown]
            pixels = pictures_of_them.to(device).permute(0, 3, 1, 2).float() / 255
            tokens.append(vqgan.encode(pixels).cpu().numpy().astype(np.uint16))
            progress.update(len(shown))
    np.save(folder / "tokens.npy", np.concatenate(tokens))
    write_whole(folder / "scenes.jsonl", "\n".join(scenes) + "\n")
    write_whole(folder / "cache.json", json.dumps(about) + "\n")


def load(folder: Path) -> TokenCache:
    """The cache that `build` left in a folder.
    Raises FileNotFoundError if there is none."""
    about = json.loads((folder / "cache.json").read_text())
    rows = [json.loads(line) for line in (folder / "scenes.jsonl").read_text().splitlines()]
    scenes = tuple(Scene(**{**row, "items": tuple(row["items"])}) for row in rows)
    return TokenCache(np.load(folder / "tokens.npy"), scenes, about["vqgan_fingerprint"])
