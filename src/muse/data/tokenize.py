"""Pictures and captions to a token cache: piece by piece, over any number of processes, going on where it was stopped.

The processes need not know each other: piece i belongs to process i modulo their number, a shard takes its name once it
is whole, and whoever finds all of them there closes the cache."""

import json
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from muse.checkpoint import read_json, write_whole
from muse.data.cache import CacheInfo, Grids, shard_name, write_index, write_shard
from muse.data.pictures import Tally, Unusable, fit, read_picture
from muse.data.sources import CAPTION_FILES, FolderSource, Row, Source, TarRows, TarSource, Traits
from muse.images import to_batch
from muse.models.text_encoder import TextEncoder
from muse.models.vqgan import VQGAN
from muse.requests import keep_whole, told_path

log = logging.getLogger(__name__)
LARGEST_SIZE = 16_384
"""Pixels of a side, far more than any VQGAN takes at once."""
PLAN = "plan.json"
STATES = "files"
"""The field of a piece's counts that holds the states of the files it was made of."""
SIZE = "bytes"
"""The field that holds the size of its shard."""
NO_CAPTION, NO_PICTURE = "without a caption", "without a picture"
"""Kinds of rows that are skipped, as they are counted."""
SIDE_BY_SIDE = "the files of a sample must stand side by side in a tar, as tar --sort=name -cf packs them"
"""What is wrong with a tar where some samples seem to have a caption only, and others a picture only."""


@dataclass(frozen=True)
class TokenizeOptions:
    """How pictures become tokens."""

    size: int = 256
    """Side of a picture in pixels, of which the low tokens are made; the shorter side is scaled to it and the longer
    one cropped at the centre."""
    high_size: int = 512
    """Side in pixels of which the high tokens are made."""
    batch_size: int = 32
    """Pictures that go through a VQGAN at once."""
    threads: int = 4
    """Threads that read and scale pictures."""

    def __post_init__(self) -> None:
        """Raises ValueError for what is no whole number, or one below 1."""
        for name in vars(self):
            keep_whole(self, name)
        for name in ("size", "high_size"):
            if getattr(self, name) > LARGEST_SIZE:
                raise ValueError(f"{name} is {getattr(self, name):,} pixels; give at most {LARGEST_SIZE:,}")


@dataclass(frozen=True)
class Networks:
    """What a cache is made with."""

    low: VQGAN
    high: VQGAN | None = None
    text_encoder: TextEncoder | None = None
    """Stores the states of every caption, so that training needs no text encoder."""
    text_name: str | None = None


@dataclass
class Rows:
    """The columns of a piece while it grows."""

    names: list[str] = field(default_factory=list)
    captions: list[list[str]] = field(default_factory=list)
    low: list[np.ndarray] = field(default_factory=list)
    high: list[np.ndarray] = field(default_factory=list)
    text: list[list[np.ndarray]] = field(default_factory=list)

    def columns(self, info: CacheInfo) -> dict[str, Any]:
        """The columns of a shard."""

        def stacked(grids: list[np.ndarray], shape: Grids) -> np.ndarray:
            return np.concatenate(grids) if grids else np.zeros((0, shape.num_positions), np.int64)

        columns: dict[str, Any] = {"name": self.names, "captions": self.captions, "low": stacked(self.low, info.low)}
        if info.high is not None:
            columns["high"] = stacked(self.high, info.high)
        if info.text_dim is not None:
            columns["text"] = self.text
        return columns


def tokenize(
    source: Source,
    name: str,
    folder: Path,
    networks: Networks,
    options: TokenizeOptions,
    index: int = 0,
    count: int = 1,
) -> Tally | None:
    """Write this process's pieces of a cache, of `count` processes; the count of all rows if the cache is whole now.
    Raises ValueError if the folder holds another cache, or files of which it was made have changed since, or the source
    has no captions."""
    info = info_of(networks, options, name)
    begin(folder, info, source)
    mine = [piece for piece in range(index, source.num_pieces, count) if not is_done(source, piece, folder)]
    clock, rows_done = time.monotonic(), 0
    for done, piece in enumerate(mine, start=1):
        tally = tokenize_piece(source, piece, folder, networks, options, info)
        rows_done += tally.rows
        rate = rows_done / (time.monotonic() - clock)
        log.info("piece %d of %d  %.1f pictures/s", done, len(mine), rate)
    return close(folder, info, source)


