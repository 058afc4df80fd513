"""Pictures and captions wherever they are: a folder, tars, parquet, a data set of the hub. `datasets` reads the last
two."""

import csv
import glob
import hashlib
import io
import json
import logging
import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from textwrap import shorten
from typing import Any, BinaryIO, Protocol, TypeVar, runtime_checkable

import numpy as np

from muse.checkpoint import METRICS
from muse.data.options import SourceOptions
from muse.data.pictures import NOT_READ, SUFFIXES, clean
from muse.data.tars import Sample, content_of, json_of, samples_of, text_of
from muse.requests import told_path

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Traits = dict[str, Any]
"""What a source is known by, under names that an error can say; what would only be letters to a reader is a digest."""
PICTURE_COLUMNS = ("image", "picture", "img", "jpg", "jpeg", "png", "webp", "image_bytes")
CAPTION_COLUMNS = ("caption", "captions", "text", "txt", "prompt", "description")
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
METADATA = "metadata.jsonl"
METADATA_FILES = (METADATA, "metadata.csv")
"""Where a folder keeps captions by `file_name`: as JSON, a record a line, or as a table."""
METADATA_PARQUET = "metadata.parquet"
"""The same as columns, which pyarrow reads."""
CAPTION_FILES = (*METADATA_FILES, METADATA_PARQUET)
"""All of these."""
FILE_NAME = "file_name"
DELIMITERS = ",;\t"
"""What may stand between the columns of a table; Excel writes semicolons where commas are in numbers."""
SEPARATOR_LINE = re.compile(r"sep=.?", re.IGNORECASE)
"""A first line by which Excel tells itself what stands between them."""
FORMATS = (".tar", ".parquet")
SAVED, SAVED_TOGETHER = "state.json", "dataset_dict.json"
"""Files of the folder of a data set, and of several, that `datasets` has saved."""
ABSENT = {
    "picture_column": "columns of pictures, which are files here",
    "split": "splits, as only a data set of the hub has",
    "config": "configurations, as only a data set of the hub has",
}
"""What a source lacks for which an option would do nothing."""
PICTURE_ENDINGS = (*PICTURE_COLUMNS, *sorted(suffix.removeprefix(".") for suffix in SUFFIXES))
"""How the names of pictures in tars end."""
LOOKED_AT = 100
"""Samples of a tar that are looked at for the endings they have."""


@dataclass(frozen=True)
class Row:
    """One picture, not yet decoded, and its captions, cleaned."""

    name: str
    picture: bytes | Path | None
    captions: Sequence[str]
    flaw: str = ""
    """Why there are no captions, as it is counted, if a file that should hold them is damaged."""


