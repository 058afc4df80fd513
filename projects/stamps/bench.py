"""Whether a model that was trained on a folder of pictures draws what its captions say, beside the model untrained.

    python -m projects.stamps.bench --model MODEL --pictures FOLDER --out FOLDER

Every caption of the folder is drawn once. A picture is right if a real one with its caption is among the 1 or 5 of all
that are most like it, on the features of the emoji judge's network, which was trained on photographs. Beside it stand
the same of an untrained base transformer with the same VQGAN; of the real pictures once through that VQGAN, which no
model of it can pass; and chance, which is the trained model's pictures against each other's captions.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image

from muse.data.pictures import fit, read_picture
from muse.evaluation.evaluate import draw_with
from muse.evaluation.intervals import Figure, wilson
from muse.evaluation.metrics import FrechetReference
from muse.evaluation.report import git_commit
from muse.images import contact_sheet
from muse.models.transformer import MaskedTransformer
from muse.pipeline import Muse
from projects.emoji.bench import draw_all, in_batches, per_cent, redraw_with
from projects.emoji.files import write_atomically
from projects.emoji.judge import Features, efficientnet_lite0, features_of
from projects.emoji.recipe import PLACES

NEAR_ENOUGH = 5
SHOWN = 32


@dataclass(frozen=True)
class Row:
    """How many pictures of one drawer are recognised, and how far all are from the real ones."""

    name: str
    at_1: Figure
    at_5: Figure
    frechet: float


@dataclass(frozen=True)
class Command:
    """Bench a model on the pictures that it was trained on."""

    model: str
    """A model folder."""
    pictures: Path
    """The folder of pictures, a .txt of the same name beside each."""
    out: Path
    """Folder for the results."""
    judge: Path = PLACES.folder / "networks" / "judge" / "model.safetensors"
    """The network that looks: `python -m projects.emoji.networks` fetches it."""
    seed: int = 0
    """Of the first picture; the others follow."""


def read(folder: Path, size: int) -> tuple[list[Image.Image], list[str]]:
    """Pictures as `muse tokenize` sees them, and their captions.
    Raises ValueError if the folder has none."""
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise ValueError(f"{folder} has no PNG files; make it with: python -m projects.stamps.prepare --out {folder}")
    captions = [path.with_suffix(".txt").read_text().strip() for path in paths]
    return [fit(read_picture(path)[0], size) for path in paths], captions


def untrained(muse: Muse) -> Muse:
    """The same model with a base transformer as it was before its first step."""
    torch.manual_seed(0)
    base = MaskedTransformer(muse.base.config)
    return Muse(muse.text_encoder, muse.vqgan, base, name="untrained", defaults=muse.defaults)


def row_of(name: str, drawn: Features, real: Features, captions: list[str]) -> Row:
    """Look a drawer's pictures up among the real ones; any with the same caption is right."""
    order = (F.normalize(drawn, dim=1) @ F.normalize(real, dim=1).T).argsort(dim=1, descending=True)[:, :NEAR_ENOUGH]
    is_right = np.array([[captions[found] == captions[i] for found in row] for i, row in enumerate(order.tolist())])
    num = len(is_right)
    at_1, at_5 = (wilson(int(is_right[:, :n].any(axis=1).sum()), num) for n in (1, NEAR_ENOUGH))
    return Row(name, at_1, at_5, FrechetReference.of(real).distance(drawn))


@torch.no_grad()
def main(command: Command) -> None:
    """Draw, look, write."""
    try:
        muse, network = Muse.from_pretrained(command.model), efficientnet_lite0(command.judge)
        images, captions = read(command.pictures, muse.size[0])
    except (ValueError, OSError) as error:
        raise SystemExit(str(error)) from None
    seeds = list(range(command.seed, command.seed + len(captions)))
    redrawn = [image for some in in_batches(images) for image in redraw_with(muse)(some)]
    drawn, before = (draw_all(draw_with(each, each.defaults), captions, seeds) for each in (muse, untrained(muse)))
    real, ours, others, through = (features_of(network, some) for some in (images, drawn, before, redrawn))
    rows = [
        row_of("trained", ours, real, captions),
        row_of("untrained", others, real, captions),
        row_of("real, through the VQGAN", through, real, captions),
        row_of("trained, other captions", ours.roll(1, 0), real, captions),
    ]
    command.out.mkdir(parents=True, exist_ok=True)
    sheet = [image for group in zip(images[:SHOWN], drawn[:SHOWN], before[:SHOWN], strict=True) for image in group]
    contact_sheet(sheet, columns=12).save(command.out / "sheet.png")
    report = {"model": command.model, "commit": git_commit(), "num": len(images), "rows": [asdict(row) for row in rows]}
    write_atomically(command.out / "stamps.json", json.dumps(report, indent=1) + "\n")
    print(f"| {len(images)} captions | R@1, % | R@5, % | Frechet |", "| --- | --- | --- | --- |", sep="\n")
    for row in rows:
        print(f"| {row.name} | {per_cent(row.at_1)} | {per_cent(row.at_5)} | {row.frechet:.0f} |")


if __name__ == "__main__":
    main(tyro.cli(Command))
