"""The bench at many settings of the sampler, from which the defaults are chosen.

    python -m projects.emoji.sweep --model MODEL --out FOLDER

First guidance t with either ramp at 24 steps; then, each around the best of those, steps, samplers, temperatures,
choice noise and remasking; of a cascade the base alone draws. The best is what has the highest mean share of the
ceiling over all headline figures. Every finished cell is a line of FOLDER/cells.jsonl and is not run again, by the same
weights in the same precision; FOLDER/sweep.json and FOLDER/sweep.png are made from all of them.

Its prompts are of another seed than the bench's own, by which a model is reported: what was chosen for how well it
draws some prompts scores better on these than on others.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import tyro
from tqdm import tqdm

from muse.evaluation.evaluate import draw_with
from muse.evaluation.report import git_commit
from muse.guidance import Ramp
from muse.pipeline import Muse, Size
from muse.sampling.options import Sampler, SamplingOptions
from projects.emoji import dataset
from projects.emoji.bench import HEADLINES, SPLITS, Bench, BenchOptions, Draw, Report
from projects.emoji.files import run_command, write_atomically
from projects.emoji.judge import Judge

Axis = Literal["guidance", "steps", "sampler", "temperature", "choice_noise", "remask"]
AXES: tuple[Axis, ...] = get_args(Axis)
SCALES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
RAMPS: tuple[Ramp, ...] = get_args(Ramp)
VALUES: dict[Axis, tuple[Any, ...]] = {
    "steps": (4, 8, 12, 24),
    "sampler": get_args(Sampler),
    "temperature": (0.6, 0.8, 1.0, 1.2),
    "choice_noise": (0.0, 1.5, 3.0, 4.5, 6.0, 9.0),
    "remask": (0.0, 0.1, 0.3, 0.6, 0.9),
}
"""What each axis but guidance takes in turn."""
STEPS = 24
"""Steps while guidance is swept."""

PLOTTED: tuple[Axis, ...] = ("guidance", "steps")
CHOICE_SEED = 1
"""Of prompts by which settings are chosen; the bench reports on those of seed 0."""
FEWER_PROMPTS = BenchOptions(per_category=40, seed=CHOICE_SEED, only=("single", "background", "count", "pair"))

SIZE: Size = "low"
"""What is drawn: the base alone."""
Identity = Mapping[str, Any]
"""Which model draws: all that its pictures depend on but prompts, seeds and the sampler."""
UNNAMED: Identity = {"name": "unnamed"}
Cell = dict[str, Any]
"""Its key, the commit that made it, and the report without single pictures."""


def identity_of(muse: Muse, name: str) -> Identity:
    """What is told of a model's drawings: other weights under its name, or another precision, are another model."""
    return {
        "name": name,
        "fingerprint": muse.fingerprint(),
        "precision": muse.precision,
        "size": list(muse.low_size),
    }


def settings_of(axis: Axis, around: SamplingOptions) -> list[SamplingOptions]:
    """The settings of one axis; the ramp means nothing at guidance 0, which is run once."""
    if axis == "guidance":
        return [
            replace(around, steps=STEPS, guidance=scale, guidance_ramp=ramp)
            for ramp in RAMPS
            for scale in SCALES
            if scale or ramp == RAMPS[0]
        ]
    return [replace(around, **{axis: value}) for value in VALUES[axis]]


