"""The table that waits for a GPU runs whole where there is none."""

import json
from dataclasses import replace

import pytest

from benchmarks.gpu import Gpu, cascades, main


@pytest.fixture(autouse=True)
def in_few_steps(monkeypatch):
    """Each row draws in two steps of the base: another number is no other row."""
    monkeypatch.setattr(
        "benchmarks.gpu.cascades", lambda rehearse: [replace(each, steps=2) for each in cascades(rehearse)]
    )


def test_its_rehearsal_measures_every_row(capsys):
    main(Gpu(batches=(1, 2), how=("graph", "kernels"), rounds=1, rehearse=True))
    *rows, about = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert {(row["model"], row["what"], row["batch"]) for row in rows} >= {
        ("muse-3b + superres-738m", "a picture of 512 px, graph, bfloat16", 1),
        ("muse-632m", "a picture of 256 px, kernels, bfloat16", 2),
        ("muse-632m", "a training step", 2),
    }
    assert len(rows) == 18
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert about["peak_tflops"] > 0


def test_float8_is_rehearsed_too(capsys):
    main(Gpu(batches=(1,), how=("graph",), precision="float8", train=False, rounds=1, rehearse=True))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")][:-1]
    assert len(rows) == 4
    assert all(row["what"].endswith("graph, float8") for row in rows)
    assert all(float(row["seconds"]) > 0 for row in rows)


def test_it_stops_when_its_time_is_over(capsys):
    main(Gpu(batches=(1,), how=("graph", "kernels"), rounds=1, rehearse=True, seconds=0.0))
    assert capsys.readouterr().out.count("no time left") == 9


def test_without_a_gpu_it_says_what_to_do():
    with pytest.raises(SystemExit, match="--rehearse"):
        main(Gpu())
