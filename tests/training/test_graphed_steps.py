"""Steps that one CUDA graph holds: the steps that are taken without it, and nothing in them looks at the device."""

import dataclasses

import pytest
import torch

from muse.training.base import BaseStage, BaseTraining
from muse.training.engine import EngineOptions
from muse.training.optimizers import optimizer_for
from muse.training.superres import SuperResStage, SuperResTraining
from tests.training.tiny_runs import (
    BASE_CONFIG,
    SUPERRES_CONFIG,
    options,
    pairs_at,
    text_encoder,
    tokens_at,
)

STAGES = {
    "base": (BaseStage, BaseTraining, BASE_CONFIG, tokens_at),
    "superres": (SuperResStage, SuperResTraining, SUPERRES_CONFIG, pairs_at),
}

TOLD = {"caption_drop": 0.0, "caption_mix": 0.5}

APART = {"adamw": 1e-4, "adafactor": 1e-4, "muon": 0.2}
"""How far weights may be apart after as many steps, in shares of how far they have moved. Muon makes steps orthogonal
in bfloat16, which makes much of how small gradients are rounded, on some processors more than on others."""


def stage_of(folder, name, is_graph, **changes):
    stage_class, training_class, model, batch_at = STAGES[name]
    engine = options(folder, steps=8, warmup=3, learning_rate=3e-3, ema_decay=0.5, graph=is_graph)
    return stage_class(training_class(engine=engine, model=model, **changes), text_encoder()), batch_at


def trained(folder, name, is_graph, **changes):
    stage, batch_at = stage_of(folder, name, is_graph, **changes)
    losses = []
    for step in range(8):
        stage.engine.step = step
        losses.append(stage.step(batch_at(step), step)["loss"])
    return stage, torch.stack(losses)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "muon"])
def test_they_are_the_steps_without_a_graph(tmp_path, name, optimizer):
    """Without dropped captions, of which there is another number in a step without a graph."""
    plain, losses = trained(tmp_path / "plain", name, is_graph=False, optimizer=optimizer, **TOLD)
    graphed, same = trained(tmp_path / "graph", name, is_graph=True, optimizer=optimizer, **TOLD)
    torch.testing.assert_close(same, losses, atol=1e-4, rtol=1e-4)
    start = stage_of(tmp_path / "start", name, is_graph=False, optimizer=optimizer)[0].network.state_dict()
    for mine, other in ((graphed.network, plain.network), (graphed.averaged(), plain.averaged())):
        for key, weight in other.state_dict().items():
            moved = (weight - start[key]).norm()
            assert moved > 0, key
            assert (mine.state_dict()[key] - weight).norm() < APART[optimizer] * moved, key


def test_each_drops_the_same_share_of_the_captions(tmp_path):
    stage, batch_at = stage_of(tmp_path, "base", is_graph=True, caption_drop=0.25)
    for step in range(5):
        _, tokens, _, text, is_word = stage.inputs(batch_at(step), torch.Generator().manual_seed(step))
        assert (len(tokens), len(text), len(is_word)) == (4, 3, 3)
        assert text.shape[1] == 32  # padded, so that other captions have no other shape


def on_meta(tensors):
    return [tensor.to("meta") for tensor in tensors]


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("optimizer", ["adafactor", "muon"])
def test_nothing_in_them_looks_at_what_a_device_has_computed(tmp_path, name, optimizer):
    """On the meta device there are no numbers to look at: any look raises."""
    stage, batch_at = stage_of(tmp_path, name, is_graph=True, optimizer=optimizer, caption_drop=0.25)
    inputs = stage.inputs(batch_at(0), torch.Generator().manual_seed(0))
    for module in (stage.network, stage.averaged(), stage.average):
        module.to("meta")
    stage.optimizer = optimizer_for(stage.network, optimizer, 1e-3, 0.045)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        stage._captured(*on_meta(inputs))  # the average looks whether this is its first step
    stage.graphed.is_capturing = True
    loss, norm = stage._captured(*on_meta(inputs))
    assert (loss.shape, norm.shape, loss.device.type) == ((), (), "meta")


@pytest.mark.parametrize("changes", [{"accumulate": 2}, {"recompute": True}, {"strategy": "fsdp"}])
def test_what_one_graph_cannot_hold_is_refused_with_one_sentence(tmp_path, changes):
    with pytest.raises(ValueError, match=r"^graph is given with accumulate, recompute or fsdp; a step is one graph"):
        dataclasses.replace(EngineOptions(tmp_path, steps=1, graph=True), **changes)


def test_a_run_reports_the_norm_of_its_gradient_and_stops_where_it_is_none(tmp_path):
    stage, batch_at = stage_of(tmp_path, "base", is_graph=True, caption_drop=0.25)
    stage.run(batch_at, [], None)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 8
    assert all('"gradient_norm"' in line for line in lines)
    broken, _ = stage_of(tmp_path / "broken", "base", is_graph=True, caption_drop=0.25)
    broken.network.embed.weight.data.fill_(torch.nan)
    with pytest.raises(ArithmeticError, match=r"^loss is nan at step 1; the last checkpoint is kept"):
        broken.run(batch_at, [], None)


def test_a_batch_too_small_to_drop_its_share_of_the_captions_is_refused(tmp_path):
    stage, batch_at = stage_of(tmp_path, "base", is_graph=True, caption_drop=0.1)  # of 4 captions
    with pytest.raises(ValueError, match=r"of 4 none is 10%; give a batch size of at least 6, a caption drop of 0"):
        stage.step(batch_at(0), 0)
