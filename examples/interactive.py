"""Edit a picture update by update, as a page would: one pass of the base and those of super-resolution for each.

python examples/interactive.py [MODEL]   writes update-1.png to update-4.png and says how long each took
"""

import sys
import time

from muse import EditOptions, Muse

muse = Muse.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "emoji")
(apple,) = muse.generate(["a red apple, 3d style"], seeds=[1])

draft = muse.draft(apple)
for number in range(1, 5):
    start = time.perf_counter()
    # Another seed for each update; a larger share than the paper's 8% shows in fewer of them.
    draft, picture = muse.update(draft, "an orange, 3d style", seed=number, options=EditOptions(share=0.3))
    picture.save(f"update-{number}.png")
    print(f"update {number}: {1000 * (time.perf_counter() - start):.0f} ms")
