"""The thread that owns the model, with a function in the place of the model."""

import threading
from dataclasses import dataclass

import pytest
from PIL import Image

from muse.apps.worker import Abandoned, Closed, Drawn, Glimpse, QueueFull, Task, Worker


@dataclass(frozen=True)
class Wanted:
    name: str
    key: str = "any"


class Painter:
    """Draws what it is told to when it is told to, in ten steps, and remembers the batches."""

    def __init__(self):
        self.batches, self.steps, self.is_at_work, self.may_go = [], 0, threading.Event(), threading.Event()
        self.may_go.set()

    def __call__(self, wishes, watch):
        self.batches.append([wish.name for wish in wishes])
        self.is_at_work.set()
        for step in range(10):
            assert self.may_go.wait(10)
            self.steps += 1
            watch(Glimpse((step + 1) / 10, lambda rows: [Image.new("RGB", (1, 1), (rows[0], 0, 0)) for _ in rows]))
        if "bad" in self.batches[-1]:
            raise ValueError("bad cannot be drawn")
        return [Drawn(Image.new("RGB", (1, 1)), 1, 1, 0) for _ in wishes]


@pytest.fixture
def painter():
    return Painter()


@pytest.fixture
def busy(painter):
    """A worker that is held at its first picture, so that what comes now must wait."""
    outcomes = []
    worker = Worker(painter, 5, 3, lambda size, seconds, outcome: outcomes.append((size, outcome)))
    worker.outcomes = outcomes  # pyright: ignore[reportAttributeAccessIssue]
    painter.may_go.clear()
    worker.submit([Task(Wanted("first"))])
    assert painter.is_at_work.wait(10)
    yield worker
    painter.may_go.set()
    worker.close()


def test_what_waits_is_drawn_side_by_side_in_order_and_by_kind(busy, painter):
    kinds = [("a", "x"), ("b", "y"), ("c", "x"), ("d", "x"), ("e", "x")]
    tasks = [Task(Wanted(*kind)) for kind in kinds]
    busy.submit(tasks)
    painter.may_go.set()
    for task in tasks:
        task.future.result(10)
    assert painter.batches == [["first"], ["a", "c", "d"], ["b"], ["e"]]


def test_more_than_may_wait_are_all_refused_and_none_is_lined_up(busy, painter):
    busy.submit([Task(Wanted(name)) for name in "abcd"])
    with pytest.raises(QueueFull) as full:
        busy.submit([Task(Wanted("e")), Task(Wanted("f"))])
    assert full.value.seconds >= 1
    assert busy.num_waiting == 4
    busy.submit([Task(Wanted("g"))])


def test_what_is_abandoned_before_its_turn_is_never_begun_and_makes_room(busy, painter):
    tasks = [Task(Wanted(name)) for name in "abcde"]
    busy.submit(tasks)
    for task in tasks[:4]:
        task.abandon()
    busy.submit([Task(Wanted(name)) for name in "fghi"])
    painter.may_go.set()
    busy.close()
    assert painter.batches == [["first"], ["e", "f", "g"], ["h", "i"]]


def test_what_everybody_has_left_is_stopped_at_the_next_step(painter):
    worker = Worker(painter, 5, 3)
    painter.may_go.clear()
    tasks = [Task(Wanted(name)) for name in "ab"]
    worker.submit(tasks)
    assert painter.is_at_work.wait(10)
    for task in tasks:
        task.abandon()
    painter.may_go.set()
    worker.close()
    assert painter.steps <= 2  # of one or two batches, as both may have been taken at once or not
    assert all(isinstance(task.future.exception(10), Abandoned) for task in tasks if not task.future.cancelled())


def test_a_neighbour_who_stays_gets_the_picture(painter):
    worker = Worker(painter, 5, 3)
    painter.may_go.clear()
    tasks = [Task(Wanted(name)) for name in "ab"]
    worker.submit(tasks)
    assert painter.is_at_work.wait(10)
    tasks[0].abandon()
    painter.may_go.set()
    assert tasks[1].future.result(10)
    worker.close()


def test_a_wish_that_cannot_be_drawn_spoils_none_of_its_neighbours(busy, painter):
    tasks = [Task(Wanted(name)) for name in ("a", "bad", "c")]
    busy.submit(tasks)
    painter.may_go.set()
    assert tasks[0].future.result(10)
    assert tasks[2].future.result(10)
    assert str(tasks[1].future.exception(10)) == "bad cannot be drawn"
    assert painter.batches[2:] == [["a"], ["bad"], ["c"]]
    busy.close()
    assert busy.outcomes == [(1, "drawn"), (3, "refused"), (1, "drawn"), (1, "refused"), (1, "drawn")]


def test_the_worker_lives_on_after_a_fault(painter):
    worker = Worker(lambda wishes, watch: [], 5, 3)  # too few pictures
    task = Task(Wanted("a"))
    worker.submit([task])
    assert isinstance(task.future.exception(10), ValueError)
    assert worker.is_ready
    worker.close()


@pytest.mark.parametrize(("num", "steps"), [(0, []), (1, [5]), (3, [3, 5, 8])])
def test_previews_come_at_equal_distances(num, steps, painter):
    worker, seen = Worker(painter, 5, 3), []
    task = Task(Wanted("a"), num, lambda image: seen.append(painter.steps))
    worker.submit([task])
    task.future.result(10)
    worker.close()
    assert seen == steps


def test_a_preview_is_the_one_of_its_own_picture(busy, painter):
    seen = []
    tasks = [Task(Wanted("a")), Task(Wanted("b"), 1, seen.append)]
    busy.submit(tasks)
    painter.may_go.set()
    tasks[1].future.result(10)
    assert [image.getpixel((0, 0)) for image in seen] == [(1, 0, 0)]  # the second row


def test_closing_finishes_what_waits_and_takes_nothing_more(busy, painter):
    tasks = [Task(Wanted(name)) for name in "abcde"]
    busy.submit(tasks)
    busy.close(0)
    assert not busy.is_ready
    with pytest.raises(Closed):
        busy.submit([Task(Wanted("f"))])
    painter.may_go.set()
    busy.close()
    assert all(task.future.result(0) for task in tasks)


def test_the_wait_that_is_told_follows_the_speed_of_drawing(painter):
    worker = Worker(painter, 5, 3)
    for _ in range(12):
        task = Task(Wanted("a"))
        worker.submit([task])
        task.future.result(10)
    worker.close()
    assert worker.seconds_per_picture < 0.1
