"""Put a trained model where the package ships it, with its model card; and draw the curves of its training.

    python -m projects.emoji.ship

Ship only what beats, by `bench.py`, the weights that are there: every commit of weights stays in the history.
"""

import json
import math
from pathlib import Path

import matplotlib as mpl
import torch
import tyro

mpl.use("Agg")
import matplotlib.pyplot as plt

from muse.checkpoint import save_module, write_whole
from muse.pipeline import SHIPPED, Muse
from projects.emoji import dataset, recipe
from projects.emoji.bench import HEADLINES
from projects.emoji.captions import NO_MEANINGS
from projects.emoji.files import run_command
from projects.emoji.train import meanings_for, usable
from projects.emoji.vocabulary import whole_vocabulary

CARD = """---
license: apache-2.0
library_name: muse-t2i
pipeline_tag: text-to-image
---

# emoji

A small Muse (arXiv:2301.00704): {side} px, {low} tokens of an f=16 VQGAN, a base transformer{superres}, and
all-MiniLM-L6-v2 (frozen, Apache-2.0, its weights in int8) as its text encoder.

- Trained by the parts of `projects/emoji`, its VQGANs on 2 CPU cores, their decoders once more at the sizes at which
  they paint, and its transformers on a GPU for 25 minutes and an hour on those cores; docs/results.md of the repository
  has every figure.
- Data: Fluent Emoji (MIT), Noto Emoji in two versions and FxEmojis (Apache-2.0), Twemoji and EmojiOne 2 (CC
  BY 4.0) without people, flags, symbols and clocks: see NOTICE at the root of the repository. Captions from Unicode
  names, emojibase and emojilib (MIT).
- Prompts name a concept, a style ("3d style", "flat style", "noto style", "twitter style"), a background colour, a
  count, or two things and their places: "a red fox, 3d style", "three octopuses on a green background, flat style".
- Limits: about a thousand concepts, which `muse info emoji --names` lists; {side} px; no people and no photographs. How
  well each kind of prompt is followed is in docs/results.md.
"""


def figures(bench: Path) -> str:
    """What the model card says of a bench: the headline of each category and split, beside the ceiling."""
    report = json.loads(bench.read_text())
    lines = [
        "",
        "## Figures",
        "",
        "| prompts | metric | n | right, % | share of the ceiling, % |",
        "|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        if row["metric"] == HEADLINES[row["category"]]:
            share = f"{100 * row['share']['value']:.0f}" if row["share"] else "-"
            score = (
                f"{100 * row['score']['value']:.0f} ({100 * row['score']['low']:.0f}–{100 * row['score']['high']:.0f})"
            )
            lines.append(f"| {row['category']}, {row['split']} | {row['metric']} | {row['num']} | {score} | {share} |")
    lines += ["", f"By `projects/emoji/bench.py`, commit {report['commit']}; 95% intervals, unselected."]
    return "\n".join(lines) + "\n"


def ship(places: recipe.Places, bench: Path, meanings: bool = False) -> Path:
    """Write the run's model into the package, its weights in float16 and those of the text encoder in int8, with the
    figures of its bench in its card, and with the words of its captions."""
    muse = Muse.from_pretrained(places.model, "cpu", "float32")
    art = dataset.load(places.folder, places.of_scale.data, needs_pictures=False)
    records = [art.records[item] for item in usable(art, held_out=False, styles=places.of_scale.styles)]
    muse.vocabulary = whole_vocabulary(records, meanings_for(places, art) if meanings else NO_MEANINGS)
    folder = SHIPPED / "emoji"
    muse.save_pretrained(folder, torch.float16, torch.int8)
    # As the tokens were made; nothing is rounded twice.
    save_module(muse.vqgan, folder / "vqgan", torch.float16)
    if muse.vqgan_superres is not None:
        save_module(muse.vqgan_superres, folder / "vqgan_superres", torch.float16)
    low, superres = muse.base.config, ""
    if muse.superres is not None:
        high = muse.superres.config
        superres = f", super-resolution to the {high.height}x{high.width} tokens of an f=8 VQGAN"
    card = CARD.format(side=muse.size[0], low=f"{low.height}x{low.width}", superres=superres)
    write_whole(folder / "README.md", card + figures(bench))
    return folder


def draw_curves(places: recipe.Places, destination: Path) -> None:
    """Plot what the stages logged: losses, and the codebooks' usage; a row before super-resolution and one of it."""
    folder_of = {
        "vqgan": places.vqgan.parent,
        "base": places.base.parent,
        "vqgan-superres": places.vqgan_superres.parent,
        "superres": places.superres.parent,
    }
    stages = {run: read_metrics(path) for run in folder_of if (path := folder_of[run] / "metrics.jsonl").is_file()}
    kinds = {
        "vqgan": (("reconstruction", "perceptual"), ("codebook_perplexity",), ("adversarial", "discriminator")),
        "transformer": (("loss", "validation_loss"),),
    }
    panels = [(run, names) for run in stages for names in kinds["vqgan" if run.startswith("vqgan") else "transformer"]]
    rows = math.ceil(len(panels) / 4)
    figure, axes = plt.subplots(rows, 4, figsize=(20, 4 * rows), squeeze=False)
    for axis, (stage, names) in zip(axes.flat, panels, strict=False):
        for name in names:
            points = [(row["step"], row[name]) for row in stages[stage] if name in row]
            axis.plot(*zip(*points, strict=True), label=name) if points else None
        axis.set(xlabel=f"{stage} step")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(destination, dpi=80)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a run, those of a stretch that was run twice only once."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for _, row in sorted({row["step"]: row for row in rows}.items())]


def main(
    places: recipe.Places = recipe.PLACES,
    bench: Path = Path("runs-local/emoji/bench/bench.json"),
    curves: Path = Path("docs/training-curves.png"),
    meanings: bool = False,
) -> None:
    """Ship the model of the run and draw its curves.

    Args:
        places: where the project keeps what it makes.
        bench: what the bench said of the model.
        curves: where the curves go.
        meanings: whether its captions said at times what a thing is, as `train base --meanings` has them do.
    """
    print(ship(places, bench, meanings))
    draw_curves(places, curves)


if __name__ == "__main__":
    run_command(lambda: tyro.cli(main))