@runtime_checkable
class Source(Protocol):
    """Rows in pieces that can be read in any order, each from its beginning."""

    @property
    def num_pieces(self) -> int: ...

    def rows(self, piece: int) -> Iterator[Row]: ...

    def traits(self) -> Traits:
        """What may not change while a cache is made of it: which rows there are, and how they are read."""
        ...

    def states(self, piece: int) -> Traits:
        """What may not change once a piece is done: the state of each of its files."""
        ...


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

    def indices(self, piece: int) -> range:
        """The numbers of the rows of a piece."""
        start = piece * self.rows_per_piece
        return range(start, min(start + self.rows_per_piece, len(self)))

    def rows(self, piece: int) -> Iterator[Row]:
        for index in self.indices(piece):
            yield self.row(index)


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and below it; links to other folders are followed last, and each folder comes once."""
    starts, known = [folder], set[str]()
    for start in starts:
        for place, folders, names in os.walk(start):
            if (real := os.path.realpath(place)) in known:
                folders.clear()
                continue
            known.add(real)
            folders.sort()
            starts += [path for name in folders if (path := Path(place, name)).is_symlink()]
            yield from (Path(place, name) for name in names)


def pictures_below(folder: Path) -> list[Path]:
    """The picture files in a folder and below it, as `pictures_among` has them."""
    return pictures_among(list(files_below(folder)), folder)


def pictures_among(paths: Sequence[Path], folder: Path) -> list[Path]:
    """The pictures among the files below a folder, in the order of their names. Sheets of runs that train on them are
    none of them: folders with metrics are left out, the folder itself aside."""
    runs = {path.parent for path in paths if path.name == METRICS} - {folder}
    pictures = sorted(path for path in paths if path.suffix.lower() in SUFFIXES and path.is_file())
    return [path for path in pictures if runs.isdisjoint(path.parents)] if runs else pictures


def not_read(paths: Iterable[Path], otherwise: str = "") -> str:
    """How many files are pictures of formats that are not read, and what to do about them; if none are, the advice."""
    counts = Counter(suffix for path in paths if (suffix := path.suffix.lower()) in NOT_READ)
    if not counts:
        return otherwise
    parts = [f"{num} {'file ends' if num == 1 else 'files end'} in {suffix}" for suffix, num in sorted(counts.items())]
    return f"{' and '.join(parts)}, which is not read: save them as JPEG or PNG"


class FolderSource(Pieces):
    """Picture files of a folder and the folders below it, in the order of their names, but for what runs of training
    have left in theirs.

    Captions are the lines of the .txt file beside a picture, and the captions that the folder's CAPTION_FILES have
    for its `file_name`, as `datasets`' imagefolder reads them. Names are compared as `alike` has them, and those of
    columns in letters of any size."""

    def __init__(self, folder: Path, options: SourceOptions):
        self.folder, self.options, self.rows_per_piece = folder, options, options.rows_per_piece
        files = list(files_below(folder))
        self.paths = pictures_among(files, folder)
        if not self.paths:
            advice = not_read(files, "give a folder that has")
            raise ValueError(f"{folder} has no pictures, tars or parquet files in it; {advice}")
        if passed_over := not_read(files):
            log.warning("%s has pictures that are passed over: %s", folder, passed_over)
        texts_beside = sorted(path for path in files if path.suffix.lower() == ".txt")
        self.beside = {alike(str(path.with_suffix(""))): path for path in texts_beside}
        self.metadata = [path for name in CAPTION_FILES if (path := folder / name).is_file()]
        self.told, self.columns = read_metadata(self.metadata, options.caption_column)
        if self.told and (lost := self.told.keys() - {alike(self.name(index)) for index in range(len(self))}):
            log.warning("%s names pictures that are not there (%d, %s for one)", self.told_by, len(lost), min(lost))
        if options.caption_column is not None:
            self.check_columns()

    def warn_of_captions(self) -> None:
        """Say of each file of metadata that has no captions so; there may be others elsewhere."""
        for path, columns in self.columns.items():
            try:
                choose(columns, self.options.caption_column, CAPTION_COLUMNS, "caption", str(path))
            except ValueError as error:
                log.warning("%s", error)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def told_by(self) -> str:
        """What files of metadata there are."""
        return " and ".join(map(str, self.metadata))

    def check_columns(self) -> None:
        """Raises ValueError if there is metadata of which no column is the one for captions, or a column is asked for
        and there is none: .txt files have no columns."""
        wanted, columns = self.options.caption_column, dict.fromkeys(chain.from_iterable(self.columns.values()))
        if columns:
            choose(list(columns), wanted, CAPTION_COLUMNS, "caption", self.told_by)
        elif wanted is not None:
            raise ValueError(
                f"--source.caption-column is {wanted} and {self.folder} has no columns, as only a "
                f"{' or '.join(CAPTION_FILES)} has; write one with {FILE_NAME} and {wanted}, or "
                "leave the option out and captions are those of the .txt files"
            )

    @property
    def has_captions(self) -> bool:
        return any(beside or told for beside, told in map(self.described, range(len(self))))

    def name(self, index: int) -> str:
        """A picture's path in the folder."""
        return told_path(self.paths[index].relative_to(self.folder).as_posix())

    def described(self, index: int) -> tuple[Path | None, list[str]]:
        """The .txt file beside a picture, if there is one, and what the metadata says of it."""
        stem = str(self.paths[index].with_suffix(""))
        return self.beside.get(alike(stem)), self.told.get(alike(self.name(index)), [])

    def row(self, index: int) -> Row:
        beside, told = self.described(index)
        lines = text_of(beside.read_bytes()).splitlines() if beside else []
        return Row(self.name(index), self.paths[index], clean([*lines, *told]))

    def traits(self) -> Traits:
        names = digest(map(self.name, range(len(self))))
        return {"number of pictures": len(self), **asked(self.options), "names of pictures": names}

    def states(self, piece: int) -> Traits:
        states: Traits = {}
        for index in self.indices(piece):
            name, (beside, told) = self.name(index), self.described(index)
            states[name] = state_of(self.paths[index])
            if beside:
                states[told_path(beside.relative_to(self.folder).as_posix())] = state_of(beside)
            if told:
                states[f"the caption of {name}"] = digest(told)
        return states


