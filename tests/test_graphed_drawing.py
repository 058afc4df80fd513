"""`Muse` by CUDA graphs, rehearsed on a processor where there is no GPU: the same pictures and the same steps."""

import copy
import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from muse.canvas import Box
from muse.models.superres import Upsampling
from muse.pipeline import Muse, superres_predict
from muse.sampling import SamplingOptions
from muse.sampling import graph as graphs
from muse.sampling.decode import Plan, plan_for, reveal

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PROMPTS = ["a red apple", "two blue dog on the apple , 3d style"]
SEEDS = [3, 1]
QUICK = SamplingOptions(steps=3, guidance=2.0)
FEWER: dict[str, Any] = {"options": QUICK, "superres_options": SamplingOptions(steps=2)}


@pytest.fixture
def plain(cascade_folder):
    return Muse.from_pretrained(cascade_folder, DEVICE, "float32")


@pytest.fixture
def graphed(cascade_folder, monkeypatch):
    monkeypatch.setattr(graphs.Graphs, "fit", lambda device: True)
    return Muse.from_pretrained(cascade_folder, DEVICE, "float32").use_graphs()


@pytest.fixture
def captured(monkeypatch):
    """The options of each graph that is captured."""
    seen = []

    class Watched(graphs.GraphedDecode):
        def __init__(self, predict_of, context, options, *rest):
            seen.append(options)
            super().__init__(predict_of, context, options, *rest)

    monkeypatch.setattr(graphs, "GraphedDecode", Watched)
    return seen


def pixels(images):
    return [image.tobytes() for image in images]


@pytest.mark.parametrize("negatives", [None, ["blue", "a dog of the two"]])
@pytest.mark.parametrize("size", ["low", "high"])
def test_the_pictures_are_the_same(plain, graphed, negatives, size):
    for seeds in (SEEDS, [7, 8], [9, 9]):  # as it is, as a graph that is captured, and as one that is there
        wanted, found = (
            muse.generate(PROMPTS, seeds, negatives=negatives, size=size, **FEWER) for muse in (plain, graphed)
        )
        assert pixels(found) == pixels(wanted)


def test_callbacks_see_the_same_steps_and_may_draw_themselves(plain, graphed):
    reports = {plain: [], graphed: []}
    for muse, seen in reports.items():
        muse.generate(PROMPTS, SEEDS, **FEWER)
        muse.generate(PROMPTS, SEEDS, callback=seen.append, **FEWER)
        best = [muse.choose(PROMPTS, SEEDS, 3, options=QUICK) for _ in range(2)]
        assert best[0] == best[1]
        muse.generate(PROMPTS, SEEDS, callback=lambda _, muse=muse: muse.generate(PROMPTS, SEEDS, **FEWER), **FEWER)
    assert [report.stage for report in reports[graphed]] == ["base"] * 3 + ["superres"] * 2
    for one, other in zip(reports[plain], reports[graphed], strict=True):
        assert (one.step, one.stage) == (other.step, other.stage)
        assert one.tokens.equal(other.tokens)
        assert one.is_hidden.equal(other.is_hidden)
        torch.testing.assert_close(one.log_probs, other.log_probs)


def test_a_graph_is_captured_the_second_time_for_each_kind_of_grid_of_options_and_of_shapes(graphed, captured):
    graphed.generate(PROMPTS, SEEDS, **FEWER)
    assert captured == []
    for seeds in (SEEDS, [5, 6]):
        graphed.generate(PROMPTS, seeds, **FEWER)
    assert [options.steps for options in captured] == [3, 2]
    graphed.generate(["the dog", "an apple of 3d style"], SEEDS, **FEWER)  # shorter, but padded alike
    assert len(captured) == 2
    for _ in range(2):
        graphed.generate(PROMPTS[:1], SEEDS[:1], size="low", **FEWER)
        graphed.generate(PROMPTS, SEEDS, size="low", options=replace(QUICK, temperature=0.5))
        text, is_word = graphed.text_encoder(PROMPTS)
        graphed.draw_base(text.double(), is_word, SEEDS, QUICK)
    assert len(captured) == 5


