"""What the captions named that a model learnt from: so that whoever asks for something else can be told.
A model folder may hold it as vocabulary.json."""

import json
import re
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
        return [word for word in dict.fromkeys(words_in(text)) if word not in self.words and word not in COMMON]


def words_in(text: str) -> list[str]:
    """The words of a text in lower case: letters, and what stands between them in "o'clock"; nothing with a digit."""
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())
    return [word for word in words if not any(letter.isdigit() for letter in word)]


def is_texts(value: Any) -> TypeGuard[list[str]]:
    """Whether a value out of a file is a list of strings, and not an empty one."""
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)
