"""What the page does, without the page: pictures as they come into being, and files that say how they were made."""

import dataclasses
import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from PIL import Image

from muse.apps.drawing import preview_size
from muse.apps.settings import Settings
from muse.apps.wishes import Alteration, Drawing, alterations, draw
from muse.apps.worker import QueueFull, Task, Worker
from muse.canvas import Margins
from muse.editing import CONTEXT
from muse.images import read_png_text, save_png
from muse.pipeline import Muse
from muse.requests import check_request
from muse.sampling import EditOptions, SamplingOptions

MOST_PICTURES = 8
"""Drawn at a time."""
MOST_TRIED = 16
"""Seeds that are tried for each."""
MOST_WAITING = 32
MOST_FILES = 500
"""Kept on the disk; the oldest go first."""
MOST_PREVIEWS = 8
"""Of one picture."""


@dataclass(frozen=True)
class Picture:
    """A finished picture: its file, and what that says of it."""

    path: Path
    text: dict[str, str]

    @property
    def caption(self) -> str:
        """A line to stand under it."""
        return f"{self.text.get('prompt', self.text.get('command', ''))} (seed {self.text['seed']})"


@dataclass(frozen=True)
class Shown:
    """What can be seen at a moment: previews of all pictures of a request, none of them large, as a visitor keeps some;
    at last the pictures."""

    previews: list[Image.Image]
    pictures: list[Picture]


