"""Prompts and real pictures, as they lie on disk."""

import csv
import hashlib
import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from muse.data.options import SourceOptions
from muse.data.pictures import DATA_FORMATS, SUFFIXES
from muse.data.sources import METADATA_FILES, FolderSource, files_below, not_read, pictures_below, records_of
from muse.images import orientation, to_rgb
from muse.models.text_encoder import TextEncoder
from muse.requests import LARGEST_SEED, check_request

PROMPT_FILES = (
    *("prompts.jsonl", "prompts.tsv", "prompts.txt", "captions_val2014.json"),
    *("PartiPrompts.tsv", "evaluation_metadata.jsonl"),
)
"""Where a folder keeps its prompts; the first that is there counts."""
SEED_BITS = 20
"""Pictures of one seed have seeds of their own that differ in so many bits."""
READING = 2
"""Counts up when the same file would be read as another picture; what was made of the one before is made again."""
ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF's orientations that swap width and height."""
OF_ITS_SHAPE = (KeyError, TypeError, AttributeError, RecursionError)
"""Errors of JSON that holds something else than it should, or too much of it."""
UTF_8 = "utf-8-sig"
"""With a byte order mark or without."""
BEGINNING = 60
"""Letters by which a prompt is named."""
PROMPT_KEYS = ("prompt", "caption", "text")
GROUP_KEYS = ("group", "category", "tag")
REFERENCE = "reference"
"""The folder of real pictures beside the prompts; without it, they lie beside the prompts themselves."""


@dataclass(frozen=True)
class Prompt:
    """What a picture shall show, and the group that it is counted in."""

    text: str
    group: str = ""
    line: int | None = field(default=None, compare=False)
    """Where it stands in its file, if that has lines."""


@dataclass(frozen=True)
class Request:
    """One picture to draw."""

    prompt: Prompt
    seed: int


# -- prompts -----------------------------------------------------------------------------------------------------------


def read_prompts(source: Path) -> list[Prompt]:
    """The prompts of a file (.txt, .jsonl, .tsv, .csv, or COCO's captions as .json) or of a folder.

    A folder has one of PROMPT_FILES, or pictures with captions as training reads them.
    Raises ValueError or OSError, in one sentence, if there are none or they cannot be read."""
    if source.is_dir():
        found = [source / name for name in PROMPT_FILES if (source / name).is_file()]
        prompts = read_prompts(found[0]) if found else read_captions(source)
        if prompts:
            return prompts
        files = ", ".join((*METADATA_FILES, *PROMPT_FILES))
        raise ValueError(f"{source} has no captions; put one of {files} in it, or a .txt a picture")
    if not source.exists():
        raise FileNotFoundError(f"there is no {source}; give a file of prompts or a folder")
    readers = {".txt": read_lines, ".jsonl": read_jsonl, ".tsv": read_tsv, ".csv": read_csv, ".json": read_coco}
    suffix = source.suffix.lower()
    if suffix not in readers:
        raise ValueError(f"{source} holds no prompts; give a folder or a file ending in {', '.join(readers)}")
    try:
        prompts = [prompt for prompt in readers[suffix](source) if prompt.text]
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error, *OF_ITS_SHAPE) as error:
        raise ValueError(f"{source} cannot be read as prompts ({type(error).__name__}: {error})") from error
    if not prompts:
        raise ValueError(f"{source} has no prompts; write one on each line")
    return prompts


def lines_of(path: Path) -> list[str]:
    """The lines of a text file, by line feeds alone: a prompt may hold any other character. A byte order mark goes."""
    return path.read_text(encoding=UTF_8).split("\n")


def read_lines(path: Path) -> Iterator[Prompt]:
    for num, line in enumerate(lines_of(path), start=1):
        yield Prompt(line.strip(), line=num)


def read_jsonl(path: Path) -> Iterator[Prompt]:
    for num, line in enumerate(lines_of(path), start=1):
        if line.strip():
            yield prompt_of(json.loads(line), path, num)


