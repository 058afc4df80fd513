"""How well a model edits art that it was not trained on, told by the frozen judge.

    python -m projects.emoji.edit_bench --model MODEL --out FOLDER

Every picture is a held-out (concept, family) pair painted on white, varied in size and place.

| edit       | what is done                                           | right if                                       |
| ---------- | ------------------------------------------------------ | ---------------------------------------------- |
| background | all but the thing is filled, on a red background       | the frame has the colour; the thing is R@5     |
| box        | a box around the thing is filled with another concept  | the new concept is R@5; outside nothing moves  |
| outpaint   | the picture is widened to both sides by half its width | inside nothing moves                           |
| mask-free  | the whole picture is turned into another concept       | the new concept is R@5, after 10, 25 ... 100   |
|            |                                                        | iterations; beside it how far it has come      |

The asked concept of box and mask-free is one of the same style that was in training. "Before" is the same metric of the
picture before its edit, and chance that of the edited pictures against each other's wishes. Distance is the mean
absolute difference of pixels, in [0, 1].
"""

import json
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import tyro
from jaxtyping import Bool
from PIL import Image, ImageDraw
from tqdm import tqdm

from muse.canvas import Box, Margins, bounds
from muse.editing import Progress
from muse.images import contact_sheet
from muse.pipeline import Muse
from muse.sampling import EditOptions
from projects.emoji import dataset
from projects.emoji.bench import NEAR_ENOUGH, Figure, git_commit, is_near, per_cent, shuffled_for_ever, wilson
from projects.emoji.captions import BACKGROUNDS, caption
from projects.emoji.dataset import EmojiArt
from projects.emoji.files import run_command, write_atomically
from projects.emoji.judge import Judge, Seen
from projects.emoji.scenes import ATTEMPTS, Scene, paint, pick_partner, stands_out
from projects.emoji.train import usable

Kind = Literal["background", "box", "outpaint", "mask-free"]
KINDS: tuple[Kind, ...] = get_args(Kind)
GROWN = 2
"""Pixels by which a box is larger than the thing in it, at each side."""
SOLID = 40
"""A pixel is the thing's if it differs by no more on black and on white, of 255."""
TILE = 128
SHEET_ROWS = 8

Hole = Image.Image | Box


@dataclass(frozen=True)
class Editor:
    """What is benched: three ways to edit one picture by a prompt and a seed."""

    inpaint: Callable[[Image.Image, Hole, str, int], Image.Image]
    outpaint: Callable[[Image.Image, Margins, str, int], Image.Image]
    edit: Callable[[Image.Image, str, int, Sequence[int]], dict[int, Image.Image]]
    """Also told after how many iterations it shall show the picture."""


@dataclass(frozen=True)
class EditBenchOptions:
    """Which edits are made."""

    per_edit: int = 40
    """Pictures of each kind; the first of more are the same."""
    seed: int = 0
    """Chooses the pictures, the wishes and the seed of each edit."""
    only: tuple[Kind, ...] = KINDS
    """Kinds to make."""
    at: tuple[int, ...] = (10, 25, 50, 75, 100)
    """Iterations of mask-free editing after which the judge looks."""

    def __post_init__(self) -> None:
        if self.per_edit < 2 or not self.only or not self.at:
            raise ValueError("an edit bench needs at least one kind, two pictures of each and one number of iterations")


# -- what is wished ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One edit: what there is, and what it shall become."""

    kind: Kind
    before: Scene
    after: Scene
    text: str
    seed: int


def make_jobs(art: EmojiArt, options: EditBenchOptions) -> list[Job]:
    """The edits of all kinds, with the canonical caption of what each picture shall become."""
    return [job for kind in KINDS if kind in options.only for job in jobs_of(kind, art, options)]


