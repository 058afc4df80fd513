"""Drawings to pixels, in parallel, in shards that a stopped run does not lose."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from projects.emoji.dataset import Record
from projects.emoji.files import BuildError, sha256_of, write_atomically
from projects.emoji.sources import Drawing

SHARD_LENGTH = 64  # pictures a killed run loses at most, per worker


def draw(source: str | bytes, size: int) -> np.ndarray:
    """Rasterise to uint8 [size, size, 4] with straight alpha, centred, aspect kept.
    Raises ValueError for a source that cannot be read or that draws nothing."""
    image = draw_svg(source, size) if isinstance(source, str) else open_picture(source)
    scale = size / max(image.size)
    fitted = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if image.size != fitted:
        image = image.resize(fitted, Image.Resampling.LANCZOS)  # Pillow premultiplies RGBA while it resizes
    canvas = np.zeros((size, size, 4), np.uint8)
    left, top = (size - fitted[0]) // 2, (size - fitted[1]) // 2
    canvas[top : top + fitted[1], left : left + fitted[0]] = np.asarray(image)
    if not canvas[..., 3].any():
        raise ValueError("the drawing is empty")
    canvas[canvas[..., 3] == 0] = 0  # no colour hides under full transparency
    return canvas


def draw_svg(svg: str, size: int) -> Image.Image:
    """An SVG at its own aspect, its longer side `size` pixels."""
    opening = re.search(r'width="([\d.]+)" height="([\d.]+)"', svg)
    if opening is None:
        raise ValueError("the SVG says no width and height")
    width, height = float(opening[1]), float(opening[2])
    scale = size / max(width, height)
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        width=max(1, round(width * scale)),
        height=max(1, round(height * scale)),
        skip_system_fonts=True,  # a picture must not depend on the fonts of the machine
    )
    return Image.open(io.BytesIO(png)).convert("RGBA")


def open_picture(source: bytes) -> Image.Image:
    """The bytes of a picture file as RGBA; ValueError where they are none."""
    try:
        return Image.open(io.BytesIO(source)).convert("RGBA")
    except UnidentifiedImageError:
        # Pillow's own message names an address in memory, and the manifest must not change from run to run.
        raise ValueError("the file is no picture that Pillow can read") from None


@dataclass(frozen=True)
class Shard:
    """A finished stretch of pictures on disk, uint8 [count, size, size, 4]; `damaged` names what was skipped."""

    path: Path
    damaged: dict[int, str]
    """Position within the shard -> what was wrong."""


def rasterise(drawings: Sequence[Drawing], size: int, folder: Path, workers: int) -> list[Shard]:
    """Draw everything in parallel, keeping the shards that an earlier run finished."""
    folder.mkdir(parents=True, exist_ok=True)
    batches = [drawings[start : start + SHARD_LENGTH] for start in range(0, len(drawings), SHARD_LENGTH)]
    paths = [folder / f"{fingerprint_of(batch, size)}.npy" for batch in batches]
    shards = {path: shard for path in paths if (shard := finished_shard(path))}
    todo = [(batch, path) for batch, path in zip(batches, paths, strict=True) if path not in shards]
    progress = tqdm(total=len(drawings), initial=len(drawings) - sum(len(batch) for batch, _ in todo), unit="picture")
    with progress, ProcessPoolExecutor(workers) as pool:
        try:
            running = {
                pool.submit(draw_shard, [drawing.source for drawing in batch], size, path): len(batch)
                for batch, path in todo
            }
            for future in as_completed(running):
                shard = future.result()
                shards[shard.path] = shard
                progress.update(running[future])
        except BrokenProcessPool:
            raise BuildError("a rasterising process died, perhaps for want of memory; build again to go on") from None
        finally:
            pool.shutdown(cancel_futures=True)
    return [shards[path] for path in paths]


def draw_shard(sources: Sequence[str | bytes], size: int, path: Path) -> Shard:
    """Draw one shard to disk; its JSON neighbour, with the hash, is written last and marks it finished."""
    pictures, damaged = np.zeros((len(sources), size, size, 4), np.uint8), {}
    for position, source in enumerate(sources):
        try:
            pictures[position] = draw(source, size)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # a panic inside resvg is not an Exception
            damaged[position] = f"{type(error).__name__}: {error}"
    np.save(path, pictures)
    write_atomically(path.with_suffix(".json"), json.dumps({"sha256": sha256_of(path), "damaged": damaged}))
    return Shard(path, damaged)


def finished_shard(path: Path) -> Shard | None:
    """The shard that an earlier run left, if it is whole."""
    mark = path.with_suffix(".json")
    if not (mark.is_file() and path.is_file()):
        return None
    written = json.loads(mark.read_text())
    if written["sha256"] != sha256_of(path):
        return None
    return Shard(path, {int(position): reason for position, reason in written["damaged"].items()})


def fingerprint_of(drawings: Sequence[Drawing], size: int, records: Sequence[Record] = ()) -> str:
    """A short hash over all that decides these pictures, and over the records where there are some."""
    digest = hashlib.sha256(f"{size} {version('resvg-py')} {version('pillow')}".encode())
    for drawing in drawings:
        digest.update(drawing.source_sha256().encode())
    for record in records:
        digest.update(repr(record).encode())
    return digest.hexdigest()[:16]


def whole_pictures(shards: Iterable[Shard]) -> Iterator[np.ndarray]:
    for shard in shards:
        for position, picture in enumerate(np.load(shard.path, mmap_mode="r")):
            if position not in shard.damaged:
                yield picture
