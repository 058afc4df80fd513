"""The token cache: pictures as tokens, once, so that transformers train without pictures.

cache.json            which VQGANs made it, how large its grids are, how many rows each shard has; written last
shard-00000.arrow     columns: name, low, captions, and if asked for high, and words and text for each caption
dataset_info.json     and state.json: what `datasets.load_from_disk` wants

Shards are Arrow streams, as `datasets` keeps them. They are mapped into memory: opening a cache reads cache.json alone,
and a row costs what it weighs."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from muse.checkpoint import CheckpointError, read_json, write_whole
from muse.data.batches import TokenBatch
from muse.data.order import check_rows, digest_of, order_of, sampled, shuffled
from muse.requests import fresh_file

INDEX = "cache.json"
FORMAT = 1
OPEN_SHARDS = 256
"""Shards that are kept open at a time."""
HELD_OUT, TRAINED, WORDED = 1, 2, 3
"""Streams of random numbers: which rows are held out, their order in training, which of their captions."""


@dataclass(frozen=True)
class Grids:
    """What one VQGAN made: its fingerprint, and the shape and range of its tokens."""

    fingerprint: str
    height: int
    width: int
    num_codes: int

    @property
    def num_positions(self) -> int:
        return self.height * self.width


@dataclass(frozen=True)
class CacheInfo:
    """What a cache holds, without its rows."""

    low: Grids
    high: Grids | None = None
    text_dim: int | None = None
    """Features of the text states, if there are any."""
    text_encoder: str | None = None
    """The text encoder that gave them, by the name it had."""
    text_fingerprint: str | None = None
    made_of: str = ""
    """The source, and how pictures were fitted."""

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def of_json(cls, fields: dict[str, Any]) -> "CacheInfo":
        """Raises TypeError if the fields are others."""
        fields = {name: value for name, value in fields.items() if name not in ("format", "rows", "tally")}
        for name in ("low", "high"):
            if fields.get(name) is not None:
                fields[name] = Grids(**fields[name])
        return cls(**fields)


def shard_name(piece: int) -> str:
    """The file of a shard."""
    return f"shard-{piece:05}.arrow"


def schema_of(info: CacheInfo) -> Any:
    """The columns of a cache, as `datasets` features."""
    from datasets import Features, List, Value

    def tokens(grids: Grids) -> Any:
        kind = "uint16" if grids.num_codes <= 2**16 else "int32"
        return List(Value(kind), length=grids.num_positions)

    columns = {"name": Value("string"), "low": tokens(info.low), "captions": List(Value("string"))}
    if info.high is not None:
        columns["high"] = tokens(info.high)
    if info.text_dim is not None:
        # The states of each caption one after the other; how many words each has is their number by text_dim.
        columns["text"] = List(List(Value("float16")))
    return Features(columns)


def write_shard(folder: Path, piece: int, columns: dict[str, Any], info: CacheInfo) -> None:
    """Write the rows of a piece; the file takes its name once it is whole."""
    import pyarrow as pa

    schema = schema_of(info).arrow_schema
    arrays = [column_of(columns[field.name], field.type) for field in schema]
    with (
        fresh_file(folder / shard_name(piece)) as fresh,
        pa.OSFile(str(fresh), "wb") as file,
        pa.ipc.new_stream(file, schema) as stream,
    ):
        stream.write_batch(pa.record_batch(arrays, schema=schema))


def column_of(values: Any, kind: Any) -> Any:
    """A list of rows as an Arrow array of a kind; tokens come as one matrix."""
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        flat = pa.array(values.reshape(-1).astype(kind.value_type.to_pandas_dtype()))
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    return pa.array(values, type=kind)


def write_index(folder: Path, info: CacheInfo, rows: Sequence[int], tally: str) -> None:
    """Close a cache whose shards are all there; cache.json last."""
    from datasets import DatasetInfo

    DatasetInfo(features=schema_of(info)).write_to_directory(str(folder))
    files = [{"filename": shard_name(piece)} for piece in range(len(rows))]
    state = {"_data_files": files, "_fingerprint": info.low.fingerprint, "_split": None}
    formats = {"_format_columns": None, "_format_kwargs": {}, "_format_type": None, "_output_all_columns": False}
    index = {**info.as_json(), "rows": list(rows), "tally": tally}
    for name, content in (("state.json", {**state, **formats}), (INDEX, index)):
        write_whole(folder / name, json.dumps(content) + "\n")  # two processes may find at once that all is there


class TokenCache:
    """The rows of a cache folder, by number."""

    def __init__(self, folder: Path):
        """Raises CheckpointError if it is no whole cache, or a newer one."""
        if not (folder / INDEX).is_file():
            raise CheckpointError(f"{folder} is no whole token cache; make one with: muse tokenize SOURCE {folder}")
        fields = read_json(folder / INDEX)
        try:
            self.folder, self.info = folder, CacheInfo.of_json(fields)
            self.starts = np.concatenate([[0], np.cumsum(fields["rows"], dtype=np.int64)])
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{folder / INDEX} is damaged ({error}); tokenize again") from error
        if fields.get("format") != FORMAT:
            raise CheckpointError(f"{folder} is a cache of format {fields.get('format')}; this version reads {FORMAT}")
        self._open = functools.lru_cache(OPEN_SHARDS)(functools.partial(open_shard, folder, self.info))

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}  # a worker opens its own shards

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def check(self, fingerprint: str, high: str | None = None) -> None:
        """Raises CheckpointError if other VQGANs than these made the tokens."""
        for kind, made, wanted in (("low", self.info.low, fingerprint), ("high", self.info.high, high)):
            if wanted is not None and (made is None or made.fingerprint != wanted):
                found = f"of VQGAN {made.fingerprint}" if made else "none"
                raise CheckpointError(
                    f"the {kind} tokens of {self.folder} are {found} and this is VQGAN {wanted}; "
                    "tokenize again, or give the model whose VQGAN made them"
                )

    def row(self, index: int) -> dict[str, Any]:
        """The tokens, captions and text states of a row."""
        piece, place = self._find(index)
        return self._open(piece).row(place)

    def called(self, index: int) -> list[str]:
        """The name of a row, and its captions."""
        piece, place = self._find(index)
        return self._open(piece).called(place)

    def _find(self, index: int) -> tuple[int, int]:
        """The shard of a row, and its place there."""
        piece = int(np.searchsorted(self.starts, index, side="right")) - 1
        return piece, index - int(self.starts[piece])


class Shard:
    """One file of a cache, mapped into memory."""

    def __init__(self, table: Any, info: CacheInfo):
        self.info, self.names, self.captions = info, table["name"], table["captions"]
        self.low = matrix(table["low"], info.low)
        self.high = matrix(table["high"], info.high) if info.high is not None else None
        self.text = table["text"] if info.text_dim is not None else None

    def called(self, index: int) -> list[str]:
        return [self.names[index].as_py(), *self.captions[index].as_py()]

    def row(self, index: int) -> dict[str, Any]:
        row = {"low": self.low[index], "captions": self.captions[index].as_py()}
        if self.high is not None:
            row["high"] = self.high[index]
        if self.text is not None:
            dim = self.info.text_dim or 1
            row["text"] = [np.asarray(each.values).reshape(-1, dim) for each in self.text[index]]
        return row


def open_shard(folder: Path, info: CacheInfo, piece: int) -> Shard:
    """Raises CheckpointError if it is missing or damaged."""
    import pyarrow as pa

    path = folder / shard_name(piece)
    try:
        return Shard(pa.ipc.open_stream(pa.memory_map(str(path))).read_all(), info)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error}); tokenize again, the rest stays") from error


def matrix(column: Any, grids: Grids) -> np.ndarray:
    """A column of tokens as one matrix [rows, positions], mapped and not copied."""
    (chunk,) = column.chunks
    return chunk.flatten().to_numpy().reshape(-1, grids.num_positions)


class TokensOfStep:
    """Batches of a cache by the number of the step: each epoch takes every row once, in an order of its own.

    Of a row that has several captions one is drawn. `held_out` rows never come; they are for `held_out_batches`."""

    def __init__(self, cache: TokenCache, batch_size: int, seed: int, held_out: int = 0):
        """Raises ValueError if there are too few rows, or counts that cannot be."""
        check_rows(len(cache), batch_size, held_out, f"{cache.folder} has {len(cache)} rows")
        num = len(cache) - held_out
        self.cache, self.batch_size, self.seed, self.held_out, self.num = cache, batch_size, seed, held_out, num

    @property
    def order(self) -> dict[str, int | str]:
        """What decides which rows come in which step."""
        return order_of(len(self.cache), self.batch_size, self.held_out, self.seed, self.content)

    @functools.cached_property
    def content(self) -> str:
        """A digest of the names and captions of a few rows, which tells the cache from others with as many."""
        return digest_of(json.dumps(self.cache.called(row)).encode() for row in sampled(len(self.cache)))

    def __call__(self, step: int) -> TokenBatch:
        return self.share(step, slice(None))

    def share(self, step: int, rows: slice) -> TokenBatch:
        """Some rows of the batch of a step; the others are not read."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)[rows]
        words = np.random.default_rng((WORDED, self.seed, step)).random(self.batch_size)[rows]
        return batch_of(self.cache, self._rows(places), words)

    def _rows(self, places: Int[np.ndarray, " place"]) -> Int[np.ndarray, " place"]:
        epochs, inside = np.divmod(places, self.num)
        found = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            found[here] = shuffled(inside[here], self.num, (TRAINED, self.seed, int(epoch)))
        return shuffled(found + self.held_out, len(self.cache), (HELD_OUT,))