def jobs_of(kind: Kind, art: EmojiArt, options: EditBenchOptions) -> Iterator[Job]:
    """Raises ValueError if the art allows no such edit."""
    rng = np.random.default_rng((options.seed, KINDS.index(kind)))
    deck = shuffled_for_ever(usable(art, held_out=True), rng)
    others = usable(art, held_out=False)
    for turn in range(options.per_edit):
        tries = (
            (item, wish_for(kind, turn, item, others, art, rng)) for item, _ in zip(deck, range(ATTEMPTS), strict=False)
        )
        item, after = next(((item, wish) for item, wish in tries if wish is not None), (0, None))
        if after is None:
            raise ValueError(f"no {kind} edit found; give more pictures")
        yield Job(kind, Scene("single", (item,)), after, caption(after, art), int(rng.integers(2**31)))


def wish_for(
    kind: Kind, turn: int, item: int, others: Sequence[int], art: EmojiArt, rng: np.random.Generator
) -> Scene | None:
    """What a picture of an item shall become, or None where it makes no sensible wish."""
    if kind in ("background", "outpaint"):
        names = [name for name in BACKGROUNDS if name != "white"]
        name = names[turn % len(names)] if kind == "background" else None
        is_visible = name is None or stands_out(art.pictures[item], BACKGROUNDS[name])
        return Scene("single", (item,), background=name) if is_visible else None
    partner = pick_partner(art, item, others, rng)
    return None if partner is None else Scene("single", (partner,))


def painted(job: Job, art: EmojiArt, background: str | None = None) -> Image.Image:
    """The picture before its edit, on white or another background."""
    scene = Scene("single", job.before.items, background=background)
    return Image.fromarray(paint(scene, art, np.random.default_rng(job.seed)))


def solid(job: Job, art: EmojiArt) -> Bool[np.ndarray, "height width"]:
    """Where the thing is: what looks the same on white and on black."""
    white, black = (np.asarray(painted(job, art, name)).astype(int) for name in ("white", "black"))
    return np.abs(white - black).max(axis=-1) <= SOLID


def hole_of(job: Job, art: EmojiArt) -> Hole:
    """All but the thing for a background, else a box around it."""
    is_thing = solid(job, art)
    if job.kind == "background":
        return Image.fromarray(~is_thing)
    box = bounds(is_thing)
    x, y = max(box.x - GROWN, 0), max(box.y - GROWN, 0)
    right, bottom = min(box.right + GROWN, is_thing.shape[1]), min(box.bottom + GROWN, is_thing.shape[0])
    return Box(x, y, right - x, bottom - y)


# -- what is made of it ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """The picture before an edit, and after it or, without a mask, after each number of iterations."""

    job: Job
    before: Image.Image = field(repr=False)
    after: dict[int, Image.Image] = field(repr=False)
    is_exact: bool | None
    """Whether no pixel changed that should not; None where all may."""

    @property
    def last(self) -> Image.Image:
        return self.after[max(self.after)]


def carry_out(job: Job, art: EmojiArt, editor: Editor, at: Sequence[int]) -> Result:
    """Make one edit."""
    before = painted(job, art)
    if job.kind == "mask-free":
        return Result(job, before, editor.edit(before, job.text, job.seed, at), None)
    if job.kind == "outpaint":
        half = before.width // 2
        after = editor.outpaint(before, Margins(left=half, right=half), job.text, job.seed)
        inner = after.crop((half, 0, half + before.width, before.height))
        return Result(job, before, {0: after}, inner.tobytes() == before.tobytes())
    hole = hole_of(job, art)
    after = editor.inpaint(before, hole, job.text, job.seed)
    may_change = np.zeros(before.size[::-1], bool)
    if isinstance(hole, Box):
        may_change[hole.inside(before.size)] = True
    else:
        may_change = np.asarray(hole)
    differs = (np.asarray(before) != np.asarray(after)).any(axis=-1)
    return Result(job, before, {0: after}, not differs[~may_change].any())


# -- what the judge says -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One metric of one kind of edit."""

    kind: Kind
    metric: str
    num: int
    score: Figure
    before: Figure | None
    chance: float | None
    """Of the edited pictures against each other's wishes; None where a wish plays no part."""


