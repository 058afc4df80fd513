"""As people ask: how well is drawn what the captions said, when it is said as they did not?

    python -m projects.emoji.wordings --model MODEL --out FOLDER

Each wording asks for the same scenes as the others of its kind, with the same seeds, once as it is and once in words
that captions held (`Muse.reword`). The first wording of a kind is the captions' own. No style is asked for. A thing is
right if it is R@5, two if both are, and stand so (`projects.emoji.bench`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro
from PIL import Image

from muse.evaluation.evaluate import draw_with
from muse.evaluation.intervals import Figure, wilson
from muse.evaluation.report import git_commit, markdown_table
from muse.pipeline import Muse, Size
from projects.emoji import dataset
from projects.emoji.bench import (
    HEADLINES,
    BenchOptions,
    Category,
    Draw,
    Prompt,
    draw_all,
    per_cent,
    prompts_of,
    score,
)
from projects.emoji.captions import article, spoken_name
from projects.emoji.dataset import EmojiArt
from projects.emoji.files import run_command, write_results
from projects.emoji.judge import Judge
from projects.emoji.scenes import Relation


@dataclass(frozen=True)
class Kind:
    """Wordings that ask for the same."""

    category: Category
    relation: Relation | None
    wordings: tuple[str, ...]
    """With {a} and {b} for things after an article, {n} for the first thing's name alone."""


KINDS = (
    Kind(
        "single",
        None,
        (
            "{a}",
            "{n}",
            "{n} emoji",
            "cartoon {n}",
            "minimalist {n} logo",
            "a photo of {a}",
            "an oil painting of {a}",
            "{a} in the style of van gogh",
            "please draw {a} for me",
            "{a}, watercolor style",
            "{a}, highly detailed, 8k",
        ),
    ),
    Kind(
        "pair",
        "and",
        (
            "{a} and {b}",
            "{a} next to {b}",
            "{a} beside {b}",
            "{a} near {b}",
            "{a} with {b}",
            "{a}, {b}",
            "{a} holding {b}",
        ),
    ),
    Kind(
        "position",
        "above",
        (
            "{a} above {b}",
            "{a} on top of {b}",
            "{a} sitting on {b}",
            "{a} over {b}",
            "{b} under {a}",
            "{b} beneath {a}",
        ),
    ),
    Kind(
        "position",
        "left",
        (
            "{a} to the left of {b}",
            "{a} left of {b}",
            "{a} on the left of {b}",
            "{a} on the left and {b} on the right",
            "{b} right of {a}",
        ),
    ),
)


@dataclass(frozen=True)
class Row:
    """What came of a wording."""

    wording: str
    category: Category
    num: int
    as_it_is: Figure
    reworded: Figure


def run(
    draw: Draw, reword: Callable[[str], str], judge: Judge, art: EmojiArt, num: int, seed: int = 0
) -> Iterator[Row]:
    """Draw `num` scenes in every wording, and look; what is asked for twice is drawn once."""
    for kind in KINDS:
        prompts = scenes_of(kind, art, num, seed)
        known: dict[str, tuple[bool, ...]] = {}

        def right(texts: Sequence[str], prompts: Sequence[Prompt] = prompts, known: dict = known) -> Figure:
            key = "\n".join(texts)
            if key not in known:
                images = draw_all(draw, texts, [prompt.seed for prompt in prompts])
                known[key] = are_right(prompts, images, judge, art)
            return wilson(sum(known[key]), len(prompts))

        for wording in kind.wordings:
            texts = [worded(wording, prompt, art) for prompt in prompts]
            yield Row(wording, kind.category, num, right(texts), right(list(map(reword, texts))))


def scenes_of(kind: Kind, art: EmojiArt, num: int, seed: int) -> list[Prompt]:
    """The first of a bench's seen prompts that ask for such a scene."""
    options = BenchOptions(per_category=max(2, num * (4 if kind.category == "position" else 1)), seed=seed)
    prompts = prompts_of(kind.category, "seen", art, options)
    return [prompt for prompt in prompts if kind.relation in (None, prompt.scene.relation)][:num]


def worded(wording: str, prompt: Prompt, art: EmojiArt) -> str:
    """A wording of the things of a prompt's scene."""
    names = [spoken_name(art.records[item].concept) for item in prompt.scene.items]
    return wording.format(a=article(names[0]), n=names[0], b=article(names[-1]))


def are_right(
    prompts: Sequence[Prompt], images: Sequence[Image.Image], judge: Judge, art: EmojiArt
) -> tuple[bool, ...]:
    """Whether each picture shows what was asked for."""
    return tuple(
        score(prompt.scene, prompt.category, seen, art, judge.gallery)[HEADLINES[prompt.category]]
        for prompt, seen in zip(prompts, judge.look(list(images)), strict=True)
    )


def as_markdown(rows: Sequence[Row]) -> str:
    table = [[row.wording, str(row.num), per_cent(row.as_it_is), per_cent(row.reworded)] for row in rows]
    return "\n".join(markdown_table(["wording", "n", "right as it is %", "reworded %"], table))


@dataclass(frozen=True)
class Command:
    """Draw scenes in many wordings: wordings.json and wordings.md in a folder."""

    out: Path
    """Folder for the results."""
    model: str = "emoji"
    """A model folder, a model that ships, or a hub name."""
    num: int = 50
    """Scenes of each kind."""
    seed: int = 0
    """Chooses the scenes and the seed of each picture."""
    size: Size | None = None
    """Pictures as the base draws them, or after super-resolution; as large as the model can if not given."""
    folder: Path = Path("runs-local/emoji")
    """Where the data set and the judge are."""


def main(command: Command) -> None:
    """Draw, judge, write."""
    if command.num < 1:
        raise SystemExit(f"num is {command.num}; give at least 1")
    art = dataset.load(command.folder)
    muse = Muse.from_pretrained(command.model)
    draw = draw_with(muse, muse.defaults, command.size)
    rows = list(run(draw, muse.reword, Judge.load(command.folder, art), art, command.num, command.seed))
    about: dict[str, Any] = {"model": command.model, "size": command.size, "seed": command.seed, "commit": git_commit()}
    write_results(command.out, "wordings", about | {"rows": [asdict(row) for row in rows]}, as_markdown(rows))
    print(as_markdown(rows))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
