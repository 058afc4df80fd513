"""The time that is left of a run, as its lines of progress say it."""

import math

import pytest

from muse.training.engine import StepClock


@pytest.fixture
def clock(monkeypatch):
    """A clock of a run of 1,000 steps, and a function that takes some steps in some seconds."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = StepClock(0, 1000)
    step = [0]

    def lap(steps, seconds, most=math.inf):
        step[0] += steps
        now[0] += seconds
        return clock.lap(step[0], most)

    return lap


def test_a_lap_says_seconds_a_step_and_what_is_left(clock):
    assert clock(100, 50.0) == (0.5, "0:07:30")


def test_no_more_is_left_than_the_minutes_of_the_run(clock):
    assert clock(100, 50.0, most=61.0) == (0.5, "0:01:01")
    assert clock(1, 1.0, most=-1.0) == (1.0, "0:00:00")


def test_one_slow_step_after_many_changes_little(clock):
    clock(100, 50.0)
    seconds, left = clock(1, 20.0)
    assert seconds == 20
    assert left == "0:13:13"  # 45 s for 51 steps, of which 899 are left


def test_a_run_that_has_become_slower_is_soon_seen_as_such(clock):
    clock(100, 50.0)
    laps = [clock(100, 100.0) for _ in range(6)]
    assert laps[-1] == (1.0, "0:04:59")