@dataclass(frozen=True)
class Point:
    """Mask-free editing after some iterations; 0 is the picture before."""

    iterations: int
    old: Figure
    """How often the concept that it was is still R@5."""
    new: Figure
    """How often the concept that was asked for is R@5."""
    distance: float
    """Mean absolute difference of pixels from the picture before, in [0, 1]."""


@dataclass(frozen=True)
class EditReport:
    """All figures of one run."""

    options: EditBenchOptions
    rows: tuple[Row, ...]
    curve: tuple[Point, ...]
    seconds: float
    """Editing alone."""
    results: tuple[Result, ...] = field(repr=False)

    def row(self, kind: Kind, metric: str) -> Row:
        """One row; KeyError if there is none."""
        for row in self.rows:
            if (row.kind, row.metric) == (kind, metric):
                return row
        raise KeyError((kind, metric))

    def as_json(self) -> dict[str, Any]:
        """Everything but the pictures."""
        return {
            "options": asdict(self.options),
            "seconds": round(self.seconds, 2),
            "rows": [asdict(row) for row in self.rows],
            "curve": [asdict(point) for point in self.curve],
        }


def run_edit_bench(editor: Editor, art: EmojiArt, judge: Judge, options: EditBenchOptions) -> EditReport:
    """Make every edit, look and score."""
    start = time.perf_counter()
    jobs = make_jobs(art, options)
    results = [carry_out(job, art, editor, options.at) for job in tqdm(jobs, unit="edit", desc="editing")]
    seconds = time.perf_counter() - start
    rows = [row for kind in options.only for row in rows_of(kind, of_kind(kind, results), art, judge)]
    curve = curve_of(of_kind("mask-free", results), art, judge)
    return EditReport(options, tuple(rows), tuple(curve), seconds, tuple(results))


def of_kind(kind: Kind, results: Sequence[Result]) -> list[Result]:
    return [result for result in results if result.job.kind == kind]


def rows_of(kind: Kind, results: Sequence[Result], art: EmojiArt, judge: Judge) -> Iterator[Row]:
    """The table of one kind."""
    if kind != "outpaint":  # the judge looks at squares
        yield from judged_rows(kind, results, art, judge)
    if kind != "mask-free":
        exact = wilson(sum(bool(result.is_exact) for result in results), len(results))
        yield Row(kind, "elsewhere exactly equal", len(results), exact, None, None)


def judged_rows(kind: Kind, results: Sequence[Result], art: EmojiArt, judge: Judge) -> Iterator[Row]:
    """What the judge says of one kind."""
    before, after = judge.look([each.before for each in results]), judge.look([each.last for each in results])
    wishes = [result.job.after for result in results]
    num = len(results)

    def row(metric: str, is_right: Callable[[Seen, Scene], bool]) -> Row:
        def rate(seen: Sequence[Seen], wished: Sequence[Scene]) -> Figure:
            return wilson(sum(map(is_right, seen, wished)), num)

        others = rate(after, [*wishes[1:], wishes[0]])
        return Row(kind, metric, num, rate(after, wishes), rate(before, wishes), others.value)

    def is_found(seen: Seen, wish: Scene) -> bool:
        return found(seen, wish, art, judge)

    def has_colour(seen: Seen, wish: Scene) -> bool:
        return seen.background == wish.background

    if kind == "background":
        yield row("colour reached", has_colour)
        yield row("object kept, R@5", is_found)
        yield row("both", lambda seen, wish: has_colour(seen, wish) and is_found(seen, wish))
    else:
        yield row("new concept, R@5", is_found)


def found(seen: Seen, scene: Scene, art: EmojiArt, judge: Judge) -> bool:
    """Whether the scene's concept is among the NEAR_ENOUGH nearest to the largest thing that is seen."""
    place = judge.gallery.place_of[art.records[scene.items[0]].concept]
    return any(is_near(thing.ranks, place) for thing in seen.things[:1])