def test_only_the_graphs_that_were_used_last_are_kept(graphed, captured, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    for steps in (1, 1, 2, 2, 1, 3, 3, 1, 2, 2):
        graphed.generate(PROMPTS[:1], SEEDS[:1], size="low", options=SamplingOptions(steps=steps))
    assert [options.steps for options in captured] == [1, 2, 3, 2]


def test_other_weights_are_not_drawn_with_by_the_graphs_of_those_before(graphed, captured, plain):
    for _ in range(2):
        graphed.generate(PROMPTS, SEEDS, size="low", **FEWER)
    graphed.draw_in(torch.bfloat16)
    found = [graphed.generate(PROMPTS, SEEDS, size="low", **FEWER) for _ in range(2)]
    assert len(captured) == 2
    assert pixels(found[1]) == pixels(plain.draw_in(torch.bfloat16).generate(PROMPTS, SEEDS, size="low", **FEWER))


def test_a_model_with_graphs_goes_with_the_last_that_holds_it(cascade_folder, monkeypatch):
    monkeypatch.setattr(graphs.Graphs, "fit", lambda device: True)
    graphed = Muse.from_pretrained(cascade_folder, DEVICE, "float32").use_graphs()
    for _ in range(2):
        graphed.generate(PROMPTS, SEEDS, **FEWER)
    kept = weakref.ref(graphed)
    gc.collect()
    gc.disable()
    del graphed
    gone = kept() is None
    gc.enable()
    assert gone, "something turns in a circle"


def test_on_a_processor_there_are_none(cascade_folder, captured):
    muse, seen = Muse.from_pretrained(cascade_folder, "cpu", "float32").use_graphs(), []
    for _ in range(2):
        muse.generate(PROMPTS, SEEDS, size="low", callback=seen.append, **FEWER)
    assert captured == []


def test_a_hole_is_filled_as_before(plain, graphed):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))
    box = Box(64, 64, 96, 96)
    wanted, found = (muse.inpaint(picture, box, PROMPTS[0], [1], **FEWER) for muse in (plain, graphed))
    assert pixels(found) == pixels(wanted)


@pytest.mark.parametrize("attention", ["full", "multi-axis"])
@pytest.mark.parametrize(("num_texts", "upsampled_dim"), [(2, 0), (4, 8)])
def test_nothing_in_super_resolution_looks_at_what_a_device_has_computed(plain, attention, num_texts, upsampled_dim):
    """On the meta device there are no numbers to look at: any look raises."""
    config = replace(plain.superres.config, attention=attention, upsampled_dim=upsampled_dim)
    parts = [type(plain.superres)(config), copy.deepcopy(plain.vqgan), copy.deepcopy(plain.vqgan_superres)]
    superres, low_vqgan, high_vqgan = (part.to("meta").eval() for part in parts)
    options, start = SamplingOptions(steps=4, guidance=1.0), torch.full((2, 256), config.mask_id)
    known = plan_for(start, options, config.mask_id)
    text = torch.zeros(num_texts, 32, config.text_dim, device="meta")
    is_word = torch.ones(num_texts, 32, dtype=torch.bool, device="meta")
    low, noise = torch.zeros(2, 64, dtype=torch.long, device="meta"), torch.rand(4, 2, 2, 256, device="meta")
    with torch.no_grad():
        upsampling = Upsampling.of(config, low_vqgan, high_vqgan)
        predict = superres_predict(superres, low, text, is_word, options, upsampling)
        plan = Plan(known.steps, known.counts.to("meta"), None)
        tokens, _ = reveal(start.to("meta"), plan, predict, options, config.mask_id, lambda i: noise[i])
    assert tokens.shape == (2, 256)