def read_tsv(path: Path) -> Iterator[Prompt]:
    """By the names in the first row; if it names no prompt, it is one itself, and prompts come first in each row."""
    with path.open(encoding=UTF_8, newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    heads = [head.strip().lower() for head in rows[0]] if rows else []
    if not set(heads) & set(PROMPT_KEYS):
        yield from (Prompt(row[0].strip(), line=num) for num, row in enumerate(rows, start=1) if row)
        return
    for num, row in enumerate(rows[1:], start=2):
        yield prompt_of(dict(zip(heads, row, strict=False)), path, num)


def read_csv(path: Path) -> Iterator[Prompt]:
    """By the names in the first row, as training reads tables."""
    for num, record in records_of(path):
        assert isinstance(record, dict), "a table has rows of fields"
        yield prompt_of({head.strip().lower(): field for head, field in record.items()}, path, num)


def read_coco(path: Path) -> Iterator[Prompt]:
    for annotation in json.loads(path.read_text(encoding=UTF_8))["annotations"]:
        yield Prompt(annotation["caption"].strip())


def read_captions(folder: Path) -> list[Prompt]:
    """The first caption of each picture that has any, in the order of the pictures' names, of all that training reads;
    those of METADATA_FILES without pictures are prompts as in any other file."""
    if not pictures_below(folder):
        found = [path for name in METADATA_FILES if (path := folder / name).is_file()]
        return [prompt for path in found for prompt in read_prompts(path)]
    source = FolderSource(folder, SourceOptions())
    source.warn_of_captions()
    rows = map(source.row, range(len(source)))
    return [Prompt(row.captions[0]) for row in rows if row.captions]


def prompt_of(row: Any, path: Path, line: int) -> Prompt:
    """Raises ValueError if a row names no prompt."""
    if not isinstance(row, dict):
        raise ValueError(f"a row of {path} is a {type(row).__name__}; wanted an object with a prompt")
    text = next((row[key] for key in PROMPT_KEYS if key in row), None)
    if isinstance(text, list):  # a picture's several captions, of which training draws one
        text = next((each for each in text if isinstance(each, str) and each.strip()), None)
    if text is None:
        raise ValueError(f"a row of {path} has no {' or '.join(PROMPT_KEYS)}, only {', '.join(row) or 'nothing'}")
    group = str(next((row[key] for key in GROUP_KEYS if key in row), ""))
    return Prompt(str(text).strip(), group.strip(), line)


def check_prompts(prompts: Iterable[Prompt], text_encoder: TextEncoder) -> None:
    """Raises ValueError, which names the prompt, for one that cannot be read to draw it."""
    for prompt in dict.fromkeys(prompts):
        try:
            check_request([prompt.text], [0], None)
            if text_encoder.is_too_long(prompt.text):
                text_encoder.sub_words([prompt.text])
        except ValueError as error:
            place = "" if prompt.line is None else f"line {prompt.line}, "
            raise ValueError(f"{place}{textwrap.shorten(prompt.text, BEGINNING)!r}: {error}") from error


def requests_for(prompts: Sequence[Prompt], num: int | None, per_prompt: int, seed: int) -> list[Request]:
    """Which pictures to draw: every prompt `per_prompt` times, or `num` pictures of prompts in random order, each
    prompt once before any comes again. Picture i has the seed 2^20 * seed + i, and so no two have the same.
    Raises ValueError for a seed outside its range."""
    if not 0 <= seed <= LARGEST_SEED >> SEED_BITS:
        raise ValueError(f"seed is {seed}; give a whole number from 0 to {LARGEST_SEED >> SEED_BITS}")
    if num is None:
        chosen = [i for i in range(len(prompts)) for _ in range(per_prompt)]
    else:
        rounds = -(-num // len(prompts))
        rng = np.random.default_rng(seed)
        chosen = np.concatenate([rng.permutation(len(prompts)) for _ in range(rounds)])[:num].tolist()
    return [Request(prompts[i], (seed << SEED_BITS) + place) for place, i in enumerate(chosen)]


# -- pictures ----------------------------------------------------------------------------------------------------------


def pictures_in(folder: Path, but: Path | None = None) -> list[Path]:
    """All pictures below a folder, by name, but for those of another folder in it."""
    found = pictures_below(folder)
    if but is None or not but.resolve().is_relative_to(folder.resolve()):
        return found
    return [path for path in found if not path.resolve().is_relative_to(but.resolve())]


def reference_folder(data: Path) -> Path:
    """Where the real pictures of a data folder are.
    Raises ValueError for a file, which has none."""
    if not data.is_dir():
        raise ValueError(f"{data} has prompts and no pictures to compare with; give a folder of them as --reference")
    return data / REFERENCE if (data / REFERENCE).is_dir() else data


@dataclass(frozen=True)
class PictureSet:
    """Pictures on disk, opened when they are looked at."""

    paths: tuple[Path, ...] = field(repr=False)
    resize: int | None = None
    """Side to which each is cropped in its middle and resized; as they are if None."""

    @classmethod
    def of_folder(cls, folder: Path, resize: int | None = None, but: Path | None = None) -> "PictureSet":
        """All pictures below a folder, but for those of another folder in it, such as what an evaluation draws.
        Raises ValueError if there are no pictures, or OSError if there is no folder."""
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder} of real pictures; give one that is there")
        if not (paths := pictures_in(folder, but)):
            advice = not_read(files_below(folder), "put the real ones there")
            raise ValueError(f"{folder} has no pictures ({', '.join(sorted(SUFFIXES))}); {advice}")
        return cls(tuple(paths), resize)

    def __len__(self) -> int:
        return len(self.paths)

    def size(self) -> tuple[int, int]:
        """Width and height of all pictures.
        Raises ValueError if they differ and are not resized, or one is no picture."""
        if self.resize is not None:
            return self.resize, self.resize
        first = size_of(self.paths[0])
        for path in self.paths:
            if (size := size_of(path)) != first:
                raise ValueError(
                    f"pictures have several sizes: {self.paths[0].name} {shown(first)}, {path.name} {shown(size)}; "
                    "give --resize to crop and resize them all"
                )
        return first

    def read(self, places: Iterable[int]) -> list[Image.Image]:
        """Some of the pictures, as `to_rgb` has them.
        Raises ValueError, which names the file, if one is damaged."""
        return [read_picture(self.paths[place], self.resize) for place in places]

    def batches(self, size: int) -> Iterator[list[Image.Image]]:
        for start in range(0, len(self), size):
            yield self.read(range(start, min(start + size, len(self))))

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what is in the files and how they are read and resized."""
        digest = hashlib.sha256(repr((READING, self.resize)).encode())
        for path in self.paths:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture on disk, of which as much is read as one asks for.
    Raises ValueError, which names the file, if it is no picture, not whole or cannot be shown."""
    try:
        with Image.open(path, formats=DATA_FORMATS) as image:
            yield image
    except (FileNotFoundError, PermissionError):
        raise
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no picture; take it away") from error
    except (OSError, SyntaxError, RuntimeError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no whole picture ({error}); get it again or take it away") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a picture that is turned upright.
    Raises ValueError if it is no picture."""
    with opened(path) as image:
        width, height = image.size
        # Some PNGs are to be read to their end for it, and turning a square changes nothing.
        is_turned = width != height and orientation(image) in ON_ITS_SIDE
        return (height, width) if is_turned else (width, height)


def read_picture(path: Path, resize: int | None = None) -> Image.Image:
    """A picture as `to_rgb` has it: upright, laid on white, of 8 bits.
    Raises ValueError if the file is no whole picture."""
    with opened(path) as image:
        picture = to_rgb(image)
    return picture if resize is None else crop(picture, resize)


def crop(image: Image.Image, side: int) -> Image.Image:
    """The largest square in the middle, at another size by antialiased Lanczos."""
    return image if image.size == (side, side) else ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)


def shown(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