def curve_of(results: Sequence[Result], art: EmojiArt, judge: Judge) -> Iterator[Point]:
    """From the old concept to the new, by the number of iterations."""
    if not results:
        return
    for num in (0, *sorted(results[0].after)):
        images = [result.after[num] if num else result.before for result in results]
        seen = judge.look(images)
        pairs = list(zip(seen, results, strict=True))
        distances = [difference(image, result.before) for image, result in zip(images, results, strict=True)]
        yield Point(
            iterations=num,
            old=wilson(sum(found(each, result.job.before, art, judge) for each, result in pairs), len(pairs)),
            new=wilson(sum(found(each, result.job.after, art, judge) for each, result in pairs), len(pairs)),
            distance=float(np.mean(distances)),
        )


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of two pictures of one size, in [0, 1]."""
    return float(np.abs(np.asarray(one).astype(int) - np.asarray(other)).mean() / 255)


# -- what a person reads -----------------------------------------------------------------------------------------------


def as_markdown(report: EditReport) -> str:
    """Both tables; rates in per cent with their 95% intervals."""
    lines = [["edit", "metric", "n", "score %", "before %", "chance %"], ["---"] * 6]
    for row in report.rows:
        chance = "-" if row.chance is None else f"{100 * row.chance:.1f}"
        lines.append([row.kind, row.metric, str(row.num), per_cent(row.score), per_cent(row.before), chance])
    text = table(lines)
    if report.curve:
        lines = [
            ["iterations", f"old concept R@{NEAR_ENOUGH} %", f"new concept R@{NEAR_ENOUGH} %", "distance"],
            ["---"] * 4,
        ]
        lines += [[str(p.iterations), per_cent(p.old), per_cent(p.new), f"{p.distance:.3f}"] for p in report.curve]
        text += f"\n\nMask-free editing:\n\n{table(lines)}"
    return text


def table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plot(curve: Sequence[Point], path: Path) -> None:
    """Rates of the old and of the new concept over iterations, and the distance beside them."""
    from matplotlib.figure import Figure as Drawing

    figure = Drawing(figsize=(9, 3.4), layout="constrained")
    rates, distances = figure.subplots(1, 2)
    iterations = [point.iterations for point in curve]
    for name, figures in (("old", [p.old for p in curve]), ("new", [p.new for p in curve])):
        rates.plot(iterations, [100 * each.value for each in figures], marker="o", label=f"{name} concept")
        low, high = ([100 * getattr(each, end) for each in figures] for end in ("low", "high"))
        rates.fill_between(iterations, low, high, alpha=0.2)
    rates.set(xlabel="iterations", ylabel=f"R@{NEAR_ENOUGH}, %", ylim=(-3, 103))
    rates.legend()
    distances.plot(iterations, [point.distance for point in curve], marker="o", color="C2")
    distances.set(xlabel="iterations", ylabel="distance from the original", ylim=(0, None))
    figure.savefig(path, dpi=110)


def sheet_of(kind: Kind, results: Sequence[Result], art: EmojiArt) -> Image.Image:
    """The first edits, a row each: before, with its hole, and after, over what was asked."""
    rows = [row_of_sheet(result, art) for result in of_kind(kind, results)[:SHEET_ROWS]]
    return contact_sheet([tile for row in rows for tile in row], columns=len(rows[0]))


def row_of_sheet(result: Result, art: EmojiArt) -> list[Image.Image]:
    """The pictures of one edit."""
    width = 2 * TILE if result.job.kind == "outpaint" else TILE
    concept = art.records[result.job.before.items[0]].concept
    tiles = [tile_of(result.before, concept, width)]
    if result.job.kind in ("background", "box"):
        tiles.append(tile_of(with_hole(result.before, hole_of(result.job, art)), "what is filled", width))
    for num, image in sorted(result.after.items()):
        text = result.job.text if num in (0, max(result.after)) else f"after {num}"
        tiles.append(tile_of(image, text, width))
    return tiles


def with_hole(image: Image.Image, hole: Hole) -> Image.Image:
    """A picture, grey where it is filled."""
    result = image.copy()
    if isinstance(hole, Box):
        result.paste("grey", (hole.x, hole.y, hole.right, hole.bottom))
    else:
        result.paste("grey", mask=hole.convert("L"))
    return result


def tile_of(image: Image.Image, text: str, width: int, text_height: int = 44) -> Image.Image:
    """A picture over a caption of at most three lines, as wide as its neighbours."""
    tile = Image.new("RGB", (width, TILE + text_height), "white")
    scaled = image.resize((round(image.width * TILE / image.height), TILE), Image.Resampling.LANCZOS)
    tile.paste(scaled, ((width - scaled.width) // 2, 0))
    pen = ImageDraw.Draw(tile)
    pen.text((2, TILE + 2), "\n".join(textwrap.wrap(text, width // 6)[:3]), fill="black", font_size=10, spacing=2)
    return tile


def write(report: EditReport, art: EmojiArt, folder: Path, about: dict[str, Any]) -> None:
    """edit-bench.json with what is said about the run, a sheet of each kind and the curve."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "edit-bench.json", json.dumps(about | report.as_json(), indent=1) + "\n")
    for kind in report.options.only:
        sheet_of(kind, report.results, art).save(folder / f"sheet-{kind}.png")
    if report.curve:
        plot(report.curve, folder / "mask-free-curve.png")


