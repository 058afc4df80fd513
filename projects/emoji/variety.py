"""How much the pictures of one prompt differ, and how many are near copies of a training picture.

    python -m projects.emoji.variety --model MODEL --out FOLDER

Variety is the mean cosine distance of the judge's features between pictures of one prompt without a style, drawn with
several seeds; beside it that between the real pictures of the same concepts in the recipe's styles. A drawing is a near
copy if it is as close to some training picture as 95% of the model's own reconstructions are to what they reconstruct.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
import tyro
from PIL import Image

from muse.evaluation.evaluate import draw_with
from muse.evaluation.intervals import Figure, mean_of, wilson
from muse.evaluation.report import git_commit, markdown_table, shown
from muse.images import contact_sheet
from muse.pipeline import Muse
from projects.emoji import dataset, recipe
from projects.emoji.bench import Draw, Redraw, draw_all, in_batches, per_cent, redraw_with
from projects.emoji.captions import article, caption, spoken_name
from projects.emoji.dataset import EmojiArt
from projects.emoji.files import run_command, write_results
from projects.emoji.judge import Features, Judge, at_judge_size
from projects.emoji.scenes import Scene, paint
from projects.emoji.train import usable

RESAMPLES = 1000
SHOWN = 50
"""Drawings that are shown beside their nearest training pictures."""
COPIES = 0.95
"""Share of the reconstructions that are closer to their originals than a near copy must be."""


@dataclass(frozen=True)
class VarietyOptions:
    """What is drawn."""

    concepts: int = 50
    """Prompts without a style, each of another concept that has a picture in every style."""
    seeds: int = 4
    """Pictures of each prompt."""
    draws: int = 200
    """Pictures of seen prompts with a style, each compared with all training pictures."""
    seed: int = 0
    """Chooses concepts and prompts."""

    def __post_init__(self) -> None:
        if min(self.concepts, self.draws) < 1 or self.seeds < 2:
            raise ValueError("variety needs at least one concept, one draw and two seeds of each prompt")


@dataclass(frozen=True)
class Report:
    """All figures, and the drawings beside what they are nearest to."""

    options: VarietyOptions
    drawn: Figure
    """Mean distance between drawings of one prompt."""
    real: Figure
    """Mean distance between the real pictures of one concept."""
    threshold: float
    """The distance below which a drawing is a near copy."""
    copies: Figure
    """Share of the drawings that are near copies of a training picture."""
    own: Figure
    """Share of the drawings whose nearest training picture is the one that the prompt names."""
    pairs: tuple[Image.Image, ...] = field(repr=False)
    """Drawings, each before its nearest training picture."""

    def as_json(self) -> dict[str, Any]:
        figures = {name: asdict(getattr(self, name)) for name in ("drawn", "real", "copies", "own")}
        return {"options": asdict(self.options), **figures, "threshold": self.threshold}

    def as_markdown(self) -> str:
        rows = [
            ["mean distance between drawings of one prompt", shown(self.drawn)],
            ["mean distance between real pictures of one concept", shown(self.real)],
            [f"near copies of a training picture (closer than {self.threshold:.3f}), %", per_cent(self.copies)],
            ["nearest training picture is the one that was asked for, %", per_cent(self.own)],
        ]
        return "\n".join(markdown_table(["what", "figure"], rows))


def run(draw: Draw, redraw: Redraw, art: EmojiArt, judge: Judge, options: VarietyOptions) -> Report:
    """Draw, look and compare."""
    rng = np.random.default_rng(options.seed)
    drawn, real = distances_within(draw, art, judge, options, rng)
    items = usable(art, held_out=False)
    scenes = [Scene("single", (item,)) for item in items]
    originals = [Image.fromarray(paint(scene, art)) for scene in scenes]
    training = F.normalize(judge.features(originals), dim=1)
    threshold = reconstruction_distance(originals, training, redraw, judge, options, rng)
    chosen = rng.choice(len(items), min(options.draws, len(items)), replace=False)
    prompts = [caption(scenes[place], art) for place in chosen]
    images = draw_all(draw, prompts, range(len(prompts)))
    similarities = F.normalize(judge.features(images), dim=1) @ training.T
    closeness, nearest = similarities.max(dim=1)
    num_copies = int((1 - closeness < threshold).sum())
    num_own = sum(int(one) == int(other) for one, other in zip(nearest, chosen, strict=True))
    beside = zip(images[:SHOWN], nearest[:SHOWN].tolist(), strict=True)
    pairs = tuple(each for image, place in beside for each in (at_judge_size(image), at_judge_size(originals[place])))
    return Report(
        options,
        mean_of(drawn, RESAMPLES, rng),
        mean_of(real, RESAMPLES, rng),
        threshold,
        wilson(num_copies, len(images)),
        wilson(num_own, len(images)),
        pairs,
    )


def distances_within(
    draw: Draw, art: EmojiArt, judge: Judge, options: VarietyOptions, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """For each concept the mean distance between drawings of it, and between the real pictures of it."""
    by_concept: dict[str, list[int]] = {}
    for item in usable(art, held_out=False):
        by_concept.setdefault(art.records[item].concept, []).append(item)
    whole = [concept for concept, items in by_concept.items() if len(items) == len(recipe.STYLES)]
    concepts = [whole[place] for place in rng.permutation(len(whole))[: options.concepts]]
    prompts = [article(spoken_name(concept)) for concept in concepts for _ in range(options.seeds)]
    drawn = judge.features(draw_all(draw, prompts, range(len(prompts))))
    scenes = [Scene("single", (item,)) for concept in concepts for item in by_concept[concept]]
    real = judge.features([Image.fromarray(paint(scene, art)) for scene in scenes])
    return mean_distances(drawn, options.seeds), mean_distances(real, len(recipe.STYLES))


def mean_distances(features: Features, group: int) -> np.ndarray:
    """The mean cosine distance between the members of each group of so many rows."""
    directions = F.normalize(features, dim=1).reshape(-1, group, features.shape[1])
    similarities = directions @ directions.transpose(1, 2)
    others = similarities.sum((1, 2)) - group
    return (1 - others / (group * (group - 1))).numpy()


def reconstruction_distance(
    originals: Sequence[Image.Image],
    training: Features,
    redraw: Redraw,
    judge: Judge,
    options: VarietyOptions,
    rng: np.random.Generator,
) -> float:
    """The distance to which COPIES of the reconstructions come to their originals."""
    places = rng.choice(len(originals), min(options.draws, len(originals)), replace=False)
    redrawn = [image for some in in_batches([originals[place] for place in places]) for image in redraw(some)]
    directions = F.normalize(judge.features(redrawn), dim=1)
    distances = 1 - (directions * training[places.tolist()]).sum(1)
    return float(np.quantile(distances.numpy(), COPIES))


@dataclass(frozen=True)
class Command:
    """Measure variety and near copies: variety.json, variety.md and nearest.png in a folder."""

    out: Path
    """Folder for the results."""
    model: str = "emoji"
    """A model folder, a model that ships, or a hub name."""
    options: tyro.conf.OmitArgPrefixes[VarietyOptions] = VarietyOptions()
    folder: Path = Path("runs-local/emoji")
    """Where the data set and the judge are."""


def main(command: Command) -> None:
    """Load, draw, compare, write."""
    art = dataset.load(command.folder)
    muse = Muse.from_pretrained(command.model)
    judge = Judge.load(command.folder, art)
    report = run(draw_with(muse, muse.defaults), redraw_with(muse), art, judge, command.options)
    about = {"model": command.model, "commit": git_commit()}
    write_results(command.out, "variety", about | report.as_json(), report.as_markdown())
    contact_sheet(list(report.pairs), columns=20).save(command.out / "nearest.png")
    print(report.as_markdown())


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
