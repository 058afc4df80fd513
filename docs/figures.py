"""Figures of the documentation that the shipped model draws.

python -m docs.figures
"""

from pathlib import Path

from PIL import Image

from muse.images import contact_sheet, save_png
from muse.pipeline import Muse
from muse.sampling import StepReport

FOLDER = Path(__file__).parent / "figures"
PROMPTS = ("a red apple, 3d style", "an octopus on a sky blue background, flat style", "a green apple, noto style")
SHOWN = 6
"""Steps that are shown, evenly spread, the last among them."""


def steps(muse: Muse) -> Image.Image:
    """A row for each prompt: the grid after some of its steps, hidden tokens grey."""
    frames: list[list[Image.Image]] = []
    shown = {round((i + 1) * muse.defaults.steps / SHOWN) for i in range(SHOWN)}

    def watch(report: StepReport) -> None:
        if report.step.index + 1 in shown:
            frames.append(muse.preview(report).images)

    muse.generate(list(PROMPTS), list(range(1, len(PROMPTS) + 1)), callback=watch)
    return contact_sheet([frame[row] for row in range(len(PROMPTS)) for frame in frames], columns=len(frames))


def main() -> None:
    """Draw all figures into docs/figures."""
    FOLDER.mkdir(exist_ok=True)
    save_png(steps(Muse.from_pretrained("emoji")), FOLDER / "steps.png", {"command": "python -m docs.figures"})


if __name__ == "__main__":
    main()
