"""The benchmark of super-resolution measures what it says."""

from benchmarks import superres_cost
from benchmarks.superres_cost import Cost, Options, measure, table

TINY = Options(sides=(8, 16), dim=16, depth=1, low_depth=1, num_codes=8, steps=2, threads=1)


def test_a_case_is_the_whole_stage_of_one_picture(monkeypatch):
    steps = []
    draw = superres_cost.draw
    monkeypatch.setattr(
        superres_cost, "draw", lambda superres, options: (steps.append(options.steps), draw(superres, options))
    )
    cost = measure(8, "multi-axis", TINY)
    assert steps == [1, 2]  # to warm up, and what is measured
    assert (cost.tokens, cost.attention) == (64, "multi-axis")
    assert 0 < cost.seconds < 60


def test_the_table_has_a_row_for_each_case():
    costs = [Cost(64, "full", 1.5, 20.0), Cost(256, "multi-axis", 0.25, 3.0)]
    assert table(costs).splitlines() == [
        "| tokens | attention | seconds | MiB |",
        "| --- | --- | --- | --- |",
        "| 64 | full | 1.50 | 20 |",
        "| 256 | multi-axis | 0.25 | 3 |",
    ]