class Studio:
    """A model and a folder for what it draws. People who draw at the same time are served side by side."""

    def __init__(self, muse: Muse, folder: Path | None = None):
        self.muse = muse
        self._temporary = tempfile.TemporaryDirectory(prefix="muse-") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary else folder or Path()
        self._worker = Worker(partial(draw, muse), MOST_WAITING, MOST_PICTURES)
        self._files: deque[Path] = deque()
        self._num = 0

    def close(self) -> None:
        """Finish what has begun, and remove the folder if it is the studio's own."""
        self._worker.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    # -- the verbs ----------------------------------------------------------------------------------------------------

    def draw(
        self,
        prompt: str,
        seeds: Sequence[int],
        negative: str | None,
        options: SamplingOptions,
        superres_options: SamplingOptions | None,
        best_of: int = 1,
    ) -> Iterator[Shown]:
        """Pictures of a prompt, each the best of some seeds from its own on.
        Raises ValueError, in one sentence, for what cannot be drawn."""
        check(prompt, seeds, negative)
        made_by = (self.muse.name, self.muse.precision)
        wishes = [Drawing(prompt, seed, negative, options, superres_options, *made_by, best_of) for seed in seeds]
        return self._fulfil(wishes)

    def inpaint(
        self,
        image: Image.Image,
        mask: Image.Image,
        prompt: str,
        seeds: Sequence[int],
        negative: str | None,
        options: SamplingOptions,
    ) -> Iterator[Shown]:
        """A picture filled where a mask is white.
        Raises ValueError, in one sentence, for what cannot be drawn."""
        check(prompt, seeds, negative)
        verb = partial(self.muse.inpaint, image, mask, prompt, negative=negative, options=options)
        told = {"context": str(CONTEXT)}
        return self._alter(verb, "inpaint", prompt, seeds, negative, {"options": options}, **told)

    def outpaint(
        self,
        image: Image.Image,
        margins: Margins,
        prompt: str,
        seeds: Sequence[int],
        negative: str | None,
        options: SamplingOptions,
    ) -> Iterator[Shown]:
        """A picture widened by margins.
        Raises ValueError, in one sentence, for what cannot be drawn."""
        check(prompt, seeds, negative)
        verb = partial(self.muse.outpaint, image, margins, prompt, negative=negative, options=options)
        told = {"margins": json.dumps(dataclasses.asdict(margins))}
        return self._alter(verb, "outpaint", prompt, seeds, negative, {"options": options}, **told)

    def edit(
        self, image: Image.Image, prompt: str, seeds: Sequence[int], negative: str | None, options: EditOptions
    ) -> Iterator[Shown]:
        """A picture turned into what a prompt says, little by little.
        Raises ValueError, in one sentence, for what cannot be drawn."""
        check(prompt, seeds, negative)
        verb = partial(self.muse.edit, image, prompt, negative=negative, options=options)
        return self._alter(verb, "edit", prompt, seeds, negative, {"options": options})

    def vary(
        self,
        image: Image.Image,
        strength: float,
        prompt: str | None,
        seeds: Sequence[int],
        negative: str | None,
        options: SamplingOptions,
    ) -> Iterator[Shown]:
        """Pictures near a given one.
        Raises ValueError, in one sentence, for what cannot be drawn."""
        check(prompt or "anything", seeds, negative)
        verb = partial(self.muse.variations, image, strength, prompt=prompt, negative=negative, options=options)
        return self._alter(verb, "vary", prompt, seeds, negative, {"options": options}, strength=str(strength))

    def load(self, path: Path) -> Settings:
        """The settings of a picture that Muse has drawn.
        Raises ValueError or OSError if it has none."""
        return Settings.from_text(read_png_text(path))

    # -- what they share ----------------------------------------------------------------------------------------------

    def _alter(
        self,
        verb: Callable[..., list[Image.Image]],
        name: str,
        prompt: str | None,
        seeds: Sequence[int],
        negative: str | None,
        stages: Mapping[str, Any],
        **more: str,
    ) -> Iterator[Shown]:
        if self.muse.superres is not None:
            stages = {**stages, "superres_options": self.muse.superres_defaults}
        return self._fulfil(alterations(self.muse, verb, name, seeds, prompt, negative, stages, **more))

    def _fulfil(self, wishes: Sequence[Drawing] | Sequence[Alteration]) -> Iterator[Shown]:
        """Line wishes up, at once, and show them as they come into being.
        Raises ValueError if too many others wait. Whoever stops looking gives them up."""
        events: SimpleQueue[tuple[int, Image.Image | None]] = SimpleQueue()
        tasks = [Task(wish, MOST_PREVIEWS, lambda image, i=i: events.put((i, image))) for i, wish in enumerate(wishes)]
        for i, task in enumerate(tasks):
            task.future.add_done_callback(lambda _, i=i: events.put((i, None)))
        try:
            self._worker.submit(tasks)
        except QueueFull as error:
            raise ValueError(f"others are drawing; try again in {error.seconds} s") from error
        return self._watch(tasks, wishes, events)

    def _watch(
        self,
        tasks: Sequence[Task],
        wishes: Sequence[Drawing] | Sequence[Alteration],
        events: "SimpleQueue[tuple[int, Image.Image | None]]",
    ) -> Iterator[Shown]:
        previews: dict[int, Image.Image] = {}
        try:
            num_left = len(tasks)
            while num_left:
                index, image = events.get()
                if image is None:
                    num_left -= 1
                    continue
                previews[index] = small(image)
                if index == max(previews) and events.empty():  # once a step, and not if the next one is here already
                    yield Shown([previews[i] for i in sorted(previews)], [])
            drawn = [task.future.result(0) for task in tasks]
            made = [dataclasses.replace(wish, seed=each.seed) for wish, each in zip(wishes, drawn, strict=True)]
            images = [each.image for each in drawn]
            yield Shown(
                [small(image) for image in images],
                [self._save(image, wish.text) for image, wish in zip(images, made, strict=True)],
            )
        finally:
            for task in tasks:
                task.abandon()

    def _save(self, image: Image.Image, text: dict[str, str]) -> Picture:
        """Write a picture into the folder, from which the oldest goes if there are too many."""
        self._num += 1
        path = self.folder / f"muse-{self._num:05}-seed-{text['seed']}.png"
        save_png(image, path, text)
        self._files.append(path)
        if len(self._files) > MOST_FILES:
            self._files.popleft().unlink(missing_ok=True)
        return Picture(path, text)


def small(image: Image.Image) -> Image.Image:
    """A picture at the size of a preview."""
    size = preview_size(image.size)
    return image if image.size == size else image.resize(size)


def check(prompt: str, seeds: Sequence[int], negative: str | None) -> None:
    """Raises ValueError, in one sentence, for what cannot be drawn."""
    if not 1 <= len(seeds) <= MOST_PICTURES:
        raise ValueError(f"{len(seeds)} pictures were asked for; ask for 1 to {MOST_PICTURES}")
    check_request([prompt] * len(seeds), seeds, None if negative is None else [negative] * len(seeds))
