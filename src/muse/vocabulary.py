"""What the captions said that a model learnt from: so that whoever asks for something else can be told.
A model folder may hold it as vocabulary.json."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from muse.checkpoint import CheckpointError, read_json, write_whole

VOCABULARY = "vocabulary.json"


def whole_words(text: str) -> frozenset[str]:
    """The words of a list."""
    return frozenset(text.split())


COMMON = whole_words(
    "a about an and are as at be by for from her his in into is it its like my of on or our over some that the their "
    "these this those to under was were with your"
)
"""Words that ask for nothing to be seen, whether or not captions hold them."""
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
"""Letters, and what stands between them in "o'clock"; digits too."""
PICTORIAL = re.compile("[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001f1e5\U0001f200-\U0001f3fa\U0001f400-\U0001faff]")
"""Characters that are pictures, whether or not a vocabulary has them; no letters of flags."""
ENDINGS = ("", "s", "es")
"""What one word of a name has after it where several are asked for."""


@dataclass(frozen=True)
class Style:
    """A style that captions say."""

    phrases: tuple[str, ...]
    """All that says it: "3d style", "3d render"."""
    unseen: frozenset[str] = field(repr=False)
    """Names of things that no caption said in it."""


@dataclass(frozen=True)
class Phrasing:
    """How captions are put."""

    leads: tuple[str, ...]
    """What they say before a thing, if anything: "a picture of"."""
    relations: tuple[str, ...]
    """What they say between two things: "and", "to the left of"."""
    styles: tuple[Style, ...]
    """The styles that they say."""
    bare: frozenset[str] = field(repr=False)
    """Names that have no indefinite article where one is asked for: "bread", "scissors"."""


@dataclass(frozen=True)
class Named:
    """A name among the words of a text, those from `start` until before `stop`."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Vocabulary:
    """The words of some captions."""

    names: tuple[str, ...]
    """The things that they name, without an article: "red apple"."""
    words: frozenset[str] = field(repr=False)
    """Every word that they hold, in lower case."""
    phrasing: Phrasing | None = None
    """None if it is not known."""
    characters: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False, hash=False)
    """Pictorial characters, and how captions say one and several of what each shows: "🦊" is "a fox", "foxes"."""

    @classmethod
    def from_folder(cls, folder: Path) -> "Vocabulary | None":
        """What `save` wrote, or None if there is no such file.
        Raises CheckpointError if it holds something else."""
        path = folder / VOCABULARY
        if not path.is_file():
            return None
        content = read_json(path)
        names, words = content.get("names"), content.get("words")
        if not (is_texts(names) and is_texts(words)):
            raise CheckpointError(f"{path} has no lists of names and words; get the checkpoint again")
        phrasing = content.get("phrasing")
        if not (phrasing is None or is_phrasing(phrasing)):
            raise CheckpointError(f"{path} has a damaged phrasing; get the checkpoint again")
        characters = content.get("characters", {})
        if not (isinstance(characters, dict) and all(each and is_texts(said, 2) for each, said in characters.items())):
            raise CheckpointError(f"{path} has damaged characters; get the checkpoint again")
        return cls(
            tuple(names),
            frozenset(word.lower() for word in words),
            phrasing and phrasing_of(phrasing),
            {character: (said[0], said[1]) for character, said in characters.items()},
        )

    def save(self, folder: Path) -> None:
        """Write it into a model folder."""
        content: dict[str, Any] = {"names": self.names, "words": sorted(self.words)}
        if self.phrasing is not None:
            styles = [{"phrases": style.phrases, "unseen": sorted(style.unseen)} for style in self.phrasing.styles]
            content["phrasing"] = asdict(self.phrasing) | {"styles": styles, "bare": sorted(self.phrasing.bare)}
        if self.characters:
            content["characters"] = dict(sorted(self.characters.items()))
        write_whole(folder / VOCABULARY, json.dumps(content, ensure_ascii=False, indent=0) + "\n")

    def unknown(self, text: str) -> list[str]:
        """The words of a text that were in no caption, in its order, each once, but for the most common ones."""
        return [word for word in dict.fromkeys(words_in(text)) if self.is_unknown(word)]

    def is_unknown(self, word: str) -> bool:
        """Whether a word, in lower case, was in no caption and asks for something."""
        return word not in self.words and word not in COMMON and not has_digit(word)

    @cached_property
    def _name_of(self) -> dict[tuple[str, ...], str]:
        """Names by their words."""
        return {words_of(name): name for name in self.names}

    @cached_property
    def pictorial(self) -> re.Pattern[str]:
        """Finds pictorial characters, of those of captions the longest that fits, and any others."""
        known = sorted(self.characters, key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, known), PICTORIAL.pattern]))

    @cached_property
    def last_words(self) -> frozenset[str]:
        """The last words of all names, in lower case."""
        return frozenset(words[-1] for words in self._name_of if words)

    def names_in(self, words: Sequence[str]) -> Iterator[Named]:
        """The names that some words in lower case hold, one or several of each thing; the longest from the left, so
        that none overlaps another."""
        longest, start = max(map(len, self._name_of)), 0
        while start < len(words):
            found = (self._name_at(words, start, length) for length in range(longest, 0, -1))
            named = next(filter(None, found), None)
            if named is not None:
                yield named
            start = start + 1 if named is None else named.stop

    def _name_at(self, words: Sequence[str], start: int, length: int) -> Named | None:
        """The name that so many words are, from a place on."""
        some = tuple(words[start : start + length])
        if len(some) < length:
            return None
        forms = (
            (*some[:i], some[i].removesuffix(ending), *some[i + 1 :])
            for ending in ENDINGS
            for i in reversed(range(length))
            if some[i].endswith(ending)
        )
        name = next(filter(None, map(self._name_of.get, forms)), None)
        return None if name is None else Named(name, start, start + length)


def words_in(text: str) -> list[str]:
    """The words of a text in lower case: letters, and what stands between them in "o'clock"; nothing with a digit."""
    return [word for word in words_of(text.lower()) if not has_digit(word)]


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, also those with digits."""
    return tuple(word.lower() for word in WORD.findall(text))


def has_digit(word: str) -> bool:
    return any(letter.isdigit() for letter in word)


def is_texts(value: Any, least: int = 1) -> TypeGuard[list[str]]:
    """Whether a value out of a file is a list of strings, and of how many at least."""
    return isinstance(value, list) and len(value) >= least and all(isinstance(each, str) for each in value)


def is_phrasing(value: Any) -> bool:
    """Whether a value out of a file is a phrasing."""
    if not isinstance(value, dict) or not isinstance(value.get("styles"), list):
        return False
    return all(is_texts(value.get(key), least=0) for key in ("leads", "relations", "bare")) and all(
        isinstance(style, dict) and is_texts(style.get("phrases")) and is_texts(style.get("unseen"), least=0)
        for style in value["styles"]
    )


def phrasing_of(value: Mapping[str, Any]) -> Phrasing:
    """The phrasing that a value out of a file is."""
    return Phrasing(
        leads=tuple(value["leads"]),
        relations=tuple(value["relations"]),
        styles=tuple(Style(tuple(style["phrases"]), frozenset(style["unseen"])) for style in value["styles"]),
        bare=frozenset(value["bare"]),
    )
