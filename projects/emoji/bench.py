"""How well a model draws what prompts ask, in the categories of GenEval (arXiv:2310.11513), told by the frozen judge.

    python -m projects.emoji.bench --model MODEL --out FOLDER

| category   | prompt                                       | right if                                         |
| ---------- | -------------------------------------------- | ------------------------------------------------ |
| single     | a red fox, 3d style                          | R@1, R@5: the concept is among the 1 or 5        |
|            |                                              | nearest of all; across styles: so too without    |
|            |                                              | the prompt's own family in the gallery, so that  |
|            |                                              | no memorised silhouette helps; style: the        |
|            |                                              | nearest picture is in the prompt's style         |
| background | a red fox on a sky blue background, 3d style | the frame has the colour; and the thing is R@5   |
| count      | three red foxes, 3d style (1 to 4)           | so many segments; and half of them are R@5       |
| pair       | a red fox and a pizza, 3d style              | each concept is R@5 in a segment of its own      |
| position   | a red fox above a pizza, 3d style            | found as in a pair, and placed so                |

Held-out prompts are of held-out (concept, family) pairs for single and background, of held-out compositions for the
rest; no count below 2 is held out. Copies are counted only of art that is in one piece itself: painted canonically
it is a single segment (96% is). Beside each score stand the judge's ceiling, which is the same prompts painted with the
real art in varied sizes and places; and chance: 1 or 5 of all concepts, 1 of the styles, 1 of the backgrounds (each
is asked for equally often), else the score of the same pictures against each other's prompts. Share is score / ceiling.
"""

import json
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import tyro
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from muse.evaluation.evaluate import draw_with
from muse.evaluation.intervals import PERCENTILES, Figure, around, wilson
from muse.evaluation.metrics import FrechetReference
from muse.evaluation.report import git_commit
from muse.images import contact_sheet, to_images, to_tensor
from muse.pipeline import Muse, Size
from muse.requests import Precision
from projects.emoji import dataset
from projects.emoji.captions import BACKGROUNDS, caption
from projects.emoji.dataset import EmojiArt
from projects.emoji.files import run_command, write_atomically
from projects.emoji.judge import Gallery, Judge, Ranks, Seen, Thing, is_one_piece
from projects.emoji.scenes import (
    ATTEMPTS,
    Relation,
    Scene,
    is_held_out,
    is_sensible,
    paint,
    pick_partner,
    stands_out,
)
from projects.emoji.train import usable