def info_of(networks: Networks, options: TokenizeOptions, name: str) -> CacheInfo:
    """What a cache will hold.
    Raises ValueError if a VQGAN cannot take pictures of that size."""

    def grids(vqgan: VQGAN | None, size: int) -> Grids | None:
        if vqgan is None:
            return None
        stride = vqgan.config.stride
        if size % stride:
            raise ValueError(f"size {size} is not a multiple of {stride}; try {max(size // stride, 1) * stride}")
        return Grids(vqgan.fingerprint(), size // stride, size // stride, vqgan.config.num_codes)

    low, high = grids(networks.low, options.size), grids(networks.high, options.high_size)
    assert low is not None
    if networks.high is not None and high is not None and high.height % low.height:
        step = low.height * networks.high.config.stride
        log.warning(
            "high_size %d makes %d x %d high tokens, no multiple of the %d x %d low ones: super-resolution must be "
            "trained without model.aligned on them, which most recipes set; with it, try %d",
            *(options.high_size, high.height, high.width, low.height, low.width),
            max(options.high_size // step, 1) * step,
        )
    made_of = f"{name}, {options.size} pixels" + (f" and {options.high_size} pixels" if networks.high else "")
    if (text := networks.text_encoder) is None:
        return CacheInfo(low, high, made_of=made_of)
    return CacheInfo(low, high, text.dim, networks.text_name, text.fingerprint(), made_of)


def begin(folder: Path, info: CacheInfo, source: Source) -> None:
    """Say in the folder what it will hold, or see that it is the same.
    Raises ValueError if it holds something else, or there is nothing to learn from."""
    if isinstance(source, FolderSource):
        if not source.has_captions:
            source.check_columns()
            raise ValueError(
                f"no picture of {source.folder} has a caption; write them in .txt files beside the pictures, "
                f"or in a {' or '.join(CAPTION_FILES)} with file_name and caption"
            )
        source.warn_of_captions()
    plan, path = {**info.as_json(), **source.traits(), "pieces": source.num_pieces}, folder / PLAN
    if path.is_file() and (change := change_of(plan, read_json(path))) is not None:
        raise ValueError(f"{folder} was begun as another cache ({change}); give another folder, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    other = next((each for each in folder.iterdir() if not each.name.startswith(path.stem)), None)
    if not path.is_file():  # asked after the others, as another process writes its plan before its shards
        if other is not None:
            name = told_path(other.name)
            raise ValueError(f"{folder} holds other things, {name} for one; give the tokens another folder")
        write_whole(path, json.dumps(plan) + "\n")  # other processes may be as quick


def change_of(plan: Traits, found: Mapping[str, Any]) -> str | None:
    """What is no longer as it was found, in words, if anything is. A text encoder is known by its fingerprint, where
    one was noted, and then may have another name."""
    unread = "text_encoder" if "text_fingerprint" in found else "text_fingerprint"
    for key, value in json.loads(json.dumps(plan)).items():
        then = found.get(key, "not noted")
        if key == unread or (key == "made_of" and same_source(str(then), value)):
            continue
        if then != value and key == "text_fingerprint":
            return f"the text encoder was {found['text_encoder']} and is {plan['text_encoder']}, with other weights"
        if then != value:
            return f"{key} differs" if dict in (type(then), type(value)) else f"{key} was {then} and is {value}"
    return None


def same_source(one: str, other: str) -> bool:
    """Whether two caches are made of the same path at the same sizes, however the path is written."""
    (path, _, sizes), (other_path, _, other_sizes) = one.rpartition(", "), other.rpartition(", ")
    return sizes == other_sizes and os.path.normpath(path) == os.path.normpath(other_path)


def is_done(source: Source, piece: int, folder: Path) -> bool:
    """Whether a piece has its whole shard.
    Raises ValueError if a file of which it was made has changed since."""
    path, shard = counts_path(folder, piece), folder / shard_name(piece)
    if not path.is_file():
        return False
    found = read_json(path)
    then, now = found.get(STATES, {}), source.states(piece)
    changed = next((name for name in {**then, **now} if then.get(name) != now.get(name)), None)
    if changed is not None:
        raise ValueError(
            f"{changed} has changed since {folder} was made of it; give another folder for the tokens, or delete it"
        )
    return shard.is_file() and found.get(SIZE) in (None, shard.stat().st_size)  # older ones did not note it


def tokenize_piece(
    source: Source, piece: int, folder: Path, networks: Networks, options: TokenizeOptions, info: CacheInfo
) -> Tally:
    """Write one shard, and beside it what was skipped, converted and cut."""
    tally, rows, states = Tally(), Rows(), source.states(piece)
    batch: list[tuple[Row, list[Image.Image]]] = []
    for row, pictures in prepared_rows(source.rows(piece), networks, options, tally):
        batch.append((fitting(row, networks.text_encoder, tally), pictures))
        if len(batch) == options.batch_size:
            encode(batch, networks, rows)
            batch.clear()
    if batch:
        encode(batch, networks, rows)
    write_shard(folder, piece, rows.columns(info), info)
    size = (folder / shard_name(piece)).stat().st_size
    write_whole(counts_path(folder, piece), json.dumps({**vars(tally), STATES: states, SIZE: size}) + "\n")
    return tally


def counts_path(folder: Path, piece: int) -> Path:
    """The file that says what was skipped, converted and cut, written after its shard."""
    return (folder / shard_name(piece)).with_suffix(".json")


def prepared_rows(
    rows: Iterable[Row], networks: Networks, options: TokenizeOptions, tally: Tally
) -> Iterator[tuple[Row, list[Image.Image]]]:
    """Rows with their pictures in the sizes that the VQGANs take, read ahead by threads; others are counted."""
    waiting: deque[Future[tuple[Row, list[Image.Image], frozenset[str]]]] = deque()

    def take() -> Iterator[tuple[Row, list[Image.Image]]]:
        tally.rows += 1
        try:
            row, pictures, kinds = waiting.popleft().result()
        except Unusable as error:
            tally.skipped[str(error)] += 1
            return
        tally.converted.update(kinds)
        yield row, pictures

    with ThreadPoolExecutor(options.threads) as pool:
        for row in rows:
            waiting.append(pool.submit(prepare, row, networks, options))
            if len(waiting) > 2 * options.batch_size:
                yield from take()
        while waiting:
            yield from take()


def prepare(row: Row, networks: Networks, options: TokenizeOptions) -> tuple[Row, list[Image.Image], frozenset[str]]:
    """A row's picture in each size.
    Raises Unusable if it has no caption or no picture."""
    if not row.captions:
        raise Unusable(row.flaw or NO_CAPTION)
    if row.picture is None:
        raise Unusable(NO_PICTURE)
    image, kinds = read_picture(row.picture)
    sizes = [options.size] if networks.high is None else [options.size, options.high_size]
    return row, [fit(image, size) for size in sizes], kinds


def fitting(row: Row, text_encoder: TextEncoder | None, tally: Tally) -> Row:
    """A row with captions that the text encoder, if there is one, can read; those that are cut are counted."""
    if text_encoder is None:
        return row
    captions = text_encoder.cut_to_fit(row.captions)
    tally.captions_cut += sum(one != other for one, other in zip(captions, row.captions, strict=True))
    return replace(row, captions=captions)


@torch.no_grad()
def encode(batch: list[tuple[Row, list[Image.Image]]], networks: Networks, rows: Rows) -> None:
    """Add a batch's tokens, captions and text states to the rows."""
    grids = (rows.low, rows.high)
    for i, vqgan in enumerate([networks.low, networks.high]):
        if vqgan is not None:
            pictures = to_batch([pictures[i] for _, pictures in batch])
            grids[i].append(vqgan.encode(pictures.to(next(vqgan.parameters()).device)).cpu().numpy())
    for row, _ in batch:
        rows.names.append(row.name)
        rows.captions.append(list(row.captions))
    if networks.text_encoder is not None:
        captions = [caption for row, _ in batch for caption in row.captions]
        text, is_word = (each.cpu() for each in networks.text_encoder(captions))
        states = iter(t[w].half().numpy().reshape(-1) for t, w in zip(text, is_word, strict=True))
        rows.text.extend([next(states) for _ in row.captions] for row, _ in batch)


def close(folder: Path, info: CacheInfo, source: Source) -> Tally | None:
    """Write the index if all shards are there; the count of all rows then.
    Raises ValueError if no row could be used."""
    paths = [counts_path(folder, piece) for piece in range(source.num_pieces)]
    if not all(path.is_file() for path in paths):
        return None
    tally, rows = Tally(), []
    for path in paths:
        found = read_json(path)
        counts = Tally(
            found["rows"], Counter(found["skipped"]), Counter(found["converted"]), found.get("captions_cut", 0)
        )
        rows.append(counts.used)
        tally.add(counts)
    captions, pictures = tally.skipped[NO_CAPTION], tally.skipped[NO_PICTURE]
    is_torn = isinstance(source, TarSource | TarRows) and captions > 0 and pictures > 0
    if not tally.used:
        advice = SIDE_BY_SIDE if is_torn else "see that pictures and captions are found"
        raise ValueError(f"no picture could be used ({tally.sentence()}); {advice}")
    if is_torn:
        log.warning("%d samples have no caption and %d no picture; %s", captions, pictures, SIDE_BY_SIDE)
    write_index(folder, info, rows, tally.sentence())
    return tally
