"""The token cache: painted scenes through the VQGAN, once, so that the base transformer trains without pictures.

tokens.npy     uint16 [N, positions]
scenes.jsonl   what each shows, from which a caption is worded anew each time
cache.json     how many, and the VQGAN that made them; written last
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from muse.checkpoint import write_whole
from muse.models.vqgan import VQGAN
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
    """Times each picture is painted alone: every other time centred, else at another size and place."""
    compositions: int = 5_000
    """Scenes of several things."""
    background: float = 0.5
    """Probability that a picture alone has a named background."""
    seed: int = 0


def painted_scenes(
    art: EmojiArt, pictures: Sequence[int], options: CacheOptions, larger: EmojiArt | None = None
) -> Iterator[tuple[Scene, np.ndarray]]:
    """Every scene of the cache and its picture, uint8 [size, size, 3]; the same scenes if they are painted larger."""
    painter = larger or art
    single = SceneWeights(single=1.0, count=0.0, pair=0.0, background=options.background)
    several = SceneWeights(single=0.0, count=0.5, pair=0.5, background=options.background)
    for i, picture in enumerate(np.repeat(pictures, options.singles_per_picture)):
        rng = np.random.default_rng((options.seed, 0, i))
        scene = random_scene(art, rng, (int(picture),), single)
        yield scene, paint(scene, painter, rng if i % 2 else None)
    for i in range(options.compositions):
        rng = np.random.default_rng((options.seed, 1, i))
        scene = random_scene(art, rng, pictures, several)
        yield scene, paint(scene, painter, rng)


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
    Raises ValueError if the larger pictures are not the same ones."""
    if larger is not None and larger.records != art.records:
        raise ValueError(f"the pictures of {larger.size} px are not those of {art.size} px; build both in the same way")
    fingerprint = vqgan.fingerprint()
    about = {"vqgan_fingerprint": fingerprint, "pictures": len(pictures), **dataclasses.asdict(options)}
    if larger is not None:
        about["size"] = larger.size
    if (folder / "cache.json").is_file() and json.loads((folder / "cache.json").read_text()) == about:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cache.json").unlink(missing_ok=True)
    total = len(pictures) * options.singles_per_picture + options.compositions
    tokens, scenes = [], []
    batch: list[np.ndarray] = []
    scenes_to_encode = painted_scenes(art, pictures, options, larger)
    for scene, picture in tqdm(scenes_to_encode, total=total, desc="encoding", mininterval=5):
        scenes.append(json.dumps(dataclasses.asdict(scene)))
        batch.append(picture)
        if len(batch) == BATCH or len(scenes) == total:
            pixels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float() / 255
            tokens.append(vqgan.encode(pixels).numpy().astype(np.uint16))
            batch.clear()
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
