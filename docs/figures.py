"""Figures of the documentation that the shipped model draws.

python -m docs.figures
"""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from muse.images import contact_sheet, save_png
from muse.pipeline import Muse
from muse.sampling import StepReport

FOLDER = Path(__file__).parent / "figures"
PROMPTS = ("a red apple, 3d style", "an octopus on a sky blue background, flat style", "a green apple, noto style")
THINGS = ("a red apple", "a fox", "a rocket", "a slice of pizza", "a mushroom", "an octopus", "a cactus", "a teapot")
STYLES = ("3d style", "flat style", "noto style", "twitter style")
SCENES = (
    "a red apple and a fox",
    "a rocket above a slice of pizza",
    "a mushroom to the left of an octopus",
    "a cactus and a teapot",
    "two foxes on a sky blue background",
    "three red apples",
    "four mushrooms",
    "five rockets on a purple background",
)
SHEET = [*(f"{thing}, {style}" for style in STYLES for thing in THINGS), *(f"{scene}, noto style" for scene in SCENES)]
"""What the picture of the README shows, with one seed for all: chosen before anything was drawn."""
SIDE, COLOURS = 256, 192
"""Pixels of a picture in a figure, and colours of the figure, so that a page of them loads."""
SHOWN, SHOWN_LARGE = 4, 3
"""Steps that are shown of the base and of super-resolution, evenly spread, the last among them."""


def steps(muse: Muse) -> Image.Image:
    """A row for each prompt: the grid after some of its steps, hidden tokens grey."""
    frames: list[list[Image.Image]] = []
    shown = {
        stage: {round((i + 1) * steps / num) for i in range(num)}
        for stage, steps, num in (
            ("base", muse.defaults.steps, SHOWN),
            ("superres", muse.superres_defaults.steps, SHOWN_LARGE),
        )
    }

    def watch(report: StepReport) -> None:
        if report.step.index + 1 in shown[report.stage]:
            frames.append(muse.preview(report).images)

    muse.generate(list(PROMPTS), list(range(1, len(PROMPTS) + 1)), callback=watch)
    return in_columns([frame[row] for row in range(len(PROMPTS)) for frame in frames], len(frames))


def sheet(muse: Muse) -> Image.Image:
    """A column for each thing, a row for each style, and a row of several things."""
    return in_columns(muse.generate(SHEET, [1] * len(SHEET)), len(THINGS))


def in_columns(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Images side by side, small enough for a page."""
    sheet = contact_sheet([image.resize((SIDE, SIDE), Image.Resampling.LANCZOS) for image in images], columns)
    return sheet.convert("RGB").quantize(COLOURS)


def main() -> None:
    """Draw all figures into docs/figures."""
    FOLDER.mkdir(exist_ok=True)
    muse = Muse.from_pretrained("emoji")
    for name, figure in (("steps.png", steps(muse)), ("sheet.png", sheet(muse))):
        save_png(figure, FOLDER / name, {"command": "python -m docs.figures"})


if __name__ == "__main__":
    main()
