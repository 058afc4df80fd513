"""Words that were in no caption: how well does a model draw what it was told of under other names alone?

    python -m projects.emoji.synonyms --model MODEL --out FOLDER

The list comes from WordNet 3.1 by rule, not by hand (`projects.emoji.vocabulary`). The first `num` of it are drawn,
each in a style in which the concept was seen, and so, with the same seed, is the concept's own name.
"""

from collections.abc import Sequence
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
from projects.emoji.bench import NEAR_ENOUGH, Draw, draw_all, per_cent, rewording
from projects.emoji.dataset import EmojiArt, Record
from projects.emoji.files import run_command, write_results
from projects.emoji.judge import Judge
from projects.emoji.train import usable
from projects.emoji.vocabulary import Synonym, find_synonyms
from projects.emoji.wordnet import WordNet


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
    reworded: bool = False
    """Draw each prompt in words that captions held, as the command line and the page do (`Muse.reword`)."""
    folder: Path = Path("runs-local/emoji")
    """Where the data set and the judge are."""


def main(command: Command) -> None:
    """Find, draw, judge, write."""
    if command.num < 1:
        raise SystemExit(f"num is {command.num}; give at least 1")
    art = dataset.load(command.folder)
    synonyms = new_words(command.folder, art)[: command.num]
    muse = Muse.from_pretrained(command.model)
    draw = draw_with(muse, muse.defaults)
    if command.reworded:
        draw = rewording(draw, muse.reword)
    report = run(draw, synonyms, Judge.load(command.folder, art))
    about = {"model": command.model, "reworded": command.reworded, "commit": git_commit()}
    write_results(command.out, "synonyms", about | report.as_json(), report.as_markdown())
    contact_sheet(list(report.images), columns=20).save(command.out / "sheet.png")
    print(report.as_markdown())


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
