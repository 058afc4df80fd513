"""Turn one thing into another without a mask, little by little, and show the way there.

python examples/edit.py [MODEL]   writes apple.png, edited.png and edited.webp, the way from one to the other
"""

import sys
from pathlib import Path

from PIL import Image

from muse import EditOptions, Muse
from muse.editing import Progress
from muse.images import save_animation

muse = Muse.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "emoji")
(apple,) = muse.generate(["a red apple, 3d style"], seeds=[1])
apple.save("apple.png")

frames: list[Image.Image] = [apple]


def watch(progress: Progress) -> None:
    """Keep every fifth picture on the way."""
    if progress.done % 5 == 0:
        frames.extend(progress.show())


(orange,) = muse.edit(apple, "an orange, 3d style", seeds=[1], options=EditOptions(iterations=50), callback=watch)
orange.save("edited.png")
save_animation([*frames, orange], Path("edited.webp"))
