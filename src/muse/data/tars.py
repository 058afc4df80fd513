"""The samples of webdataset tars: files that stand side by side and have one name up to the first dot.

Each is read for itself, so one that lacks what others have, or has its picture under another ending, stops nothing."""

import codecs
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

NAME = re.compile(r"((?:.*/)?(?!__)[^./]+)\.([^/]+)")
"""The key of a file's sample and its ending; those of hidden files have none."""


@dataclass(frozen=True)
class Sample:
    """Where a sample lies in its tar."""

    key: str
    start: int
    """The byte at which its first header begins."""
    places: Mapping[str, tuple[int, int]]
    """Of each ending, in small letters, the byte at which the content begins, and how many there are."""


def samples_of(file: BinaryIO) -> Iterator[Sample]:
    """The samples of a tar from where the file stands, told by headers alone; contents may be read in between.
    Raises tarfile.ReadError if it is damaged, or ends without the mark of its end."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        sample: Sample | None = None
        places: dict[str, tuple[int, int]] = {}
        for member in tar:
            found = NAME.fullmatch(member.name)
            if found is None or not member.isfile():
                continue
            key, ending = found[1], found[2].lower()
            if sample is None or key != sample.key or ending in places:
                if sample is not None:
                    yield sample
                places = {}
                sample = Sample(key, member.offset, places)
            places[ending] = member.offset_data, member.size
        file.seek(tar.offset)
        # Where a header is cut or damaged, tarfile takes it for the end.
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("the mark of its end is missing")
        if sample is not None:
            yield sample


def content_of(file: BinaryIO, place: tuple[int, int]) -> bytes:
    """The bytes at a place of a tar."""
    start, size = place
    file.seek(start)
    return file.read(size)


def text_of(content: bytes) -> str:
    """A text in UTF-16 if it begins with the mark of that, else in UTF-8, or in Windows' cp1252 if it is none."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def json_of(content: bytes) -> Any:
    """What a .json file holds.
    Raises ValueError if it is damaged."""
    try:
        return json.loads(content)
    except UnicodeDecodeError:
        return json.loads(text_of(content))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