class TableSource(Pieces):
    """A data set of `datasets` in memory-mapped columns."""

    def __init__(self, table: Any, options: SourceOptions, name: str):
        self.columns, self.options, self.name = Columns(options, name), options, name
        self.table, self.rows_per_piece, self.fingerprint = undecoded(table), options.rows_per_piece, table._fingerprint

    def __len__(self) -> int:
        return len(self.table)

    def row(self, index: int) -> Row:
        return self.columns.row(self.table[index], str(index))

    def traits(self) -> Traits:
        return {"number of rows": len(self), **asked(self.options), "content": digest([self.fingerprint])}

    def states(self, piece: int) -> Traits:
        return {}  # the fingerprint is that of all rows


class StreamSource:
    """A data set of `datasets` that is read file by file, each file a piece."""

    def __init__(
        self, stream: Any, options: SourceOptions, name: str, files: Sequence[str] = (), revision: str | None = None
    ):
        self.columns, self.options = Columns(options, name), options
        self.stream, self.name, self.files, self.revision = stream.decode(False), name, files, revision

    @property
    def num_pieces(self) -> int:
        return self.stream.num_shards

    def rows(self, piece: int) -> Iterator[Row]:
        """Raises ValueError if the file is cut short."""
        file = self.files[piece] if self.files else f"file {piece} of {self.name}"
        for num, record in enumerate(whole(self.stream.shard(num_shards=self.num_pieces, index=piece), file)):
            yield self.columns.row(record, f"{piece}-{num}")

    def traits(self) -> Traits:
        names = digest([*self.files, str(self.revision)])
        return {"number of files": self.num_pieces, **asked(self.options), "names of files": names}

    def states(self, piece: int) -> Traits:
        return {self.files[piece]: state_of(Path(self.files[piece]))} if self.files else {}


class TarSource:
    """Webdataset tars that are read from their beginning, each a piece."""

    def __init__(self, files: Sequence[str], options: SourceOptions, name: str):
        """Raises ValueError if the first tar is damaged where it begins, or has no pictures there."""
        self.files, self.options = files, options
        looked_at = islice(whole(endings_of(files[0]), files[0]), LOOKED_AT)
        if names := list(dict.fromkeys(name for sample in looked_at for name in sample)):
            choose(names, options.picture_column, PICTURE_ENDINGS, "picture", name)
            if options.caption_column is not None:
                choose(names, options.caption_column, (), "caption", name)

    @property
    def num_pieces(self) -> int:
        return len(self.files)

    def rows(self, piece: int) -> Iterator[Row]:
        """Raises ValueError if the tar is cut short."""
        yield from whole(rows_of(self.files[piece], self.options), self.files[piece])

    def traits(self) -> Traits:
        return {"number of files": len(self.files), **asked(self.options), "names of files": digest(self.files)}

    def states(self, piece: int) -> Traits:
        return {self.files[piece]: state_of(Path(self.files[piece]))}


