"""What people ask for, looked at before anything is drawn: prompts, seeds and numbers; and how paths are told."""

import errno
import numbers
import operator
import os
import random
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Precision = Literal["auto", "float32", "bfloat16", "int8", "float8"]
"""The arithmetic that networks draw in; auto takes bfloat16 where the machine computes in it, else float32. int8, on
processors, and float8, on GPUs, round the products of the transformers' layers."""
LARGEST_SEED = 2**63 - 1
MAKE_ROOM = "make room on the disk, or write to another"
UNIONS = (Union, UnionType)
"""What Python makes of Literal | None, and of int | None."""
MOST_TRIED = 1000
"""Seeds that are tried for one picture."""
MOST_WINDOWS = 1024
"""Windows in which one picture is drawn."""


def told_path(path: Path | str) -> str:
    """A path as text: what is no UTF-8 in a name is escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk has no room left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def told_when_full(path: Path | str) -> Iterator[None]:
    """Raises OSError that names the file, as the system's own may not, if what is written within has no room."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise OSError(f"{told_path(path)} cannot be written ({error.strerror}); {MAKE_ROOM}") from error


@contextmanager
def fresh_file(path: Path | str) -> Iterator[Path]:
    """Where to write a file that takes the name `path` once it is whole, however many processes of however many
    machines write it; if anything goes wrong, nothing is left."""
    fresh = Path(path).with_name(f".{secrets.token_hex(8)}.tmp")  # nothing else has it, and it is short enough anywhere
    try:
        with told_when_full(path):
            yield fresh
            os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def check_out(path: Path | None) -> None:
    """Raises ValueError for the - that means the standard output elsewhere: a folder of that name is nobody's wish."""
    if path is not None and str(path) == "-":
        raise ValueError("out is -, and nothing is written to the standard output; give the name of a file or a folder")


@contextmanager
def told_as_out(out: Path) -> Iterator[None]:
    """Raises ValueError if the system refuses what is done within to see whether `out` can be written."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"cannot write {told_path(out)} ({error.strerror}); give another --out") from error


def probe(folder: Path) -> None:
    """Raises OSError if no file can be written in a folder, or in the nearest above one that is to be made; makes no
    file and no folder."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    with tempfile.TemporaryFile(dir=existing):
        pass


def random_seeds(num: int) -> list[int]:
    """Seeds that nobody chose, short enough to type."""
    return [random.SystemRandom().randrange(2**31) for _ in range(num)]


# -- what kind of thing came ------------------------------------------------------------------------------------------
# What a person or a JSON file gave may be anything, hence Any; and True is an int in Python, hence the bool checks.


def as_whole(value: Any) -> int | None:
    """A whole number, of numpy too, as Python's own; None for what is none."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def whole_number(name: str, value: Any, least: int | None = 1, most: int | None = None) -> int:
    """A whole number, of numpy too, as Python's own.
    Raises ValueError for what is none, or outside its range, if there is one."""
    whole = as_whole(value)
    if whole is None or (least is not None and whole < least) or (most is not None and whole > most):
        wanted = f" of at least {least}" if most is None else f" from {least} to {most:,}"
        raise ValueError(f"{name} is {value!r}; give a whole number{'' if least is None else wanted}")
    return whole


def keep_whole(options: Any, name: str, least: int | None = 1, most: int | None = None) -> None:
    """Keep a field of a frozen dataclass as a `whole_number`.
    Raises ValueError for what is none, or outside its range."""
    object.__setattr__(options, name, whole_number(name, getattr(options, name), least, most))


def check_choices(options: Any) -> None:
    """Look at every field of a dataclass whose type names its values: a Literal or bool, one that may be None too, or a
    tuple of a Literal.
    Raises ValueError for a value that is not named."""
    kinds = get_type_hints(type(options))
    for name in (field.name for field in fields(options)):
        kind, value = kinds[name], getattr(options, name)
        is_several = get_origin(kind) is tuple
        choices = choices_of(get_args(kind)[0] if is_several else kind)
        if choices and not (is_some(value, choices) if is_several else is_one(value, choices)):
            wish = "a tuple of" if is_several else "one of"
            raise ValueError(f"{name} is {value!r}; give {wish} {', '.join(map(repr, choices))}")


def choices_of(kind: Any) -> tuple[str | bool | None, ...]:
    """The values that a type names, as a Literal and bool do; () for a type that names none, or others besides."""
    if kind is bool:
        return (True, False)
    if kind is NoneType:
        return (None,)
    if get_origin(kind) is Literal:
        return get_args(kind)
    each = [choices_of(one) for one in get_args(kind)] if get_origin(kind) in UNIONS else []
    return sum(each, ()) if all(each) else ()


def is_one(value: Any, choices: tuple[str | bool | None, ...]) -> bool:
    """Whether a value is one of some choices; 1 equals True and is no flag."""
    return isinstance(value, str | bool | None) and value in choices


def is_some(values: Any, choices: tuple[str | bool | None, ...]) -> bool:
    """Whether all values of a tuple, or of a list, are choices."""
    return isinstance(values, tuple | list) and all(is_one(value, choices) for value in values)


def is_number(value: Any) -> bool:
    """Whether this is a number, whole or not, of numpy too."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_kind(what: str, thing: Any, kind: type | UnionType, wish: str) -> None:
    """Raises ValueError for a thing of another kind."""
    if not isinstance(thing, kind):
        raise ValueError(f"{what} is of type {type(thing).__name__}; give {wish}")


