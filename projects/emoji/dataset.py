"""The built data set, opened for reading."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

BUILD_COMMAND = "python -m projects.emoji.build"
DATA = "data"
"""The folder of the data set, in the folder of the project."""


@dataclass(frozen=True)
class Record:
    """What is known about one picture."""

    index: int
    """Row of the picture in `EmojiArt.pictures`."""
    codepoint: str
    """Lower-case hexadecimal codepoints joined by hyphens, without the variation selector FE0F."""
    concept: str
    """Unicode name in lower case."""
    group: str
    subgroup: str
    tags: tuple[str, ...]
    """Words from emojibase."""
    keywords: tuple[str, ...]
    """Words from emojilib."""
    style: str
    family: str
    licence: str
    package: str
    held_out: bool


@dataclass(frozen=True)
class EmojiArt:
    """All pictures, uint8 [N, size, size, 4] with straight alpha, and a record for each."""

    records: tuple[Record, ...]
    pictures: np.ndarray = field(repr=False)
    has_pictures: bool = True
    """False if the data set came without them, for whom token caches are enough: then all pictures are empty."""

    def __post_init__(self) -> None:
        count = len(self.records)
        if self.pictures.dtype != np.uint8 or self.pictures.ndim != 4 or self.pictures.shape[3] != 4:
            raise ValueError(
                f"pictures are {self.pictures.dtype} {self.pictures.shape}; wanted uint8 [N, size, size, 4]"
            )
        if len(self.pictures) != count:
            raise ValueError(f"{count} records but {len(self.pictures)} pictures; run `{BUILD_COMMAND}` again")

    @property
    def size(self) -> int:
        """Side of a picture in pixels."""
        return self.pictures.shape[1]

    @cached_property
    def _rows_by_concept(self) -> MappingProxyType[str, tuple[int, ...]]:
        return _group((record.concept, record.index) for record in self.records)

    @cached_property
    def _rows_by_style(self) -> MappingProxyType[str, tuple[int, ...]]:
        return _group((record.style, record.index) for record in self.records)

    @cached_property
    def concepts_by_word(self) -> MappingProxyType[str, tuple[str, ...]]:
        """Which concepts carry a word among their tags and keywords."""
        pairs = ((word, record.concept) for record in self.records for word in record.tags + record.keywords)
        return _group(dict.fromkeys(pairs))

    @property
    def concepts(self) -> tuple[str, ...]:
        return tuple(self._rows_by_concept)

    @property
    def styles(self) -> tuple[str, ...]:
        return tuple(self._rows_by_style)

    def by_concept(self, concept: str) -> tuple[int, ...]:
        """Indexes of every picture of a concept; KeyError when there is none."""
        return self._rows_by_concept[concept]

    def by_style(self, style: str) -> tuple[int, ...]:
        """Indexes of every picture in a style; KeyError when there is none."""
        return self._rows_by_style[style]

    def indexes(self, *, held_out: bool) -> tuple[int, ...]:
        """Indexes of the held-out pictures, or of all the others."""
        return tuple(record.index for record in self.records if record.held_out == held_out)


def _group(pairs: Iterable[tuple[str, Any]]) -> MappingProxyType[str, tuple[Any, ...]]:
    groups: dict[str, list[Any]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value)
    return MappingProxyType({name: tuple(values) for name, values in groups.items()})


def read_manifest(folder: Path, data: str = DATA) -> dict[str, Any]:
    """What the build wrote about itself; FileNotFoundError says how to build."""
    path = folder / data / "manifest.json"
    if not path.is_file():
        named = "" if data == DATA else f" --data {data} --size SIZE"
        raise FileNotFoundError(
            f"no finished data set in {path.parent}; run `{BUILD_COMMAND} --folder {folder}{named}`"
        )
    return json.loads(path.read_text())


def load(folder: Path = Path("runs-local/emoji"), data: str = DATA, *, needs_pictures: bool = True) -> EmojiArt:
    """Open the data set that the build left in `folder`; the pictures stay on disk until they are read. Where captions
    are to be worded only, they need not be there."""
    manifest = read_manifest(folder, data)
    with (folder / data / "records.jsonl").open() as lines:
        records = tuple(record_from_row(json.loads(line)) for line in lines)
    path = folder / data / "pictures.npy"
    if not needs_pictures and not path.is_file():
        shape = (len(records), manifest["size"], manifest["size"], 4)
        return EmojiArt(records, np.broadcast_to(np.zeros(1, np.uint8), shape), has_pictures=False)
    return EmojiArt(records, np.load(path, mmap_mode="r"))


def record_from_row(row: dict[str, Any]) -> Record:
    """One row of records.jsonl, its lists made tuples."""
    return Record(**{**row, "tags": tuple(row["tags"]), "keywords": tuple(row["keywords"])})