def run_sweep(
    drawer: Callable[[SamplingOptions], Draw],
    bench: Bench,
    folder: Path,
    around: SamplingOptions,
    axes: Sequence[Axis] = AXES,
    model: Identity = UNNAMED,
) -> dict[str, Any]:
    """Run what is not yet in FOLDER/cells.jsonl, and write sweep.json and sweep.png."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted: dict[Axis, list[Cell]] = {}
    for axis in sorted(axes, key=AXES.index):
        settings = settings_of(axis, around)
        wanted[axis] = [
            run_cell(drawer, bench, folder, options, model) for options in tqdm(settings, desc=axis, unit="setting")
        ]
        if axis == "guidance":
            around = SamplingOptions(**best_of(wanted[axis])["key"]["sampling"])
    cells = [cell for some in wanted.values() for cell in some]
    result = {"model": dict(model), "commit": git_commit(), "best": best_of(cells)["key"]["sampling"], "axes": wanted}
    write_atomically(folder / "sweep.json", json.dumps(result, indent=1) + "\n")
    plot(wanted, folder / "sweep.png")
    return result


def run_cell(
    drawer: Callable[[SamplingOptions], Draw], bench: Bench, folder: Path, options: SamplingOptions, model: Identity
) -> Cell:
    """One setting, read from cells.jsonl if it is there, else run and added."""
    path = folder / "cells.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    key = json.loads(json.dumps({"model": dict(model), "bench": asdict(bench.options), "sampling": asdict(options)}))
    for cell in map(json.loads, lines):
        if cell["key"] == key:
            return cell
    report = bench.run(drawer(options))
    cell = {"key": key, "commit": git_commit(), "quality": quality(report), **report.as_json()}
    del cell["options"], cell["pictures"]
    write_atomically(path, "\n".join([*lines, json.dumps(cell)]) + "\n")
    return cell


def quality(report: Report) -> float:
    """Mean share of the ceiling over all headline figures that have one."""
    shares = [row.share.value for row in report.rows if row.share and row.metric == HEADLINES[row.category]]
    return sum(shares) / len(shares)


def best_of(cells: Sequence[Cell]) -> Cell:
    return max(cells, key=lambda cell: cell["quality"])


# -- the plot ----------------------------------------------------------------------------------------------------------


def plot(wanted: dict[Axis, list[Cell]], path: Path) -> None:
    """Share of the ceiling and Frechet distance, against guidance with either ramp and against steps."""
    from matplotlib.figure import Figure

    columns: list[Axis] = [axis for axis in PLOTTED if axis in wanted]
    if not columns:
        return
    figure = Figure(figsize=(5.5 * len(columns), 7), layout="constrained")
    panels = figure.subplots(2, len(columns), squeeze=False)
    for column, axis in enumerate(columns):
        for colour, (name, cells) in enumerate(lines_of(axis, wanted[axis]).items()):
            positions = [cell["key"]["sampling"][axis] for cell in cells]
            plot_shares(panels[0, column], positions, cells, name, f"C{colour}")
            plot_distances(panels[1, column], positions, cells, name, f"C{colour}")
        panels[0, column].set(ylabel="single R@5, share of ceiling", ylim=(0, None))
        panels[1, column].set(ylabel="judge_frechet", xlabel="guidance t" if axis == "guidance" else axis)
        for panel in panels[:, column]:
            panel.grid(alpha=0.3)
            panel.legend()
    figure.savefig(path, dpi=110)


def lines_of(axis: Axis, cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """The cells of each line in a panel: one for each ramp, which share guidance 0."""
    if axis != "guidance":
        return {"best guidance": list(cells)}
    return {
        f"{ramp} ramp": [
            cell
            for cell in cells
            if cell["key"]["sampling"]["guidance_ramp"] == ramp or not cell["key"]["sampling"]["guidance"]
        ]
        for ramp in RAMPS
    }


def plot_shares(panel: Any, positions: Sequence[float], cells: Sequence[Cell], name: str, colour: str) -> None:
    """Shares with their 95% intervals; held-out is dashed."""
    for split, style in zip(SPLITS, ("-", "--"), strict=True):
        shares = [share_in(cell, split) for cell in cells]
        middle = [share["value"] for share in shares]
        panel.plot(positions, middle, style, marker="o", color=colour, label=f"{name}, {split}")
        low, high = ([share[end] for share in shares] for end in ("low", "high"))
        panel.fill_between(positions, low, high, color=colour, alpha=0.08)


def share_in(cell: Cell, split: str) -> dict[str, float]:
    """Share of the ceiling of single R@5."""
    return next(
        row["share"]
        for row in cell["rows"]
        if (row["category"], row["metric"], row["split"]) == ("single", HEADLINES["single"], split)
    )


def plot_distances(panel: Any, positions: Sequence[float], cells: Sequence[Cell], name: str, colour: str) -> None:
    """Distances of what was drawn, and of the real art painted for the same prompts as a dotted line."""
    figures = [cell["judge_frechet"] for cell in cells]
    drawn = [figure["drawn"]["value"] for figure in figures]
    reach = [figure["drawn"]["high"] - figure["drawn"]["value"] for figure in figures]
    panel.errorbar(positions, drawn, yerr=reach, marker="o", color=colour, capsize=2, label=name)
    panel.axhline(figures[0]["painted"], linestyle=":", color="grey")


# -- from the shell ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """Bench a model at many settings of the sampler; goes on where it was stopped."""

    model: str
    """A model folder, a model that ships, or a hub name."""
    out: Path
    """Folder for the results."""
    axes: tuple[Axis, ...] = AXES
    """What to turn; guidance comes first and the others are turned around the best of it."""
    bench: tyro.conf.OmitArgPrefixes[BenchOptions] = FEWER_PROMPTS
    folder: Path = Path("runs-local/emoji")
    """Where the data set and the judge are."""


def main(command: Command) -> None:
    """Load, sweep, and say what was best."""
    if "single" not in command.bench.only:
        raise SystemExit("the sweep plots single R@5; add single to --only")
    art = dataset.load(command.folder)
    bench = Bench(art, Judge.load(command.folder, art), command.bench)
    muse = Muse.from_pretrained(command.model)
    model = identity_of(muse, command.model)
    result = run_sweep(
        lambda options: draw_with(muse, options, SIZE), bench, command.out, muse.defaults, command.axes, model
    )
    print(f"Plot: {command.out / 'sweep.png'}; all figures: {command.out / 'sweep.json'}\n")
    print(json.dumps({name: result[name] for name in ("model", "commit", "best")}))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