class TarRows(Pieces):
    """The rows of webdataset tars, found once by their headers and then read from where they lie."""

    def __init__(self, files: Sequence[str], options: SourceOptions, name: str):
        """Raises ValueError if a tar is cut short, or there are no pictures where the first begins."""
        self.tars, self.rows_per_piece = TarSource(files, options, name), options.rows_per_piece
        starts = [np.fromiter(whole(starts_of(file), file), np.int64) for file in files]
        self.starts, self.ends = np.concatenate(starts), np.cumsum([len(each) for each in starts])

    def __len__(self) -> int:
        return len(self.starts)

    def row(self, index: int) -> Row:
        """Raises ValueError if the tar is not what it was."""
        file = self.tars.files[int(np.searchsorted(self.ends, index, side="right"))]
        return next(whole(rows_of(file, self.tars.options, int(self.starts[index])), file))

    def traits(self) -> Traits:
        return {"number of rows": len(self), **self.tars.traits()}

    def states(self, piece: int) -> Traits:
        files = np.unique(np.searchsorted(self.ends, self.indices(piece), side="right"))
        return {name: state for file in files for name, state in self.tars.states(int(file)).items()}


def whole(items: Iterable[Item], file: str) -> Iterator[Item]:
    """What is read from a file, to its end.
    Raises ValueError that names the file if it cannot be."""
    reading, num = iter(items), 0
    while True:
        try:
            item = next(reading)
        except StopIteration:
            return
        except Exception as error:  # there are as many kinds as formats
            raise cut_short(file, num, error) from error
        yield item
        num += 1


def cut_short(file: str, num: int, error: Exception) -> ValueError:
    """The error of a file that cannot be read to its end."""
    reason = shorten(str(error.__cause__ or error) or type(error).__name__, 200)
    return ValueError(f"{file} is damaged or cut short after {num} rows ({reason}); get it again")


def rows_of(path: str, options: SourceOptions, start: int = 0) -> Iterator[Row]:
    """The rows of a tar from that which starts at a byte."""
    with open(path, "rb") as file:
        file.seek(start)
        for sample in samples_of(file):
            yield row_of(file, sample, options)


def starts_of(path: str) -> Iterator[int]:
    """The byte at which each row of a tar starts."""
    with open(path, "rb") as file:
        for sample in samples_of(file):
            yield sample.start


def endings_of(path: str) -> Iterator[list[str]]:
    """The endings of each sample of a tar, and the fields of its .json files."""
    with open(path, "rb") as file:
        for sample in samples_of(file):
            record, _ = told(file, sample, [ending for ending in sample.places if is_json_file(ending)])
            yield [*sample.places, *columns_in(record)]


def row_of(file: BinaryIO, sample: Sample, options: SourceOptions) -> Row:
    """A sample as a row, by the endings that it has."""
    endings = [options.picture_column.lower()] if options.picture_column else PICTURE_ENDINGS
    picture = next((content_of(file, sample.places[each]) for each in endings if each in sample.places), None)
    names = usual(options.caption_column, CAPTION_COLUMNS)
    wanted = [each for each in sample.places if any(f"{name.lower()}.".startswith(f"{each}.") for name in names)]
    record, flaw = told(file, sample, wanted)
    captions = clean(first_said(field_of(record, name) for name in names))
    return Row(sample.key, picture, captions, "" if captions else flaw)


def told(file: BinaryIO, sample: Sample, endings: Iterable[str]) -> tuple[dict[str, Any], str]:
    """Lines of texts, and .json files, of a sample by their endings, and which of them is damaged, if one is."""
    record, flaw = {}, ""
    for ending in endings:
        content = content_of(file, sample.places[ending])
        try:
            record[ending] = json_of(content) if is_json_file(ending) else text_of(content).splitlines()
        except ValueError:
            flaw = f"with a damaged .{ending}"
    return record, flaw


