"""Pictures and captions wherever they are: a folder, tars, parquet, a data set of the hub. `datasets` reads all but the
first."""

import glob
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from muse.data.options import SourceOptions
from muse.data.pictures import SUFFIXES, clean

PICTURE_COLUMNS = ("image", "picture", "img", "jpg", "jpeg", "png", "webp", "image_bytes")
CAPTION_COLUMNS = ("caption", "captions", "text", "txt", "prompt", "description")
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
METADATA = "metadata.jsonl"
FORMATS = {".tar": "webdataset", ".parquet": "parquet"}
CUT_SHORT = (tarfile.ReadError, EOFError, OSError)
"""What reading a file that is cut short raises."""


@dataclass(frozen=True)
class Row:
    """One picture, not yet decoded, and its captions, cleaned."""

    name: str
    picture: bytes | Path | None
    captions: Sequence[str]


@runtime_checkable
class Source(Protocol):
    """Rows in pieces that can be read in any order, each from its beginning."""

    @property
    def num_pieces(self) -> int: ...

    def rows(self, piece: int) -> Iterator[Row]: ...


@runtime_checkable
class RowSource(Source, Protocol):
    """Rows that can be read one by one, in any order."""

    def __len__(self) -> int: ...

    def row(self, index: int) -> Row: ...


class Pieces:
    """The pieces of rows that can be read one by one."""

    rows_per_piece: int

    def __len__(self) -> int:
        raise NotImplementedError

    def row(self, index: int) -> Row:
        raise NotImplementedError

    @property
    def num_pieces(self) -> int:
        return -(-len(self) // self.rows_per_piece)

    def rows(self, piece: int) -> Iterator[Row]:
        start = piece * self.rows_per_piece
        for index in range(start, min(start + self.rows_per_piece, len(self))):
            yield self.row(index)


class FolderSource(Pieces):
    """Picture files of a folder and the folders below it, in the order of their names.

    Captions are the lines of the .txt file beside a picture, and the captions that metadata.jsonl has for its
    `file_name`, as `datasets`' imagefolder reads it."""

    def __init__(self, folder: Path, options: SourceOptions):
        self.folder, self.rows_per_piece = folder, options.rows_per_piece
        self.paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        self.told = read_metadata(folder, options.caption_column)
        if not self.paths:
            raise ValueError(f"{folder} has no pictures, tars or parquet files in it; give a folder that has")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def has_captions(self) -> bool:
        return bool(self.told) or any(path.with_suffix(".txt").is_file() for path in self.paths)

    def row(self, index: int) -> Row:
        path = self.paths[index]
        name, beside = path.relative_to(self.folder).as_posix(), path.with_suffix(".txt")
        lines = beside.read_text(errors="replace").splitlines() if beside.is_file() else []
        return Row(name, path, clean([*lines, *self.told.get(name, [])]))


class TableSource(Pieces):
    """A data set of `datasets` in memory-mapped columns."""

    def __init__(self, table: Any, options: SourceOptions, name: str):
        self.columns = Columns(options, name)
        self.table, self.rows_per_piece, self.name = undecoded(table), options.rows_per_piece, name

    def __len__(self) -> int:
        return len(self.table)

    def row(self, index: int) -> Row:
        return self.columns.row(self.table[index], str(index))


class StreamSource:
    """A data set of `datasets` that is read file by file, each file a piece."""

    def __init__(self, stream: Any, options: SourceOptions, name: str, files: Sequence[str] = ()):
        self.columns = Columns(options, name)
        self.stream, self.name, self.files = stream.decode(False), name, files

    @property
    def num_pieces(self) -> int:
        return self.stream.num_shards

    def rows(self, piece: int) -> Iterator[Row]:
        """Raises ValueError if the file is cut short."""
        num = 0
        try:
            for record in self.stream.shard(num_shards=self.num_pieces, index=piece):
                yield self.columns.row(record, f"{piece}-{num}")
                num += 1
        except CUT_SHORT as error:
            file = self.files[piece] if self.files else f"file {piece} of {self.name}"
            raise ValueError(f"{file} is damaged or cut short after {num} rows ({error}); get it again") from error


@dataclass
class Columns:
    """Which columns of a record are its picture and its captions; found out at the first record."""

    options: SourceOptions
    name: str

    def row(self, record: Mapping[str, Any], name: str) -> Row:
        """Raises ValueError if there is no column for pictures."""
        self._find(record)
        picture, captions = record.get(self.picture), field_of(record, self.caption)
        if isinstance(picture, Mapping):
            picture = picture.get("bytes") or picture.get("path")
        if isinstance(picture, str):
            picture = Path(picture)
        return Row(str(record.get("__key__", name)), picture, clean(texts(captions)))

    def _find(self, record: Mapping[str, Any]) -> None:
        if "picture" in vars(self):
            return
        columns = [*record, *(f"{key}.{field}" for key, value in record.items() if is_json(value) for field in value)]
        self.picture = self._choose(columns, self.options.picture_column, PICTURE_COLUMNS, "picture")
        try:
            self.caption = self._choose(columns, self.options.caption_column, CAPTION_COLUMNS, "caption")
        except ValueError:
            if self.options.caption_column is not None:
                raise
            self.caption = None
        self.columns = columns

    def _choose(self, columns: list[str], wanted: str | None, usual: Sequence[str], kind: str) -> str:
        names = (wanted,) if wanted else (*usual, *(f"json.{name}" for name in usual))
        for name in names:
            if name in columns:
                return name
        shown = ", ".join(column for column in columns if not column.startswith("__"))
        raise ValueError(
            f"{self.name} has the columns {shown}, and none is called {wanted or 'like a ' + kind}; "
            f"say which it is by --source.{kind}-column"
        )


def is_json(value: Any) -> bool:
    """Whether a field is a record of its own, and no picture."""
    return isinstance(value, Mapping) and "bytes" not in value


def field_of(record: Mapping[str, Any], name: str | None) -> Any:
    """A field of a record, or of a record in it."""
    if name is None or name in record:
        return record.get(name) if name else None
    outer, _, inner = name.partition(".")
    return (record.get(outer) or {}).get(inner)


def texts(value: Any) -> list[str]:
    """A caption, or several, as a list."""
    if value is None:
        return []
    if isinstance(value, bytes):
        return value.decode(errors="replace").splitlines()
    if isinstance(value, str):
        return [value]
    return [text for each in value for text in texts(each)]


def read_metadata(folder: Path, column: str | None) -> dict[str, list[str]]:
    """The captions of each file of a folder, from metadata.jsonl.
    Raises ValueError that names the first line that cannot be read."""
    path, told = folder / METADATA, {}
    if not path.is_file():
        return told
    for i, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            record = json.loads(line) if line.strip() else None
            if record is not None:
                found = next(
                    (record[name] for name in ((column,) if column else CAPTION_COLUMNS) if name in record), None
                )
                told[str(record["file_name"])] = texts(found)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"line {i} of {path} is no record with a file_name ({error}); mend or delete it"
            ) from error
    return told