def held_out_batches(cache: TokenCache, num: int, batch_size: int) -> list[TokenBatch]:
    """The rows that training never sees, in batches, each with its first caption."""
    rows = shuffled(np.arange(num), len(cache), (HELD_OUT,))
    parts = [rows[start : start + batch_size] for start in range(0, num, batch_size)]
    return [batch_of(cache, part, np.zeros(len(part))) for part in parts]


def batch_of(cache: TokenCache, rows: Int[np.ndarray, " row"], words: np.ndarray) -> TokenBatch:
    """Rows of a cache; `words` says in [0, 1) which of a row's captions."""
    found = [cache.row(int(row)) for row in rows]
    picks = [int(word * len(row["captions"])) for row, word in zip(found, words, strict=True)]
    captions = [row["captions"][pick] for row, pick in zip(found, picks, strict=True)]
    text, is_word = None, None
    if cache.info.text_dim is not None:
        text, is_word = padded([row["text"][pick] for row, pick in zip(found, picks, strict=True)])
    high = tokens_of(found, "high") if cache.info.high is not None else None
    return TokenBatch(tokens_of(found, "low"), captions, high, text, is_word)


def tokens_of(rows: Sequence[dict[str, Any]], column: str) -> torch.Tensor:
    """Token grids of rows, row by row, as whole numbers that index."""
    return torch.from_numpy(np.stack([row[column] for row in rows]).astype(np.int64))


def padded(states: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """States of different length side by side, and which of them are words."""
    longest = max(len(each) for each in states)
    text = torch.zeros(len(states), longest, states[0].shape[1])
    is_word = torch.zeros(len(states), longest, dtype=torch.bool)
    for i, each in enumerate(states):
        text[i, : len(each)] = torch.from_numpy(each.astype(np.float32))
        is_word[i, : len(each)] = True
    return text, is_word
