"""Put something else into a part of a picture; every other pixel stays as it is.

python examples/inpaint.py [MODEL]   writes apple.png, inpainted-1.png and inpainted-2.png
"""

import sys

from muse import Muse
from muse.canvas import Box

muse = Muse.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "emoji")
(apple,) = muse.generate(["a red apple, 3d style"], seeds=[1])
apple.save("apple.png")

# The hole may also be a picture of the same size, white where it is to be filled.
corner = Box(x=apple.width // 2, y=0, width=apple.width // 2, height=apple.height // 2)
pictures = muse.inpaint(apple, corner, "a red apple and a green leaf, 3d style", seeds=[1, 2])
for number, picture in enumerate(pictures, start=1):
    picture.save(f"inpainted-{number}.png")
