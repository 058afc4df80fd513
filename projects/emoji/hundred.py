"""A hundred prompts drawn at random, none chosen: what a person who types what comes to mind would get.

    python -m projects.emoji.hundred --out FOLDER

Prompts are the canonical captions of scenes drawn as those of training are, in the four styles, the first with seed 0,
the next with 1, and so on.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from muse.evaluation.evaluate import draw_with
from muse.images import contact_sheet, save_png
from muse.pipeline import Muse
from projects.emoji import dataset, recipe
from projects.emoji.bench import draw_all
from projects.emoji.captions import caption
from projects.emoji.dataset import EmojiArt
from projects.emoji.files import run_command
from projects.emoji.scenes import random_scene
from projects.emoji.train import usable

NUM, COLUMNS, SIDE = 100, 10, 160


@dataclass(frozen=True)
class Command:
    """Draw them: sheet.png and prompts.txt in a folder."""

    out: Path
    """Folder for the results."""
    model: str = "emoji"
    """A model folder, a model that ships, or a hub name."""
    seed: int = 0
    """Chooses the prompts."""
    folder: Path = Path("runs-local/emoji")
    """Where the data set is."""


def prompts(art: EmojiArt, seed: int) -> list[str]:
    """Captions of random scenes of pictures that were trained on."""
    rng, pictures = np.random.default_rng(seed), usable(art, held_out=False)
    return [caption(random_scene(art, rng, pictures, recipe.SCENES), art) for _ in range(NUM)]


def main(command: Command) -> None:
    """Draw and write."""
    asked = prompts(dataset.load(command.folder), command.seed)
    muse = Muse.from_pretrained(command.model)
    images = draw_all(draw_with(muse, muse.defaults), asked, range(NUM))
    command.out.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet([image.resize((SIDE, SIDE)) for image in images], COLUMNS)
    save_png(sheet, command.out / "sheet.png", {"command": "python -m projects.emoji.hundred"})
    (command.out / "prompts.txt").write_text("\n".join(asked) + "\n")


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
