"""Samplers side by side at equal steps: confidence and Halton order, with and without remasking, under either ramp
where the guidance of the model's defaults is not 0, at which they are one. Of a cascade the base alone draws.

    python -m projects.emoji.samplers --model emoji --out runs-local/emoji/samplers

At 4 to 64 steps, 1,000 pictures a cell. Every finished cell is a line of FOLDER/cells.jsonl and is not run again, by
the same weights in the same precision; FOLDER/samplers.json, samplers.md and samplers.png are made from all of them.
What others publish, each against plain confidence: Halton order 2.2 to 2.7 FID better and no worse with more steps; the
linear ramp best of the schedules; remasking better from 32 steps and worse at 16. The prompts are of another seed than
those by which a model is reported (`sweep.CHOICE_SEED`), as a sampler may be chosen by these figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import tyro
from tqdm import tqdm

from muse.evaluation.evaluate import draw_with
from muse.evaluation.report import git_commit, machine, markdown_table
from muse.guidance import Ramp
from muse.pipeline import Muse
from muse.sampling.options import Sampler, SamplingOptions
from projects.emoji import dataset
from projects.emoji.bench import HEADLINES, Bench, BenchOptions, Draw
from projects.emoji.files import run_command, write_results
from projects.emoji.judge import Judge
from projects.emoji.sweep import (
    CHOICE_SEED,
    SIZE,
    UNNAMED,
    Cell,
    Identity,
    identity_of,
    plot_distances,
    plot_shares,
    run_cell,
)

STEPS = (4, 8, 16, 32, 64)
REMASKED = (0.0, 0.1)
"""Without remasking, and with a tenth of the revealed tokens drawn again at each step."""
THOUSAND = BenchOptions(per_category=125, seed=CHOICE_SEED, only=("single", "background", "count", "pair"))
"""1,000 pictures: 125 of four categories on seen and on held-out."""


def settings(around: SamplingOptions, steps: Sequence[int] = STEPS) -> dict[str, list[SamplingOptions]]:
    """The options of each sampler at every number of steps, by the sampler's name."""
    return {
        name_of(sampler, remask, ramp): [
            replace(around, sampler=sampler, remask=remask, guidance_ramp=ramp, steps=num) for num in steps
        ]
        for ramp in ramps_at(around.guidance)
        for sampler in get_args(Sampler)
        for remask in REMASKED
    }


def ramps_at(guidance: float) -> tuple[Ramp, ...]:
    """The ramps that differ at a scale of guidance."""
    ramps: tuple[Ramp, ...] = get_args(Ramp)
    return ramps if guidance else ramps[:1]


def name_of(sampler: Sampler, remask: float, ramp: Ramp) -> str:
    return f"{sampler}{', remasking' if remask else ''}, {ramp} ramp"


def compare(
    drawer: Callable[[SamplingOptions], Draw],
    bench: Bench,
    folder: Path,
    around: SamplingOptions,
    steps: Sequence[int] = STEPS,
    model: Identity = UNNAMED,
) -> dict[str, list[Cell]]:
    """Run what is not yet in FOLDER/cells.jsonl, and write the table, the figures and the plot."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = settings(around, steps)
    cells: dict[str, list[Cell]] = {name: [] for name in wanted}
    with tqdm(total=sum(map(len, wanted.values())), unit="cell", desc="samplers", disable=None) as bar:
        for name, some in wanted.items():
            for options in some:
                cells[name].append(run_cell(drawer, bench, folder, options, model))
                bar.update()
    about = {"model": dict(model), "commit": git_commit(), "machine": machine(), "bench": asdict(bench.options)}
    write_results(folder, "samplers", about | {"samplers": cells}, "\n".join(table(cells)))
    plot(cells, ramps_at(around.guidance), folder / "samplers.png")
    return cells


def table(cells: dict[str, list[Cell]]) -> list[str]:
    """One row for each sampler and number of steps: quality, single R@5 on both splits, Frechet distance, seconds."""
    heads = ["sampler", "steps", "mean share of ceiling %", "single R@5 seen %", "held-out %", "judge_frechet", "s"]
    rows = [
        [
            name,
            str(cell["key"]["sampling"]["steps"]),
            f"{100 * cell['quality']:.1f}",
            *(per_cent(score_in(cell, split)) for split in ("seen", "held-out")),
            interval(cell["judge_frechet"]["drawn"], ".1f"),
            f"{cell['seconds']:.0f}",
        ]
        for name, some in cells.items()
        for cell in some
    ]
    return markdown_table(heads, rows)


def score_in(cell: Cell, split: str) -> dict[str, float]:
    """Single R@5 of a cell."""
    wanted = ("single", HEADLINES["single"], split)
    return next(row["score"] for row in cell["rows"] if (row["category"], row["metric"], row["split"]) == wanted)


def per_cent(figure: dict[str, float]) -> str:
    return interval({name: 100 * value for name, value in figure.items()}, ".1f")


def interval(figure: dict[str, float], form: str) -> str:
    return f"{figure['value']:{form}} ({figure['low']:{form}}–{figure['high']:{form}})"


def plot(cells: dict[str, list[Cell]], ramps: Sequence[Ramp], path: Path) -> None:
    """Share of the ceiling and Frechet distance against steps, a column for each ramp."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5 * len(ramps), 8), layout="constrained")
    panels: Any = figure.subplots(2, len(ramps), squeeze=False, sharey="row")
    for column, ramp in enumerate(ramps):
        lines = {name: some for name, some in cells.items() if name.endswith(f"{ramp} ramp")}
        for colour, (name, some) in enumerate(lines.items()):
            positions = [cell["key"]["sampling"]["steps"] for cell in some]
            label = name.removesuffix(f", {ramp} ramp")
            plot_shares(panels[0, column], positions, some, label, f"C{colour}")
            plot_distances(panels[1, column], positions, some, label, f"C{colour}")
        panels[0, column].set(title=f"{ramp} ramp", ylabel="single R@5, share of ceiling", ylim=(0, None))
        panels[1, column].set(ylabel="judge_frechet", xlabel="steps")
        for panel in panels[:, column]:
            panel.set_xscale("log", base=2)
            panel.grid(alpha=0.3)
            panel.legend(fontsize=7)
    figure.savefig(path, dpi=110)


@dataclass(frozen=True)
class Command:
    """Compare samplers on a model; goes on where it was stopped."""

    out: Path
    """Folder for the results."""
    model: str = "emoji"
    """A model folder, a model that ships, or a hub name."""
    steps: tuple[int, ...] = STEPS
    """Numbers of decoding steps."""
    bench: tyro.conf.OmitArgPrefixes[BenchOptions] = THOUSAND
    folder: Path = Path("runs-local/emoji")
    """Where the data set and the judge are."""


def main(command: Command) -> None:
    """Load, compare, print the table."""
    if "single" not in command.bench.only:
        raise SystemExit("the table has single R@5; add single to --only")
    art = dataset.load(command.folder)
    bench = Bench(art, Judge.load(command.folder, art), command.bench)
    muse = Muse.from_pretrained(command.model)
    model = identity_of(muse, command.model)
    cells = compare(
        lambda options: draw_with(muse, options, SIZE), bench, command.out, muse.defaults, command.steps, model
    )
    print("\n".join(table(cells)))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
