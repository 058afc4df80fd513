"""What the captions named that a model learnt from: so that whoever asks for something else can be told.
A model folder may hold it as vocabulary.json."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from muse.checkpoint import CheckpointError, read_json, write_whole

VOCABULARY = "vocabulary.json"
COMMON = frozenset(
    re.findall(
        r"\w+",
        "a about an and are as at be by for from her his in into is it its like my of on or our over some that the "
        "their these this those to under was were with your",
    )
)
"""Words that ask for nothing to be seen, whether or not captions hold them."""
COUNTS = frozenset(re.findall(r"\w+", "one two three four five six seven eight nine ten"))
OPENINGS = COUNTS | frozenset(re.findall(r"\w+", "a an and her his my our some that the their this your"))
"""Words after which a thing is named."""
JOINING = frozenset(
    re.findall(
        r"\w+",
        "above across against along among around atop behind below beneath beside between beyond inside near next off "
        "onto opposite outside past through towards underneath upon within without",
    )
)
"""Words that say how a thing stands to another one, and name none."""
BETWEEN = COMMON | COUNTS | JOINING
"""Words that are no part of what names a thing."""
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
"""Letters, and what stands between them in "o'clock"; digits too."""
Nearest = Callable[[Sequence[str]], Sequence[str]]
"""Things to a name for each."""
VOWEL = re.compile(r"(?!uni|eu|ewe|use|one\b)[aeiou]|hour|heir")


@dataclass(frozen=True)
class Vocabulary:
    """The words of some captions."""

    names: tuple[str, ...]
    """The things that they name, without an article: "red apple"."""
    words: frozenset[str] = field(repr=False)
    """Every word that they hold, in lower case."""

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
        return cls(tuple(names), frozenset(word.lower() for word in words))

    def save(self, folder: Path) -> None:
        """Write it into a model folder."""
        content = {"names": self.names, "words": sorted(self.words)}
        write_whole(folder / VOCABULARY, json.dumps(content, ensure_ascii=False, indent=0) + "\n")

    def unknown(self, text: str) -> list[str]:
        """The words of a text that were in no caption, in its order, each once, but for the most common ones."""
        return [word for word in dict.fromkeys(words_in(text)) if self.is_unknown(word)]

    def is_unknown(self, word: str) -> bool:
        """Whether a word, in lower case, was in no caption and asks for something."""
        return word not in self.words and word not in COMMON and not has_digit(word)

    def reworded(self, text: str, nearest: Nearest) -> str:
        """A text in which things are called by what captions called them.

        A thing is said by the words after an article or the like, or at the start; "a photo of" names none, nor does
        "in watercolor style". If some of its words are unknown, they are left out where the others hold a name ("a
        shabby red fox" is "a red fox"). Else the thing is called by its `nearest` name, if its last word is unknown
        ("a golden retriever" is "a dog") or in that name too ("a crimson apple" is "a red apple")."""
        things = [thing for thing in self._things(text) if any(self.is_unknown(word) for word in thing.words)]
        names = [self._known_name(thing.words) for thing in things]
        nameless = [thing for thing, name in zip(things, names, strict=True) if name is None]
        near = iter(nearest([f"a {' '.join(thing.words)}" for thing in nameless]) if nameless else ())
        parts, end = [], 0
        for thing, name in zip(things, names, strict=True):
            if name is None:
                name, last = next(near), thing.words[-1]
                if not (self.is_unknown(last) or last in name.lower().split()):
                    continue
            if thing.opening is not None:
                parts += [text[end : thing.opening.start()], suited(thing.opening.group(), name)]
                end = thing.opening.end()
            parts += [text[end : thing.start], name]
            end = thing.end
        return "".join([*parts, text[end:]])

    def _things(self, text: str) -> Iterator["Thing"]:
        """All things that a text names."""
        before: re.Match[str] | None = None
        thing: list[re.Match[str]] = []
        for word in (*WORD.finditer(text), None):
            is_part = word is not None and self._is_part(word.group().lower(), is_first=not thing)
            if word is not None and is_part and (not thing or text[thing[-1].end() : word.start()].strip(" -") == ""):
                thing.append(word)
                continue
            is_opened = before is None or before.group().lower() in OPENINGS
            is_frame = word is not None and word.group().lower() == "of"
            if thing and is_opened and not is_frame:
                words = tuple(word.group().lower() for word in thing)
                yield Thing(before, words, thing[0].start(), thing[-1].end())
            before = thing[-1] if thing and is_part else word
            thing = [word] if word is not None and is_part else []

    def _is_part(self, word: str, *, is_first: bool) -> bool:
        """Whether a word can be one of those that name a thing. "riding" says what a thing does."""
        is_verb = not is_first and word.endswith("ing") and self.is_unknown(word)
        return not (is_verb or word in BETWEEN or has_digit(word))

    def _known_name(self, words: Sequence[str]) -> str | None:
        """Those of some words that are known, if they hold a name, one or several of it."""
        known = " ".join(word for word in words if not self.is_unknown(word))
        endings = ("", "s", "es")
        holds = any(f" {name.lower()}{ending} " in f" {known} " for name in self.names for ending in endings)
        return known if holds else None


@dataclass(frozen=True)
class Thing:
    """What a part of a text names."""

    opening: re.Match[str] | None
    """The word before it; None at the start."""
    words: tuple[str, ...]
    """In lower case."""
    start: int
    end: int
    """Where it is in the text."""


def suited(opening: str, name: str) -> str:
    """An indefinite article as it goes before a name; any other word as it is."""
    if opening.lower() not in ("a", "an"):
        return opening
    return opening[0] + ("n" if VOWEL.match(name.lower()) else "")


def words_in(text: str) -> list[str]:
    """The words of a text in lower case: letters, and what stands between them in "o'clock"; nothing with a digit."""
    return [word for word in WORD.findall(text.lower()) if not has_digit(word)]


def has_digit(word: str) -> bool:
    return any(letter.isdigit() for letter in word)


def is_texts(value: Any) -> TypeGuard[list[str]]:
    """Whether a value out of a file is a list of strings, and not an empty one."""
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)