@dataclass
class Columns:
    """Which columns of a record are its picture and its captions; found out at the first record."""

    options: SourceOptions
    name: str

    def row(self, record: Mapping[str, Any], name: str) -> Row:
        """Raises ValueError if there is no column for pictures."""
        self._find(record)
        picture, captions = record.get(self.picture), (field_of(record, each) for each in self.captions)
        if isinstance(picture, Mapping):
            picture = picture.get("bytes") or picture.get("path")
        if isinstance(picture, str):
            picture = Path(picture)
        return Row(str(record.get("__key__", name)), picture, clean(first_said(captions)))

    def _find(self, record: Mapping[str, Any]) -> None:
        if "picture" in vars(self):
            return
        columns = [*record, *columns_in(record)]
        self.picture = choose(columns, self.options.picture_column, PICTURE_COLUMNS, "picture", self.name)
        if self.options.caption_column is not None:
            choose(columns, self.options.caption_column, (), "caption", self.name)
        names = usual(self.options.caption_column, CAPTION_COLUMNS)
        self.captions = [found for name in names if (found := called(name, columns)) is not None]


def choose(columns: Sequence[str], wanted: str | None, names: Sequence[str], kind: str, source: str) -> str:
    """The column of a kind among those of a source.
    Raises ValueError if there is none."""
    for name in usual(wanted, names):
        if (found := called(name, columns)) is not None:
            return found
    shown = ", ".join(column for column in columns if not column.startswith("__"))
    raise ValueError(
        f"{source} has the columns {shown}, and none is called {wanted or 'like a ' + kind}; "
        f"say which it is by --source.{kind}-column"
    )


def called(name: str, columns: Iterable[str]) -> str | None:
    """The column of a name, if need be in letters of another size or with spaces around it."""
    if name in columns:
        return name
    return next((each for each in columns if each.strip().lower() == name.strip().lower()), None)


def usual(wanted: str | None, names: Sequence[str]) -> Sequence[str]:
    """The names that a column may have."""
    return (wanted,) if wanted else (*names, *(f"json.{name}" for name in names))


def columns_in(record: Mapping[str, Any]) -> list[str]:
    """The fields of the records in a record."""
    return [f"{key}.{field}" for key, value in record.items() if is_json(value) for field in value]


def is_json(value: Any) -> bool:
    """Whether a field is a record of its own, and no picture."""
    return isinstance(value, Mapping) and "bytes" not in value


def is_json_file(ending: str) -> bool:
    """Whether a file of a tar is JSON."""
    return f".{ending}".endswith(".json")


def field_of(record: Mapping[str, Any], name: str) -> Any:
    """A field of a record, or of a record in it, in letters of any size."""
    if (own := called(name, record)) is not None:
        return record[own]
    inside = (
        value.get(called(name[len(key) + 1 :] if name.lower().startswith(f"{key.lower()}.") else name, value))
        for key, value in record.items()
        if is_json(value)
    )
    return next((value for value in inside if value is not None), None)


def first_said(fields: Iterable[Any]) -> list[str]:
    """The captions of the first of some fields that has any, not yet cleaned."""
    return next((found for field in fields if clean(found := texts(field))), [])


def texts(value: Any) -> list[str]:
    """A caption, or several, as a list; what is neither says nothing."""
    if isinstance(value, bytes):
        return text_of(value).splitlines()
    if isinstance(value, str):
        return [value]
    return [text for each in value for text in texts(each)] if isinstance(value, Sequence) else []


def asked(options: SourceOptions) -> Traits:
    """The options of a source, as the command line calls them."""
    return {f"--source.{name.replace('_', '-')}": value for name, value in vars(options).items()}


def alike(name: str) -> str:
    """A name as it is compared: without ./, and with letters and their accents as one, which a Mac takes apart."""
    return unicodedata.normalize("NFC", posixpath.normpath(name))


def digest(texts: Iterable[str]) -> Traits:
    """A few letters that differ where the texts do."""
    return {"sha256": hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()[:16]}


