"""A run can be made longer without its phases coming apart."""

import json

import pytest
import torch

from projects.emoji import recipe, ship, train
from projects.emoji.painter import Painter
from projects.emoji.recipe import PLACES, in_steps

RUNS = (
    recipe.vqgan,
    recipe.vqgan_superres,
    recipe.decoder,
    recipe.base,
    recipe.superres,
    recipe.decoder_low,
    recipe.decoder_drawn,
)


@pytest.mark.parametrize("run", RUNS)
def test_a_longer_run_has_its_phases_after_the_same_shares_of_it(run):
    short, long = run(PLACES), in_steps(run(PLACES), 40_000)
    assert long.engine.steps == 40_000
    assert long.model == short.model if hasattr(short, "model") else long.decoder_channels == short.decoder_channels
    assert long.engine.warmup / 40_000 == pytest.approx(short.engine.warmup / short.engine.steps, abs=1e-4)
    for phase in recipe.PHASES:
        if hasattr(short, phase):
            share = getattr(short, phase) / short.engine.steps
            assert getattr(long, phase) / 40_000 == pytest.approx(share, abs=1e-4)
            assert 0 < share <= 1


@pytest.mark.parametrize("run", RUNS)
def test_without_a_number_of_steps_a_run_is_the_recipes(run):
    assert in_steps(run(PLACES), None) == run(PLACES)


def test_scenes_are_painted_by_a_worker_without_a_gpu_and_on_the_gpu_with_one(art, monkeypatch):
    training = recipe.vqgan(PLACES)
    batches, same = train.scenes_for(art, 3, training)
    assert isinstance(batches, train.PicturesOfStep)
    assert same == training

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    devices = []

    def painter(*given, device, **named):
        devices.append(device)
        return Painter(*given, **named)

    monkeypatch.setattr(train, "Painter", painter)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    batches, changed = train.scenes_for(art, 3, training)
    assert batches(0).shape == (3, 3, art.size, art.size)
    assert changed.engine.workers == 0  # a worker process could not share the GPU
    assert changed.model == training.model
    monkeypatch.setenv("LOCAL_RANK", "1")  # as torchrun says which process of a machine this is
    train.scenes_for(art, 3, training)
    assert devices == ["cuda:0", "cuda:1"]


def test_the_model_card_has_the_headline_figures_of_the_bench(tmp_path):
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    row = {"split": "seen", "num": 40, "score": figure, "share": {"value": 0.625}}
    rows = [
        row | {"category": "single", "metric": "R@5"},
        row | {"category": "single", "metric": "R@1"},
        row | {"category": "pair", "metric": "both found", "share": None},
    ]
    (tmp_path / "bench.json").write_text(json.dumps({"commit": "abc1234", "rows": rows}))
    card = ship.figures(tmp_path / "bench.json")
    assert "| single, seen | R@5 | 40 | 50 (40–60) | 62 |" in card
    assert "| pair, seen | both found | 40 | 50 (40–60) | - |" in card
    assert "R@1" not in card
    assert "commit abc1234" in card
