"""How fast training is given its data: rows of a token cache against pictures that are read and encoded on the fly.

python -m benchmarks.data            prints a table and one line of JSON
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

from muse.checkpoint import load_module
from muse.data.cache import CacheInfo, Grids, TokenCache, TokensOfStep, write_index, write_shard
from muse.data.crops import PicturesOfStep
from muse.data.sources import RowSource, open_source
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import find_model

MILLION = 1_000_000


def picture_folder(folder: Path, num: int, size: int) -> Path:
    """JPEG files of coarse random colours, and captions."""
    folder.mkdir()
    for i in range(num):
        coarse = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{i:04}.jpg")
        (folder / f"{i:04}.txt").write_text(f"picture {i}")
    return folder


def synthetic_cache(folder: Path, rows: int, positions: int, shards: int = 10) -> TokenCache:
    """Random tokens in so many rows."""
    folder.mkdir()
    side, each = int(positions**0.5), rows // shards
    info = CacheInfo(Grids("0" * 12, side, side, 8192))
    for piece in range(shards):
        tokens = np.random.default_rng(piece).integers(0, 8192, (each, positions))
        columns = {"name": [""] * each, "captions": [["a caption of some words"]] * each, "low": tokens}
        write_shard(folder, piece, columns, info)
    write_index(folder, info, [each] * shards, "")
    return TokenCache(folder)


def seconds_a_call(call: Callable[[int], object], num: int) -> float:
    """The mean over `num` calls, after one that is not counted."""
    call(0)
    started = time.perf_counter()
    for step in range(1, num + 1):
        call(step)
    return (time.perf_counter() - started) / num


def main(batch_size: int = 32, batches: int = 5, picture_size: int = 512, rows: int = MILLION) -> None:
    """Measure both with the VQGAN of the emoji model's small pictures."""
    vqgan = load_module(VQGAN, VQGANConfig, find_model("emoji") / "vqgan")
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(str(picture_folder(Path(folder) / "pictures", 2 * batch_size, picture_size)))
        assert isinstance(source, RowSource)
        crops = PicturesOfStep(source, 128, batch_size, seed=0)
        cached = TokensOfStep(synthetic_cache(Path(folder) / "cache", rows, 64), batch_size, seed=0)
        with torch.no_grad():
            slow = batch_size / seconds_a_call(lambda step: vqgan.encode(crops(step)), batches)
        fast = batch_size / seconds_a_call(cached, 50 * batches)
    print(f"{'pictures read and encoded':<28}{slow:>12,.0f} pictures/s{64 * slow:>14,.0f} tokens/s")
    print(f"{f'rows of a cache of {rows:,}':<28}{fast:>12,.0f} pictures/s{64 * fast:>14,.0f} tokens/s")
    numbers = {"on_the_fly_per_second": round(slow, 1), "cached_per_second": round(fast, 1)}
    print(json.dumps({"benchmark": "data", "threads": torch.get_num_threads(), **numbers, "ratio": round(fast / slow)}))


if __name__ == "__main__":
    tyro.cli(main)