def state_of(path: Path) -> Sequence[int]:
    """How large a file is and when it was written, in seconds, as copies keep no more; nothing if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, int(found.st_mtime)]


def read_metadata(paths: Iterable[Path], column: str | None) -> tuple[dict[str, list[str]], dict[Path, list[str]]]:
    """The captions of each file of a folder, from its files of metadata, and the columns of each of these that has any.
    Raises ValueError that names the first line that cannot be read, or the columns if none is for names of files."""
    told: dict[str, list[str]] = {}
    columns: dict[Path, list[str]] = {}
    names = (column,) if column else CAPTION_COLUMNS
    for path in paths:
        known: dict[str, None] = {}
        records = parquet_records_of(path) if path.name == METADATA_PARQUET else records_of(path, FILE_NAME)
        for i, line in records:
            try:
                record = json.loads(line) if isinstance(line, str) else line
                if not isinstance(record, dict):
                    raise TypeError(f"it is a {type(record).__name__}")
                name = record[called(FILE_NAME, record) or FILE_NAME]
                found = first_said(record.get(called(each, record) or each) for each in names)
                told.setdefault(alike(str(name)), []).extend(found)
                known |= dict.fromkeys(record)
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"line {i} of {path} is no record with a {FILE_NAME} ({error}); mend or delete it"
                ) from error
        if known:
            columns[path] = list(known)
    return told, columns


def records_of(path: Path, needed: str | None = None) -> Iterator[tuple[int, str | dict[str, str]]]:
    """The records of one of METADATA_FILES, each with the number of its line; those in JSON as they are written.
    Raises ValueError for a table that cannot be read, or lacks the column that is needed."""
    text = text_of(path.read_bytes())
    if path.suffix.lower() != ".csv":
        # At "\n" only: a JSON text may hold other ends of lines, like U+2028, as they are.
        yield from ((i, line) for i, line in enumerate(text.split("\n"), start=1) if line.strip())
        return
    table = table_of(text)
    try:
        if needed is not None and table.fieldnames:
            check_column(table.fieldnames, needed, path)
        for record in table:
            yield table.line_num, {name: value for name, value in record.items() if name and value is not None}
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as a table ({error}); save it as CSV again") from error


def parquet_records_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a METADATA_PARQUET, each with its number.
    Raises ValueError if it is damaged, has no column for names of files, or cannot be read as `library` has it."""
    library()
    import pyarrow.parquet

    def records() -> Iterator[dict[str, Any]]:
        for part in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from part.to_pylist()

    for i, record in enumerate(whole(records(), str(path)), start=1):
        if i == 1:  # all have the same columns
            check_column(list(record), FILE_NAME, path)
        yield i, record


def check_column(columns: Sequence[str], needed: str, path: Path) -> None:
    """Raises ValueError if none of the columns of a file has that name."""
    if called(needed, columns) is None:
        raise ValueError(
            f"{path} has the columns {', '.join(columns)}, and none is {needed}; rename that of the pictures' names"
        )


def table_of(text: str) -> "csv.DictReader[str]":
    """The rows of a table whose columns are apart by the first of DELIMITERS between which its header has FILE_NAME, or
    else that is in its header."""
    text = text.lstrip("\r\n")
    header, _, rest = text.partition("\n")
    if SEPARATOR_LINE.fullmatch(header.strip()):
        text, (header, _, _) = rest, rest.partition("\n")
    named = (each for each in DELIMITERS if called(FILE_NAME, header.split(each)) is not None)
    found = (each for each in DELIMITERS if each in header)
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=next(named, None) or next(found, DELIMITERS[0]))