Category = Literal["single", "background", "count", "pair", "position"]
Split = Literal["seen", "held-out"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
SPLITS: tuple[Split, ...] = get_args(Split)
HEADLINES: dict[Category, str] = {
    "single": "R@5",
    "background": "background",
    "count": "count",
    "pair": "both found",
    "position": "position",
}
"""The metric of each category that decides between tick and cross."""

Draw = Callable[[list[str], list[int]], list[Image.Image]]
"""Prompts and seeds to pictures."""
Redraw = Callable[[list[Image.Image]], list[Image.Image]]
"""Pictures as a VQGAN gives them back."""

PLACES: tuple[Relation, ...] = ("left", "right", "above", "below")
MOST_COUNTED = 4
NEAR_ENOUGH = 5
"""Ranks below this are found: R@5."""
BATCH = 32
SHEET_COLUMNS = 8
"""Pictures of one category and split on the contact sheet."""


@dataclass(frozen=True)
class BenchOptions:
    """Which prompts are drawn."""

    per_category: int = 150
    """Prompts of each category on seen, and as many on held-out; the first of more are the same."""
    seed: int = 0
    """Chooses the prompts and the seed of each picture."""
    only: tuple[Category, ...] = CATEGORIES
    """Categories to draw."""
    resamples: int = 1000
    """Bootstrap resamples behind the interval of a share; a tenth of them behind that of a Frechet distance."""

    def __post_init__(self) -> None:
        if self.per_category < 2 or not self.only:
            raise ValueError("a bench needs at least one category and two prompts of each; a shuffle needs two")


# -- prompts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """What is asked for, in words and as a scene."""

    category: Category
    split: Split
    scene: Scene
    text: str
    seed: int


def make_prompts(art: EmojiArt, options: BenchOptions) -> list[Prompt]:
    """The prompts of all categories, seen before held-out, with canonical captions."""
    return [
        prompt
        for category in CATEGORIES
        if category in options.only
        for split in SPLITS
        for prompt in prompts_of(category, split, art, options)
    ]


def prompts_of(category: Category, split: Split, art: EmojiArt, options: BenchOptions) -> Iterator[Prompt]:
    """Raises ValueError if the art allows no such prompt."""
    rng = np.random.default_rng((options.seed, CATEGORIES.index(category), SPLITS.index(split)))
    is_about_art = category in ("single", "background")
    pictures = usable(art, held_out=is_about_art and split == "held-out")
    deck = shuffled_for_ever(pictures, rng)
    for turn in range(options.per_category):
        proposals = (propose(category, split, turn, next(deck), pictures, art, rng) for _ in range(ATTEMPTS))
        is_wanted = is_about_art or split == "seen"
        scene = next((scene for scene in proposals if scene and is_held_out(scene, art) != is_wanted), None)
        if scene is None:
            raise ValueError(f"no {split} {category} prompt found among {len(pictures)} pictures; give more of them")
        yield Prompt(category, split, scene, caption(scene, art), int(rng.integers(2**31)))


def shuffled_for_ever(pictures: Sequence[int], rng: np.random.Generator) -> Iterator[int]:
    """Every picture once in random order, then again in another.
    Raises ValueError if there are none."""
    if not pictures:
        raise ValueError("there are no pictures to ask for; build the data set with all of the recipe's styles")
    while True:
        yield from rng.permutation(pictures).tolist()


def propose(
    category: Category,
    split: Split,
    turn: int,
    item: int,
    pictures: Sequence[int],
    art: EmojiArt,
    rng: np.random.Generator,
) -> Scene | None:
    """A scene around one picture, or None where it makes no sensible one; counts, colours and relations take turns."""
    if category == "single":
        return Scene("single", (item,))
    if category == "background":
        name = list(BACKGROUNDS)[turn % len(BACKGROUNDS)]
        is_visible = stands_out(art.pictures[item], BACKGROUNDS[name])
        return Scene("single", (item,), background=name) if is_visible else None
    if category == "count":
        fewest = 1 if split == "seen" else 2
        scene = Scene("count", (item,), count=fewest + turn % (MOST_COUNTED + 1 - fewest))
        return scene if is_sensible(scene, art) and is_one_piece(art, item) else None
    partner = pick_partner(art, item, pictures, rng)
    relation: Relation = "and" if category == "pair" else PLACES[turn % len(PLACES)]
    return None if partner is None else Scene("pair", (item, partner), relation=relation)


# -- scores of one picture ---------------------------------------------------------------------------------------------


def score(scene: Scene, category: Category, seen: Seen, art: EmojiArt, gallery: Gallery) -> dict[str, bool]:
    """Every metric of a category, for one picture."""
    record = art.records[scene.items[0]]
    places = [gallery.place_of[art.records[item].concept] for item in scene.items]
    if category == "single":
        rank, rank_across = seen.ranks[places[0]], seen.ranks_without[record.family][places[0]]
        return {
            "R@1": bool(rank < 1),
            "R@5": bool(rank < NEAR_ENOUGH),
            "R@1 across styles": bool(rank_across < 1),
            "R@5 across styles": bool(rank_across < NEAR_ENOUGH),
            "style": seen.nearest.style == record.style,
        }
    if category == "background":
        is_right = seen.background == scene.background
        is_found = any(is_near(thing.ranks, places[0]) for thing in seen.things[:1])
        return {"background": is_right, "background and concept": is_right and is_found}
    if category == "count":
        is_right = len(seen.things) == scene.count
        num_found = sum(is_near(thing.ranks, places[0]) for thing in seen.things)
        return {"count": is_right, "count and concept": is_right and 2 * num_found >= len(seen.things)}
    arrangements = [
        (first, second)
        for first in seen.things
        for second in seen.things
        if first is not second and is_near(first.ranks, places[0]) and is_near(second.ranks, places[1])
    ]
    found = {"both found": bool(arrangements)}
    if category == "pair":
        return found
    assert scene.relation is not None, "a position prompt without a relation"
    return found | {"position": any(stands(first, scene.relation, second) for first, second in arrangements)}


def is_near(ranks: Ranks, place: int) -> bool:
    return bool(ranks[place] < NEAR_ENOUGH)


def stands(first: Thing, relation: Relation, second: Thing) -> bool:
    """Whether the first thing is where it should be, seen from the second, and not rather above than beside it."""
    right, down = first.x - second.x, first.y - second.y
    is_beside = abs(right) > abs(down)
    return {
        "left": is_beside and right < 0,
        "right": is_beside and right > 0,
        "above": not is_beside and down < 0,
        "below": not is_beside and down > 0,
        "and": True,
    }[relation]


# -- figures -----------------------------------------------------------------------------------------------------------


def share_of(
    scores: Bool[np.ndarray, " prompt"],
    ceilings: Bool[np.ndarray, " prompt"],
    resamples: int,
    rng: np.random.Generator,
) -> Figure | None:
    """Score / ceiling, its interval by drawing prompts again; None where the ceiling is 0."""
    if not ceilings.any():
        return None
    drawn = rng.integers(len(scores), size=(resamples, len(scores)))
    tops = ceilings[drawn].mean(axis=1)
    shares = scores[drawn].mean(axis=1)[tops > 0] / tops[tops > 0]
    low, high = np.percentile(shares, PERCENTILES)
    return Figure(float(scores.mean() / ceilings.mean()), float(low), float(high))


@dataclass(frozen=True)
class Row:
    """One metric on one split."""

    category: Category
    split: Split
    metric: str
    num: int
    score: Figure
    ceiling: Figure
    share: Figure | None
    """Of the ceiling; None where that is 0."""
    chance: float
    chance_is: Literal["analytic", "shuffled"]
    reconstructed: Figure | None = None
    """The score of the real art once through the model's VQGAN."""


@dataclass(frozen=True)
class FrechetFigures:
    """Frechet distances on the judge's features, each of `num` pictures to the same `num_reference` real ones."""

    num: int
    num_reference: int
    drawn: Figure
    """Of the pictures drawn for seen single prompts."""
    painted: float
    """Of the real art painted for the same prompts."""
    real: float
    """Of canonical real pictures that were set aside from the reference: the floor at this size."""


def analytic_chance(metric: str, gallery: Gallery) -> float | None:
    """The rate of a drawer that does not read prompts; None where only a shuffle can tell."""
    one_of_all = 1 / len(gallery.concepts)
    return {
        "R@1": one_of_all,
        "R@5": NEAR_ENOUGH * one_of_all,
        "R@1 across styles": one_of_all,
        "R@5 across styles": NEAR_ENOUGH * one_of_all,
        "style": 1 / len({record.style for record in gallery.records}),
        "background": 1 / len(BACKGROUNDS),
    }.get(metric)


def frechet_figures(
    drawn: Float[Tensor, "picture dim"], painted: Float[Tensor, "picture dim"], gallery: Gallery, options: BenchOptions
) -> FrechetFigures:
    """Frechet distances of features, with real pictures set aside for the floor."""
    rng = np.random.default_rng(options.seed)
    order = rng.permutation(len(gallery.features))
    num = min(len(drawn), len(order) // 2)
    reference = FrechetReference.of(gallery.features[order[num:]])
    return FrechetFigures(
        num=num,
        num_reference=len(order) - num,
        drawn=frechet_interval(reference, drawn[:num], options, rng),
        painted=reference.distance(painted[:num]),
        real=reference.distance(gallery.features[order[:num]]),
    )


def frechet_interval(
    reference: FrechetReference, drawn: Float[Tensor, "picture dim"], options: BenchOptions, rng: np.random.Generator
) -> Figure:
    """Frechet distance of drawn pictures' features."""
    return around(lambda rows: reference.distance(drawn[rows]), len(drawn), frechet_resamples(options), rng)


def frechet_resamples(options: BenchOptions) -> int:
    """Resamples behind the interval of a Frechet distance."""
    return max(2, options.resamples // 10)


# -- the bench ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """One picture of the bench."""

    prompt: Prompt
    metrics: dict[str, bool]
    nearest: str
    """Concept of the real picture that is most like it."""
    image: Image.Image = field(repr=False)


@dataclass(frozen=True)
class Report:
    """All figures of one run."""

    options: BenchOptions
    rows: tuple[Row, ...]
    judge_frechet: FrechetFigures | None
    """None if no single prompts were drawn."""
    results: tuple[Result, ...] = field(repr=False)
    seconds: float
    """Drawing alone."""

    def row(self, category: Category, metric: str, split: Split) -> Row:
        """One row; KeyError if there is none."""
        for row in self.rows:
            if (row.category, row.metric, row.split) == (category, metric, split):
                return row
        raise KeyError((category, metric, split))

    def as_json(self) -> dict[str, Any]:
        """Everything but the pictures."""
        return {
            "options": asdict(self.options),
            "seconds": round(self.seconds, 2),
            "rows": [asdict(row) for row in self.rows],
            "judge_frechet": self.judge_frechet and asdict(self.judge_frechet),
            "pictures": [
                {"prompt": result.prompt.text, "seed": result.prompt.seed, "nearest": result.nearest, **result.metrics}
                for result in self.results
            ],
        }


class Bench:
    """The prompts of some options, and what the judge sees on the real art painted for them.
    Any number of drawers can be run on it."""

    def __init__(self, art: EmojiArt, judge: Judge, options: BenchOptions, redraw: Redraw | None = None):
        self.art, self.judge, self.options = art, judge, options
        self.prompts = make_prompts(art, options)
        painted = [
            Image.fromarray(paint(prompt.scene, art, np.random.default_rng(prompt.seed))) for prompt in self.prompts
        ]
        self.painted = self.look(painted, "ceiling")
        self.redrawn: list[Seen] | None = None
        if redraw:
            self.redrawn = self.look([image for some in in_batches(painted) for image in redraw(some)], "VQGAN")

    def run(self, draw: Draw) -> Report:
        """Draw every prompt, look and score."""
        start = time.perf_counter()
        images = draw_all(draw, [prompt.text for prompt in self.prompts], [prompt.seed for prompt in self.prompts])
        seconds = time.perf_counter() - start
        seen = self.look(images, "judging")
        metrics = self.scores(seen)
        return Report(
            options=self.options,
            rows=tuple(self.rows(seen)),
            judge_frechet=self.frechet(seen),
            results=tuple(
                Result(prompt, scores, one.nearest.concept, image)
                for prompt, scores, one, image in zip(self.prompts, metrics, seen, images, strict=True)
            ),
            seconds=seconds,
        )

    def look(self, images: Sequence[Image.Image], what: str) -> list[Seen]:
        """What the judge sees on each image."""
        batches = tqdm(in_batches(images), desc=what, total=-(-len(images) // BATCH), unit="batch")
        return [seen for some in batches for seen in self.judge.look(some)]

    def scores(self, seen: Sequence[Seen], asked: Sequence[Prompt] | None = None) -> list[dict[str, bool]]:
        """Every metric of each picture, against its own prompt or another."""
        return [
            score(prompt.scene, prompt.category, one, self.art, self.judge.gallery)
            for prompt, one in zip(asked or self.prompts, seen, strict=True)
        ]

    def rows(self, seen: Sequence[Seen]) -> Iterator[Row]:
        """The table."""
        rng = np.random.default_rng(self.options.seed)
        drawn, painted = self.scores(seen), self.scores(self.painted)
        redrawn = self.scores(self.redrawn) if self.redrawn else None
        shuffled = self.scores(seen, self.each_others_prompts(rng))
        for (category, split), places in self.groups():
            for metric in drawn[places[0]]:
                right, top, other = (np.array([some[i][metric] for i in places]) for some in (drawn, painted, shuffled))
                chance = analytic_chance(metric, self.judge.gallery)
                yield Row(
                    category=category,
                    split=split,
                    metric=metric,
                    num=len(places),
                    score=wilson(int(right.sum()), len(places)),
                    ceiling=wilson(int(top.sum()), len(places)),
                    share=share_of(right, top, self.options.resamples, rng),
                    chance=float(other.mean()) if chance is None else chance,
                    chance_is="shuffled" if chance is None else "analytic",
                    reconstructed=wilson(sum(redrawn[i][metric] for i in places), len(places)) if redrawn else None,
                )

    def groups(self) -> Iterator[tuple[tuple[Category, Split], list[int]]]:
        """Where the prompts of each category and split stand."""
        for key, group in groupby(range(len(self.prompts)), key=lambda i: cell_of(self.prompts[i])):
            yield key, list(group)

    def each_others_prompts(self, rng: np.random.Generator) -> list[Prompt]:
        """For each prompt another of its category and split."""
        others = list(self.prompts)
        for _, places in self.groups():
            circle = rng.permutation(places)
            for place, other in zip(circle, np.roll(circle, 1), strict=True):
                others[place] = self.prompts[other]
        return others

    def frechet(self, seen: Sequence[Seen]) -> FrechetFigures | None:
        """None if no single prompts were drawn."""
        places = dict(self.groups()).get(("single", "seen"))
        if places is None:
            return None
        drawn, painted = (torch.stack([some[i].features for i in places]) for some in (seen, self.painted))
        return frechet_figures(drawn, painted, self.judge.gallery, self.options)


def cell_of(prompt: Prompt) -> tuple[Category, Split]:
    return prompt.category, prompt.split


def in_batches(things: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(things), BATCH):
        yield list(things[start : start + BATCH])


def draw_all(draw: Draw, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
    """Pictures of prompts, a batch at a time."""
    images: list[Image.Image] = []
    with tqdm(total=len(prompts), unit="picture", desc="drawing") as bar:
        for some in in_batches(list(zip(prompts, seeds, strict=True))):
            images += draw([text for text, _ in some], [seed for _, seed in some])
            bar.update(len(some))
    return images


def rewording(draw: Draw, reword: Callable[[str], str]) -> Draw:
    """Draw prompts in other words."""
    return lambda prompts, seeds: draw([reword(prompt) for prompt in prompts], seeds)


def run_bench(
    draw: Draw, art: EmojiArt, judge: Judge, options: BenchOptions | None = None, redraw: Redraw | None = None
) -> Report:
    """Draw every prompt, look and score."""
    return Bench(art, judge, options or BenchOptions(), redraw).run(draw)


# -- what a person reads -----------------------------------------------------------------------------------------------


def as_markdown(report: Report) -> str:
    """The table; rates in per cent with their 95% intervals."""
    has_vqgan = any(row.reconstructed for row in report.rows)
    heads = ["category", "split", "metric", "n", "score %", "ceiling %", "share of ceiling %", "chance %"]
    lines = [heads + ["through VQGAN %"] * has_vqgan]
    lines.append(["---"] * len(lines[0]))
    for row in report.rows:
        cells = [row.category, row.split, row.metric, str(row.num), *map(per_cent, (row.score, row.ceiling, row.share))]
        cells.append(f"{100 * row.chance:.1f} ({row.chance_is})")
        lines.append(cells + [per_cent(row.reconstructed)] * has_vqgan)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return table + (f"\n\n{frechet_sentence(report.judge_frechet)}" if report.judge_frechet else "")


def per_cent(figure: Figure | None) -> str:
    return f"{100 * figure.value:.1f} ({100 * figure.low:.1f}–{100 * figure.high:.1f})" if figure else "-"


def frechet_sentence(figures: FrechetFigures) -> str:
    drawn = figures.drawn
    return (
        f"judge_frechet {drawn.value:.1f} ({drawn.low:.1f}–{drawn.high:.1f}) for {figures.num} seen single pictures "
        f"against {figures.num_reference} real ones; the real art painted for the same prompts has "
        f"{figures.painted:.1f}, {figures.num} other real pictures {figures.real:.1f}"
    )


def sheet_of(report: Report) -> Image.Image:
    """The first pictures of each category and split, with captions and what the judge took each for."""
    groups = groupby(report.results, key=lambda result: cell_of(result.prompt))
    num = min(SHEET_COLUMNS, report.options.per_category)
    return contact_sheet([tile(result) for _, group in groups for result in list(group)[:num]], columns=num)


def tile(result: Result, side: int = 128, text_height: int = 58) -> Image.Image:
    """A picture over its caption, and a tick or a cross."""
    image = Image.new("RGB", (side, side + text_height), "white")
    image.paste(result.image.resize((side, side)))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, side - 1, side - 1), outline="lightgrey")
    is_right = result.metrics[HEADLINES[result.prompt.category]]
    corner = side - 14
    tick = ((0, 6), (4, 10), (11, 0))
    strokes = (tick,) if is_right else (((0, 0), (11, 11)), ((0, 11), (11, 0)))
    pen.rectangle((corner - 3, 0, side - 1, 17), fill="white", outline="lightgrey")
    for stroke in strokes:
        pen.line([(corner + x, 3 + y) for x, y in stroke], fill="green" if is_right else "red", width=3)
    pen.text((2, side + 2), "\n".join(textwrap.wrap(result.prompt.text, 23)[:4]), fill="black", font_size=10, spacing=2)
    return image


def write(report: Report, folder: Path, about: dict[str, Any]) -> None:
    """bench.json, with what is said about the run, and sheet.png."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "bench.json", json.dumps(about | report.as_json(), indent=1) + "\n")
    sheet_of(report).save(folder / "sheet.png")


def summary(report: Report) -> dict[str, Any]:
    """Score and share of each headline, and the Frechet distance."""
    figures: dict[str, Any] = {}
    for row in report.rows:
        if row.metric == HEADLINES[row.category]:
            name = f"{row.category} {row.split}"
            figures[name] = round(row.score.value, 4)
            figures[f"{name} share"] = row.share and round(row.share.value, 4)
    figures["judge_frechet"] = report.judge_frechet and round(report.judge_frechet.drawn.value, 2)
    return figures


# -- from the shell ----------------------------------------------------------------------------------------------------


def redraw_with(muse: Muse) -> Redraw:
    """A model's VQGAN, there and back, at the size for which its tokens are."""

    @torch.no_grad()
    def redraw(images: list[Image.Image]) -> list[Image.Image]:
        enlarged = [image.resize(muse.low_size, Image.Resampling.BICUBIC) for image in images]
        pictures = torch.stack([to_tensor(image) for image in enlarged]).to(muse.device)
        return to_images(muse.vqgan.reconstruct(pictures))

    return redraw


@dataclass(frozen=True)
class Command:
    """Bench a model: a table on the screen, and bench.json and sheet.png in a folder."""

    model: str
    """A model folder, a model that ships, or a hub name."""
    out: Path
    """Folder for the results."""
    bench: tyro.conf.OmitArgPrefixes[BenchOptions] = BenchOptions()
    steps: int | None = None
    """Decoding steps; the model's own default if not given."""
    guidance: float | None = None
    """Guidance scale; the model's own default if not given."""
    size: Size | None = None
    """Pictures as the base draws them, or after super-resolution; as large as the model can if not given."""
    precision: Precision = "auto"
    """Arithmetic of the networks that draw."""
    reworded: bool = False
    """Draw each prompt in words that captions held, as the command line and the page do (`Muse.reword`)."""
    best_of: int = 1
    """Draw the best of so many seeds, as the model itself has it (`Muse.choose`)."""
    reconstruct: bool = False
    """Also score the real art once through the model's VQGAN."""
    folder: Path = Path("runs-local/emoji")
    """Where the data set and the judge are."""


def main(command: Command) -> None:
    """Load, draw, judge, write."""
    art = dataset.load(command.folder)
    judge = Judge.load(command.folder, art)
    muse = Muse.from_pretrained(command.model, precision=command.precision)
    given = {"steps": command.steps, "guidance": command.guidance}
    sampling = replace(muse.defaults, **{name: value for name, value in given.items() if value is not None})
    redraw = redraw_with(muse) if command.reconstruct else None
    draw = draw_with(muse, sampling, command.size, command.best_of)
    if command.reworded:
        draw = rewording(draw, muse.reword)
    report = run_bench(draw, art, judge, command.bench, redraw)
    about = {
        "model": command.model,
        "name": muse.name,
        "precision": muse.precision,
        "commit": git_commit(),
        "sampling": asdict(sampling),
    }
    about |= {"reworded": command.reworded, "best_of": command.best_of}
    about |= {"size": command.size or ("low" if muse.superres is None else "high")}
    write(report, command.out, about)
    print(as_markdown(report))
    print(f"\nPictures: {command.out / 'sheet.png'}; all figures: {command.out / 'bench.json'}\n")
    speed = {"num": len(report.results), "seconds": round(report.seconds, 2)}
    print(json.dumps(about | speed | summary(report)))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
