"""Draw pictures near a given one: the stronger, the freer.

python examples/vary.py [MODEL]   writes varied.png, from the reconstruction at the left to free drawing at the right
"""

import sys

from muse import Muse
from muse.images import contact_sheet

PROMPT = "a red apple, 3d style"

muse = Muse.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "emoji")
(apple,) = muse.generate([PROMPT], seeds=[1])
near = [muse.variations(apple, strength, [2], prompt=PROMPT)[0] for strength in (0.0, 0.25, 0.5, 0.75, 1.0)]
contact_sheet([apple, *near], columns=6).save("varied.png")