def open_source(source: str, options: SourceOptions | None = None, *, one_by_one: bool = False) -> Source:
    """The pictures of a folder; of .tar or .parquet files: one, a folder that has some, or a pattern like 'a/*.tar'; or
    of a data set of the hub ("owner/name").

    Files and the hub are streamed, or, if rows shall be read `one_by_one` in any order, brought into the cache of
    `datasets` first. Raises ValueError, in one sentence, if there is nothing to be read."""
    options, path = options or SourceOptions(), Path(source)
    if options.rows_per_piece < 1:
        raise ValueError(f"rows_per_piece is {options.rows_per_piece}; give a whole number of at least 1")
    if path.is_dir():
        if (path / SAVED).is_file():
            refuse(("split", "config"), options, source)
            return TableSource(library().load_from_disk(source), options, source)
        if (path / SAVED_TOGETHER).is_file():
            names = sorted(found.parent.name for found in path.glob(f"*/{SAVED}"))
            if not names:
                raise ValueError(f"{source} holds a {SAVED_TOGETHER} and none of its data sets; get them again")
            raise ValueError(
                f"{source} holds several data sets ({', '.join(names)}); give one of them, like {path / names[0]}"
            )
        below = [str(found) for found in files_below(path) if format_of(found)]
        files = sorted(name for name in below if format_of(name) == ".tar") or sorted(below)
        pictures = pictures_below(path) if files else []
        if not files or (pictures and files == [str(path / METADATA_PARQUET)]):
            refuse(("picture_column", "split", "config"), options, source)
            return FolderSource(path, options)
        if pictures:
            kind = format_of(files[0])
            log.warning("%s has %s files, which are read, and %d pictures, which are not", path, kind, len(pictures))
    elif path.is_file() and format_of(path):
        files = [source]
    else:
        files = sorted(filter(format_of, glob.glob(source, recursive=True)))
    if files:
        refuse(("split", "config"), options, source)
        return open_files(files, options, source, one_by_one)
    if HUB_NAME.fullmatch(source) and not path.exists():
        return open_hub(source, options, one_by_one)
    raise ValueError(f"{source} is no folder, .tar, .parquet or data set of the hub; give one of those")


def format_of(path: str | Path) -> str:
    """Which of FORMATS a file has by the ending of its name, in letters of any size; nothing if none."""
    suffix = Path(path).suffix.lower()
    return suffix if suffix in FORMATS else ""


def refuse(names: Iterable[str], options: SourceOptions, source: str) -> None:
    """Raises ValueError if one of these options is given, as each would do nothing for the source."""
    for name in names:
        if (value := getattr(options, name)) != getattr(SourceOptions, name):
            option = f"--source.{name.replace('_', '-')}"
            raise ValueError(f"{option} is {value} and {source} has no {ABSENT[name]}; leave the option out")


def open_files(files: list[str], options: SourceOptions, name: str, one_by_one: bool) -> Source:
    """Raises ValueError if the first file cannot be read at all, or no column is a picture."""
    if format_of(files[0]) == ".tar":
        return TarRows(files, options, name) if one_by_one else TarSource(files, options, name)
    load, names = library().load_dataset, [glob.escape(file) for file in files]  # which it would take for patterns
    try:
        data = load("parquet", data_files={"train": names}, split="train", streaming=not one_by_one)
    except Exception as error:  # the library's builders raise many kinds
        raise cut_short(next((file for file in files if not is_whole(file)), name), 0, error) from error
    return TableSource(data, options, name) if one_by_one else StreamSource(data, options, name, files)


def is_whole(path: str) -> bool:
    """Whether a parquet file can be read to its end."""
    import pyarrow as pa
    import pyarrow.parquet

    try:
        for _ in pyarrow.parquet.ParquetFile(path).iter_batches():
            pass
    except (OSError, pa.ArrowException):
        return False
    return True


def open_hub(name: str, options: SourceOptions, one_by_one: bool) -> Source:
    """Raises ValueError if the hub does not give it."""
    datasets = library()
    try:
        if one_by_one:
            return TableSource(datasets.load_dataset(name, options.config, split=options.split), options, name)
        builder = datasets.load_dataset_builder(name, options.config)
        stream = builder.as_streaming_dataset(split=options.split)
    except Exception as error:  # the hub's client raises many kinds, of its own and of its libraries
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"the data set {name} is no folder here and the hub did not give it ({reason})") from error
    return StreamSource(stream, options, name, revision=builder.hash)


def library() -> Any:
    """`datasets`, without its progress bars and its log, as all that it logs of errors is raised too.
    Raises ValueError if it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise ValueError("parquet and the hub need `datasets`; pip install 'muse-t2i[train]'") from error
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets


def undecoded(table: Any) -> Any:
    """A table whose pictures come as the bytes of their files."""
    from datasets import Image

    for name, feature in table.features.items():
        if isinstance(feature, Image):
            table = table.cast_column(name, Image(decode=False))
    return table