def open_source(source: str, options: SourceOptions | None = None, *, one_by_one: bool = False) -> Source:
    """The pictures of a folder; of .tar or .parquet files: one, a folder of them, or a pattern like 'a/*.tar'; or of a
    data set of the hub ("owner/name").

    Files and the hub are streamed, or, if rows shall be read `one_by_one` in any order, brought into the cache of
    `datasets` first. Raises ValueError, in one sentence, if there is nothing to be read."""
    options, path = options or SourceOptions(), Path(source)
    if path.is_dir():
        if (path / "state.json").is_file():
            return TableSource(library().load_from_disk(source), options, source)
        files = sorted(map(str, path.rglob("*.tar"))) or sorted(map(str, path.rglob("*.parquet")))
        if not files:
            return FolderSource(path, options)
    elif path.is_file() and path.suffix in FORMATS:
        files = [source]
    else:
        files = sorted(name for name in glob.glob(source, recursive=True) if Path(name).suffix in FORMATS)
    if files:
        return open_files(files, options, source, one_by_one)
    if HUB_NAME.fullmatch(source) and not path.exists():
        return open_hub(source, options, one_by_one)
    raise ValueError(f"{source} is no folder, .tar, .parquet or data set of the hub; give one of those")


def open_files(files: list[str], options: SourceOptions, name: str, one_by_one: bool) -> Source:
    """Raises ValueError if the first file cannot be read at all."""
    kind = FORMATS[Path(files[0]).suffix]
    try:
        data = library().load_dataset(kind, data_files={"train": files}, split="train", streaming=not one_by_one)
    except Exception as error:  # the library's builders raise many kinds
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"{name} cannot be read as {kind} ({reason}); get it again or give other files") from error
    return TableSource(data, options, name) if one_by_one else StreamSource(data, options, name, files)


def open_hub(name: str, options: SourceOptions, one_by_one: bool) -> Source:
    """Raises ValueError if the hub does not give it."""
    try:
        data = library().load_dataset(name, options.config, split=options.split, streaming=not one_by_one)
    except Exception as error:  # the hub's client raises many kinds, of its own and of its libraries
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"the data set {name} is no folder here and the hub did not give it ({reason})") from error
    return TableSource(data, options, name) if one_by_one else StreamSource(data, options, name)


def library() -> Any:
    """`datasets`, without its progress bars.
    Raises ValueError if it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise ValueError("tars, parquet and the hub need `datasets`; pip install 'muse-t2i[train]'") from error
    datasets.disable_progress_bars()
    return datasets


def undecoded(table: Any) -> Any:
    """A table whose pictures come as the bytes of their files."""
    from datasets import Image

    for name, feature in table.features.items():
        if isinstance(feature, Image):
            table = table.cast_column(name, Image(decode=False))
    return table
