"""Widen a picture to both sides; the picture itself stays as it is.

python examples/outpaint.py [MODEL]   writes sky.png and outpainted.png
"""

import sys

from muse import Muse
from muse.canvas import Margins

muse = Muse.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "emoji")
(sky,) = muse.generate(["a balloon on a sky blue background, flat style"], seeds=[1])
sky.save("sky.png")

# Margins may be larger than the model's own pictures: they are drawn piece by piece.
margins = Margins(left=sky.width, right=sky.width // 2)
(wide,) = muse.outpaint(sky, margins, "a balloon on a sky blue background, flat style", seeds=[1])
wide.save("outpainted.png")