def check_string(what: str, text: Any) -> None:
    """Raises ValueError for what is no text."""
    check_kind(what, text, str, "it as a string")


def check_list(name: str, things: Any) -> None:
    """Raises ValueError for what has no length, as a generator, and for a string, which is a list of its letters."""
    try:
        len(things)
    except TypeError:
        came = f"of type {type(things).__name__}"
    else:
        if not isinstance(things, str | bytes):
            return
        came = "one string"
    raise ValueError(f"{name} is {came}; give a list of {name}, even for a single one")


# -- what cannot be drawn ---------------------------------------------------------------------------------------------


def check_seeds(seeds: Any) -> list[int]:
    """The seeds of some pictures as Python's own numbers.
    Raises ValueError if they are no list, or one of them is no whole number in its range."""
    check_list("seeds", seeds)
    return [whole_number("seed", seed, 0, LARGEST_SEED) for seed in seeds]


def check_request(prompts: Sequence[str], seeds: Sequence[int] | None, negatives: Sequence[str] | None) -> list[int]:
    """The seeds of a request, random ones if it has none.
    Raises ValueError, in one sentence, for what cannot be drawn."""
    check_list("prompts", prompts)
    if len(prompts) == 0:
        raise ValueError("no prompt came; give at least one")
    seeds = random_seeds(len(prompts)) if seeds is None else check_seeds(seeds)
    if negatives is not None:
        check_list("negatives", negatives)
    wishes = {"prompt": "what the picture shows", "negative prompt": "what the picture shall not show, or leave it out"}
    for (kind, wish), texts in zip(wishes.items(), (prompts, negatives), strict=True):
        for text in () if texts is None else texts:
            check_string(f"the {kind}", text)
            if not text.strip():
                raise ValueError(f"the {kind} is empty; say in a few words {wish}")
            if any("\ud800" <= letter <= "\udfff" for letter in text):  # how Python reads broken UTF-8
                raise ValueError(f"the {kind} is not text in UTF-8; type it again")
    for kind, given in (("seeds", seeds), ("negative prompts", negatives)):
        if given is not None and len(given) != len(prompts):
            raise ValueError(f"{len(given)} {kind} came for {len(prompts)} prompts; give one for each")
    return seeds


def check_best_of(best_of: Any, seeds: Sequence[int]) -> None:
    """Raises ValueError if so many seeds cannot be tried from each of some on."""
    best_of = whole_number("best_of", best_of, 1, MOST_TRIED)
    if max(seeds) > LARGEST_SEED - best_of + 1:
        raise ValueError(f"seed is {max(seeds)} and {best_of} are tried from it on; the largest is {LARGEST_SEED}")


def check_clip(clip: str | None, best_of: int) -> None:
    """Raises ValueError if a CLIP is to choose and there is nothing to choose among."""
    if clip is not None and best_of == 1:
        raise ValueError("--clip chooses among several, and --best-of is 1; give both, or leave --clip out")


def check_guidance(guidance: float, *, has_negatives: bool) -> None:
    """Raises ValueError if there are negative prompts and no guidance, by which alone they act."""
    if has_negatives and guidance == 0:
        raise ValueError("guidance is 0, at which negative prompts do nothing; give guidance 1, or no negative prompt")


def check_strength(strength: Any) -> None:
    """Raises ValueError for what is no number in [0, 1]."""
    if not is_number(strength) or not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength!r}; give a number from 0 (nothing changes) to 1 (everything may)")
