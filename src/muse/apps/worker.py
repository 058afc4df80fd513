"""The one thread that owns the model: it draws what waits, side by side where that can be.

It takes a function and not a model, so that all of its promises are tested without any network."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from PIL import Image

NEWEST_SHARE = 0.3
"""How much the latest batch counts in the estimate of how long a picture takes."""


@runtime_checkable
class Wish(Protocol):
    """One picture that somebody asks for."""

    @property
    def key(self) -> Hashable:
        """Wishes of equal keys can be drawn side by side."""
        ...


@dataclass(frozen=True)
class Drawn:
    """A picture and what it took: sub-words read and image tokens drawn."""

    image: Image.Image
    num_words: int
    num_tokens: int
    seed: int
    """That of the picture, which may have been chosen among several."""


@dataclass(frozen=True)
class Glimpse:
    """What can be seen after a step: how much is done, in (0, 1], and a function that paints some of the batch."""

    progress: float
    paint: Callable[[Sequence[int]], list[Image.Image]]


Watch = Callable[[Glimpse], None]
Draw = Callable[[Sequence[Wish], Watch], list[Drawn]]
"""Draws wishes of one key, and shows a glimpse after every step."""


class QueueFull(Exception):
    """More pictures wait than may; `seconds` is when it is worth coming again."""

    def __init__(self, seconds: int):
        super().__init__(f"the queue is full for about {seconds} s")
        self.seconds = seconds


class Closed(Exception):
    """The worker takes nothing more."""


class Abandoned(Exception):
    """Nobody waits for any picture of the batch any longer."""


class Task:
    """A wish on its way: its picture comes through `future`, previews through `on_preview`.
    `num_previews` of them are shown, at equal distances."""

    def __init__(self, wish: Wish, num_previews: int = 0, on_preview: Callable[[Image.Image], None] | None = None):
        self.wish, self.on_preview = wish, on_preview
        self.future: Future[Drawn] = Future()
        self.is_abandoned = False
        self.previews_at = [k / (num_previews + 1) for k in range(1, num_previews + 1)]

    def abandon(self) -> None:
        """Nobody waits for it any longer: it is not begun, or is stopped after the step that runs."""
        self.is_abandoned = True
        self.future.cancel()

    def is_due(self, progress: float) -> bool:
        """Whether a preview shall be shown now; asked once a step."""
        num = len(self.previews_at)
        self.previews_at = [point for point in self.previews_at if point > progress + 1e-9]
        return len(self.previews_at) < num and progress < 1 and not self.is_abandoned


class Worker:
    """Draws tasks in the order in which they came; those of the same key as the first one join it.
    `on_batch` is told size, seconds and outcome of every batch: "drawn", "abandoned", "refused" if a ValueError says
    that it cannot be drawn, or "failed"."""

    def __init__(
        self,
        draw: Draw,
        max_queue: int,
        max_batch: int,
        on_batch: Callable[[int, float, str], None] = lambda size, seconds, outcome: None,
    ):
        self.draw, self.max_queue, self.max_batch, self.on_batch = draw, max_queue, max_batch, on_batch
        self.seconds_per_picture = 1.0
        self._waiting: deque[Task] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="muse-worker", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Pictures that wait for their turn."""
        with self._changed:
            return sum(not task.is_abandoned for task in self._waiting)

    @property
    def is_ready(self) -> bool:
        """Whether it takes tasks."""
        return self._thread.is_alive() and not self._is_closed

    def submit(self, tasks: Sequence[Task]) -> None:
        """Line up all of some tasks, or none.
        Raises QueueFull if they are too many, Closed after `close`."""
        with self._changed:
            if not self.is_ready:
                raise Closed
            self._forget_abandoned()
            if len(self._waiting) + len(tasks) > self.max_queue:
                raise QueueFull(max(1, math.ceil(len(self._waiting) * self.seconds_per_picture)))
            self._waiting.extend(tasks)
            self._changed.notify()

    def close(self, seconds: float | None = None) -> None:
        """Take nothing more, finish what waits and end the thread; wait at most so long for that."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            # A task that was abandoned just now refuses to begin.
            if begun := [task for task in batch if task.future.set_running_or_notify_cancel()]:
                self._fulfil(begun)

    def _next_batch(self) -> list[Task] | None:
        """The first task and all that can be drawn beside it; None once the worker is closed and nothing waits."""
        with self._changed:
            self._forget_abandoned()
            while not self._waiting:
                if self._is_closed:
                    return None
                self._changed.wait()
                self._forget_abandoned()
            key = self._waiting[0].wish.key
            batch = [task for task in self._waiting if task.wish.key == key][: self.max_batch]
            chosen = set(map(id, batch))
            self._waiting = deque(task for task in self._waiting if id(task) not in chosen)
            return batch

    def _fulfil(self, batch: Sequence[Task]) -> None:
        """Draw a batch; if that fails, draw its tasks one by one, so that none spoils its neighbours."""
        started, outcome = time.monotonic(), "drawn"
        try:
            pictures = self.draw([task.wish for task in batch], partial(self._watch, batch))
            for task, drawn in list(zip(batch, pictures, strict=True)):
                task.future.set_result(drawn)
        except Abandoned as error:
            outcome = "abandoned"
            for task in batch:
                task.future.set_exception(error)
        except Exception as error:
            outcome = "refused" if isinstance(error, ValueError) else "failed"
            if len(batch) == 1:
                batch[0].future.set_exception(error)
        seconds = time.monotonic() - started
        if outcome == "drawn":
            latest = seconds / len(batch)
            self.seconds_per_picture += NEWEST_SHARE * (latest - self.seconds_per_picture)
        self.on_batch(len(batch), seconds, outcome)
        if outcome in ("refused", "failed") and len(batch) > 1:
            for task in batch:
                self._fulfil([task])

    def _watch(self, batch: Sequence[Task], glimpse: Glimpse) -> None:
        """Stop where nobody waits any longer, and hand out the previews that are due."""
        if all(task.is_abandoned for task in batch):
            raise Abandoned
        due = [i for i, task in enumerate(batch) if task.is_due(glimpse.progress)]
        for i, image in zip(due, glimpse.paint(due) if due else [], strict=True):
            if (show := batch[i].on_preview) is not None:
                show(image)

    def _forget_abandoned(self) -> None:
        self._waiting = deque(task for task in self._waiting if not task.is_abandoned)
