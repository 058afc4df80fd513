"""What a person reads: one JSON, one Markdown table, contact sheets, and the plot of a sweep."""

import json
import math
import os
import platform
import re
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from muse.checkpoint import write_whole
from muse.evaluation.intervals import Figure
from muse.images import contact_sheet

LONGEST_NAME = 60
"""Letters of a group that the name of its sheet has."""
SHEET_PICTURES = 48
"""Pictures on a contact sheet at most."""
SHEET_COLUMNS = 8
TILE = 144
"""Side of a picture on a contact sheet, in pixels."""


@dataclass(frozen=True)
class Measurement:
    """One figure and all that one must know to compare it with another."""

    name: str
    figure: Figure
    num: int
    """Pictures that were scored."""
    num_real: int | None
    """Real pictures that they were compared with."""
    weights: str
    """Of the network that looked; empty where none did."""
    resize: str
    """What was done to pictures before it looked."""
    interval: str
    """Where the interval comes from."""


@dataclass(frozen=True)
class Picture:
    """One drawn picture and the scores that it has of its own."""

    prompt: str
    group: str
    seed: int
    file: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Report:
    """All that one evaluation found."""

    about: dict[str, Any]
    """Model, its fingerprint, options, protocol, commit: all that it takes to do it again."""
    measurements: tuple[Measurement, ...]
    groups: dict[str, tuple[Measurement, ...]]
    """The measurements of single pictures, by the group of their prompts."""
    skipped: dict[str, str]
    """Metrics whose weights could not be had, and what to do about it."""
    pictures: tuple[Picture, ...] = field(repr=False)
    timing: dict[str, Any]
    """What changes from run to run: seconds and the machine."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def figure(self, name: str) -> Figure:
        """KeyError if it was not measured."""
        for measurement in self.measurements:
            if measurement.name == name:
                return measurement.figure
        raise KeyError(name)


def write_report(report: Report, images: Sequence[Image.Image], folder: Path) -> None:
    """FOLDER/report.json, report.md and sheet.png, and sheet-GROUP.png for each group of prompts.
    `images` are the first pictures of the report, SHEET_PICTURES at least, or all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "report.json", json.dumps(report.as_json(), indent=1) + "\n")
    write_whole(folder / "report.md", as_markdown(report))
    if images:
        titles = [picture.prompt for picture in report.pictures]
        save_sheet(images, titles[: len(images)], folder / "sheet.png")


def save_sheet(images: Sequence[Image.Image], titles: Sequence[str], path: Path) -> None:
    """The first pictures, each over its prompt."""
    tiles = [tile(image, title) for image, title in zip(images, titles, strict=True)][:SHEET_PICTURES]
    contact_sheet(tiles, columns=min(SHEET_COLUMNS, len(tiles))).save(path)