# -- from the shell ----------------------------------------------------------------------------------------------------


def editor_of(muse: Muse, guidance: float, refresh: int) -> Editor:
    """A model as an editor, with these options of mask-free editing."""

    def edit(image: Image.Image, prompt: str, seed: int, at: Sequence[int]) -> dict[int, Image.Image]:
        # An iteration does not depend on how many there will be: stopping at 50 is what 100 pass through.
        shown: dict[int, Image.Image] = {}

        def watch(progress: Progress) -> None:
            if progress.done in at:
                (shown[progress.done],) = progress.show()

        options = EditOptions(iterations=max(at), guidance=guidance, refresh=refresh)
        (last,) = muse.edit(image, prompt, [seed], options=options, callback=watch)
        return shown | {max(at): last}

    return Editor(
        inpaint=lambda image, hole, prompt, seed: muse.inpaint(image, hole, prompt, [seed])[0],
        outpaint=lambda image, margins, prompt, seed: muse.outpaint(image, margins, prompt, [seed])[0],
        edit=edit,
    )


@dataclass(frozen=True)
class Command:
    """Bench the edits of a model: tables on the screen; edit-bench.json, sheets and a curve in a folder."""

    model: str
    """A model folder, a model that ships, or a hub name."""
    out: Path
    """Folder for the results."""
    bench: tyro.conf.OmitArgPrefixes[EditBenchOptions] = EditBenchOptions()
    guidance: float = 4.0
    """Guidance of mask-free editing; the others have the model's own options."""
    refresh: int = EditOptions.refresh
    """Of mask-free editing: iterations from one that computes every position to the next."""
    folder: Path = Path("runs-local/emoji")
    """Where the data set and the judge are."""


def main(command: Command) -> None:
    """Load, edit, judge, write."""
    art = dataset.load(command.folder)
    judge = Judge.load(command.folder, art)
    muse = Muse.from_pretrained(command.model)
    report = run_edit_bench(editor_of(muse, command.guidance, command.refresh), art, judge, command.bench)
    options = {"guidance": command.guidance, "refresh": command.refresh}
    about = {"model": command.model, "name": muse.name, "commit": git_commit(), **options}
    write(report, art, command.out, about)
    print(as_markdown(report))
    print(f"\nPictures and figures: {command.out}\n")
    figures = {f"{row.kind} {row.metric}": round(row.score.value, 4) for row in report.rows}
    print(json.dumps(about | {"num": len(report.results), "seconds": round(report.seconds, 2)} | figures))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