def tile(image: Image.Image, title: str, side: int = TILE, text_height: int = 46) -> Image.Image:
    """A picture over its prompt."""
    whole = Image.new("RGB", (side, side + text_height), "white")
    fitting = image.copy()
    fitting.thumbnail((side, side), Image.Resampling.LANCZOS)
    whole.paste(fitting, ((side - fitting.width) // 2, (side - fitting.height) // 2))
    lines = textwrap.wrap(title, 27)
    words = "\n".join([*lines[:3], *(["..."] if len(lines) > 3 else [])][:4])
    ImageDraw.Draw(whole).text((2, side + 2), words, fill="black", font_size=10, spacing=2)
    return whole


def file_names(groups: Sequence[str]) -> dict[str, str]:
    """A part of a file's name for each group: its first letters, and a number where several would have the same."""
    names: dict[str, str] = {}
    for group in groups:
        name, tries = re.sub(r"\W+", "-", group.lower()).strip("-")[:LONGEST_NAME] or "group", 1
        while (numbered := name if tries == 1 else f"{name}-{tries}") in names.values():
            tries += 1
        names[group] = numbered
    return names


# -- Markdown ----------------------------------------------------------------------------------------------------------


def as_markdown(report: Report) -> str:
    """The table, what was skipped and why, the groups, and how long it took."""
    about = report.about
    lines = [f"# {about['model']}", "", *(f"- {name}: {said(value)}" for name, value in about.items()), ""]
    lines += table(report.measurements)
    lines += told_skipped(report)
    for group, measurements in report.groups.items():
        lines += ["", f"## {group}", "", *table(measurements)]
    timing = report.timing
    if timing.get("seconds_a_batch"):
        speed = f"{timing['seconds_a_batch']} s a batch of {timing['pictures_a_batch']} "
        speed += f"(median of {timing['batches_drawn']} drawn in this run)"
    else:
        speed = "all pictures were there already" if report.pictures else "no prompts were drawn"
    lines += ["", f"Speed: {speed}; {timing['machine']}."]
    return "\n".join(lines) + "\n"


def told_skipped(report: Report) -> list[str]:
    """A sentence about each metric that could not be had."""
    return [f"\n`{metric}` was not measured: {why}." for metric, why in report.skipped.items()]


def table(measurements: Sequence[Measurement]) -> list[str]:
    heads = ["metric", "value (95% interval)", "pictures", "against", "network", "resize", "interval by"]
    rows = [
        [
            measurement.name,
            shown(measurement.figure),
            f"{measurement.num:,}",
            f"{measurement.num_real:,} real" if measurement.num_real else "-",
            measurement.weights or "-",
            measurement.resize or "-",
            measurement.interval,
        ]
        for measurement in measurements
    ]
    return markdown_table(heads, rows)


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def shown(figure: Figure) -> str:
    """A figure with its interval, to four digits."""
    return f"{figure.value:.4g} ({figure.low:.4g} to {figure.high:.4g})"


def said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {said(part)}" for name, part in value.items() if part is not None)
    if isinstance(value, list | tuple):
        return ", ".join(map(said, value))
    return str(value)


# -- where it ran ------------------------------------------------------------------------------------------------------


def machine(device: torch.device | str = "cpu") -> str:
    """Processor or accelerator, cores and torch, in words."""
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {names[0] if names else platform.machine()}, torch {torch.__version__}"


def git_commit() -> str | None:
    """The commit of Muse that is checked out; None if it is installed from elsewhere, or before the first."""
    here = Path(__file__)
    git = partial(subprocess.run, cwd=here.parent, capture_output=True, text=True)
    try:
        if git(["git", "ls-files", "--error-unmatch", here.name]).returncode:
            return None  # a repository that this file only lies in is somebody else's
        return git(["git", "rev-parse", "--verify", "-q", "HEAD"]).stdout.strip() or None
    except FileNotFoundError:
        return None


# -- a sweep -----------------------------------------------------------------------------------------------------------


def write_sweep(axis: str, cells: Sequence[tuple[Any, Report]], folder: Path) -> None:
    """FOLDER/sweep.json, sweep.md and sweep.png: every measurement of each value of an option."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "axis": axis,
        "cells": [{"value": value, **report.as_json(), "pictures": len(report.pictures)} for value, report in cells],
    }
    write_whole(folder / "sweep.json", json.dumps(content, indent=1) + "\n")
    names = [measurement.name for measurement in cells[0][1].measurements]
    rows = [[named(value), *(shown(report.figure(name)) for name in names)] for value, report in cells]
    num = cells[0][1].measurements[0].num if names else 0
    lines = [f"{num:,} pictures a cell, 95% intervals; {cells[0][1].timing['machine']}.", ""]
    lines += [*markdown_table([axis, *names], rows), *told_skipped(cells[0][1])]
    write_whole(folder / "sweep.md", "\n".join(lines) + "\n")
    plot_sweep(axis, cells, names, folder / "sweep.png")


def plot_sweep(axis: str, cells: Sequence[tuple[Any, Report]], names: Sequence[str], path: Path) -> None:
    """Each measurement against the option; and, as Muse's Figure 8, a distance against an agreement with the prompt.
    Raises ImportError if matplotlib is missing."""
    from matplotlib.figure import Figure as Canvas

    distances = [name for name in names if "frechet" in name or name == "fid"]
    agreements = [name for name in names if name in ("clip_score", "alignment")]
    pairs = [(distance, agreement) for distance in distances[:1] for agreement in agreements]
    num = len(names) + len(pairs)
    columns = min(3, max(num, 1))
    rows = math.ceil(max(num, 1) / columns)
    canvas = Canvas(figsize=(4.6 * columns, 3.6 * rows), layout="constrained")
    panels = canvas.subplots(rows, columns, squeeze=False).flatten()
    for panel, (distance, agreement) in zip(panels, pairs, strict=False):
        points = [(report.figure(agreement), report.figure(distance), value) for value, report in cells]
        draw_line(panel, [one.value for one, _, _ in points], [other for _, other, _ in points])
        for one, other, value in points:
            panel.annotate(
                named(value), (one.value, other.value), textcoords="offset points", xytext=(5, 4), fontsize=8
            )
        panel.set(xlabel=agreement, ylabel=distance, title=f"over {axis}")
    values = [value for value, _ in cells]
    is_numeric = all(isinstance(value, int | float) for value in values)
    places = values if is_numeric else list(range(len(values)))
    for panel, name in zip(panels[len(pairs) :], names, strict=False):
        draw_line(panel, places, [report.figure(name) for _, report in cells])
        panel.set(xlabel=axis, ylabel=name)
        if not is_numeric:
            panel.set_xticks(places, [named(value) for value in values])
    for panel in panels[num:]:
        panel.set_axis_off()
    canvas.savefig(path, dpi=110, metadata={"Software": None})


def named(value: Any) -> str:
    """The value of an option as it is written on the command line."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def draw_line(panel: Any, places: Sequence[float], figures: Sequence[Figure]) -> None:
    """Values with their intervals."""
    middle = [figure.value for figure in figures]
    # An interval of percentiles need not hold the value itself.
    below = [max(0.0, figure.value - figure.low) for figure in figures]
    above = [max(0.0, figure.high - figure.value) for figure in figures]
    panel.errorbar(places, middle, yerr=[below, above], marker="o", capsize=2)
    panel.grid(alpha=0.3)
