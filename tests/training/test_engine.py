"""The engine: schedules, clipping, averages, and runs that can be stopped anywhere and go on to the bit."""

import contextlib
import copy
import dataclasses
import itertools
import json
import math
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import unittest.mock
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.checkpoint.metadata import TensorProperties, TensorStorageMetadata

from muse.checkpoint import load_module
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.training import state
from muse.training.decoder import train_decoder
from muse.training.engine import Engine, EngineOptions, NotFinite, Stopped, average_of, best_precision, learning_rate
from muse.training.loggers import MODULES
from muse.training.optimizers import CLASSES, AdaFactor
from muse.training.perceptual import PerceptualLoss
from muse.training.pictures import losses_of
from muse.training.vqgan import train_vqgan
from tests.training import tiny_runs
from tests.training.tiny_runs import BATCHES, FINGERPRINT, NETWORKS, RUNS, options, signalling, tokens_at

pytestmark = pytest.mark.xdist_group("engine")  # one worker sets up once what they share

ROOT = Path(__file__).parents[2]
STAGES = list(RUNS)


class Line:
    """The smallest stage: one weight, a gradient of 1, and a batch that can spoil it."""

    def __init__(self, engine_options, batch_at=lambda step: torch.ones(1)):
        self.engine, self.batch_at = Engine(engine_options), batch_at
        self.weight = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.weight.weight)
        self.optimizer = torch.optim.SGD(self.weight.parameters(), lr=1)
        self.state = {"weight": self.weight, "optimizer": self.optimizer}
        self.weights, self.exported = [0.0], []

    def step(self, batch, step):
        loss = self.weight(batch).sum()
        self.engine.update(loss, self.optimizer, self.weight)
        self.weights.append(self.weight.weight.item())
        return {"loss": loss.detach()}

    def run(self):
        def after_save(step):
            self.exported.append(step)
            return {"validation_loss": torch.tensor(0.5)}

        self.engine.run(self.state, self.batch_at, self.step, after_save)
        return self


def metrics_of(folder):
    """The last line of each step; a run that was killed has taken some steps twice."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: {k: v for k, v in line.items() if k != "seconds_a_step"} for line in lines}


def state_of(folder) -> dict[str, Any]:
    """The last checkpoint: the tensors of each part by name."""
    path = state.latest(folder / "checkpoints")
    assert path is not None
    entries: dict[str, Any] = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    tensors = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in entries.items()}
    dcp.load(tensors, storage_reader=dcp.FileSystemReader(path), no_dist=True)
    parts: dict[str, Any] = {"step": int(tensors.pop("step"))}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = tensor
    return parts


def differences(one, other, path=""):
    """Where two nested states differ, to the bit."""
    if isinstance(one, torch.Tensor):
        return [] if one.dtype == other.dtype and one.equal(other) else [path]
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        return [d for key in one for d in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple):
        assert len(one) == len(other), path
        return [d for i, (a, b) in enumerate(zip(one, other, strict=True)) for d in differences(a, b, f"{path}.{i}")]
    return [] if one == other else [path]


def assert_same_run(folder, unbroken):
    assert differences(state_of(folder), state_of(unbroken)) == []
    # A run that was asked to stop has validated once more.
    metrics, expected = metrics_of(folder), metrics_of(unbroken)
    assert {step: {name: metrics[step][name] for name in line} for step, line in expected.items()} == expected


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The folders of a run of each stage that nothing stopped."""
    folders = {stage: tmp_path_factory.mktemp(stage) for stage in STAGES}
    for stage, folder in folders.items():
        RUNS[stage](options(folder))
    return folders


@pytest.fixture
def begun(tmp_path, unbroken):
    """A function: a folder of its own with the run of a stage, which may go on."""
    return lambda stage: shutil.copytree(unbroken[stage], tmp_path / "begun")


# -- the learning rate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (6, 0.775), (7, 0.55), (8, 0.325), (10, 0.1)]
)
def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine(tmp_path, step, rate):
    schedule = EngineOptions(tmp_path, steps=10, learning_rate=2.0, warmup=4, final_rate=0.1)
    assert learning_rate(step, schedule) == pytest.approx(2 * rate)


def test_without_warm_up_the_first_step_has_the_full_learning_rate(tmp_path):
    schedule = EngineOptions(tmp_path, steps=4, learning_rate=3.0)
    rates = [learning_rate(step, schedule) for step in range(5)]
    assert rates == pytest.approx([3 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(5)])


def test_a_run_that_only_warms_up_divides_by_nothing(tmp_path):
    assert learning_rate(2, EngineOptions(tmp_path, steps=3, warmup=3)) == pytest.approx(1e-4)


def test_of_steps_and_time_the_one_nearer_to_its_end_lowers_the_learning_rate(tmp_path):
    schedule = EngineOptions(tmp_path, steps=10, learning_rate=2.0, warmup=2, final_rate=0.1)
    assert learning_rate(6, schedule, 0.25) == learning_rate(6, schedule)
    assert learning_rate(2, schedule, 0.5) == learning_rate(6, schedule) == pytest.approx(1.1)
    assert learning_rate(2, schedule, 7.0) == pytest.approx(0.2)
    assert learning_rate(0, schedule, 0.5) == pytest.approx(1.0), "the warm-up has the lower one"
    assert learning_rate(1, schedule, 0.95) == learning_rate(2, schedule, 0.95) < 0.3, "the time is nearly over"


def test_a_run_of_some_minutes_ends_with_them_saved_and_exported(tmp_path, monkeypatch):
    clock = iter(range(0, 10**6, 30))  # each look at it is half a minute later
    monkeypatch.setattr("muse.training.engine.time.monotonic", lambda: next(clock))
    line = Line(options(tmp_path, steps=50, minutes=2.0, save_every=100, log_every=100)).run()
    assert 2 <= line.engine.step <= 4
    assert (state_of(tmp_path)["step"], line.exported) == (line.engine.step, [line.engine.step])
    assert list(metrics_of(tmp_path)) == [line.engine.step]


def test_each_step_is_taken_at_its_learning_rate(tmp_path):
    schedule = options(tmp_path, steps=8, learning_rate=1.0, warmup=3, final_rate=0.2)
    weights = Line(schedule).run().weights
    moves = [before - after for before, after in itertools.pairwise(weights)]
    assert moves == pytest.approx([learning_rate(step, schedule) for step in range(8)], rel=1e-5)


# -- clipping, averages, precision --------------------------------------------------------------------------------


@pytest.mark.parametrize(("clip", "norm"), [(1.0, 1.0), (0.3, 0.3), (None, 500.0), (1000.0, 500.0)])
def test_clipping_bounds_the_norm_of_all_gradients_together(tmp_path, clip, norm):
    network = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 1, bias=False))
    for layer, weight in zip(network, ([3.0, 4.0], [2.0]), strict=True):
        layer.weight.data = torch.tensor([weight])
    optimizer = torch.optim.SGD(network.parameters(), lr=0)
    factor = 500 / math.sqrt(4 + 4 + 49)  # the gradients are (2, 2) and 3 + 4
    Engine(options(tmp_path, clip=clip)).update(factor * network(torch.ones(1, 2)).sum(), optimizer, network)
    gradients = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    assert gradients.norm().item() == pytest.approx(norm, rel=1e-4)
    torch.testing.assert_close(gradients / gradients.norm(), torch.tensor([2.0, 2, 7]) / math.sqrt(57))


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_the_average_keeps_the_given_share_of_itself(decay):
    """Muse-maskgit-pytorch: the average is never given its decay."""
    network = nn.Linear(2, 1)
    average, expected = average_of(network, decay), None
    for step in range(4):
        network.weight.data.fill_(float(step * step))
        average.update_parameters(network)
        now = float(step * step)
        expected = now if expected is None else decay * expected + (1 - decay) * now
        torch.testing.assert_close(average.module.weight.data, torch.full((1, 2), expected))
    assert network.weight.data.equal(torch.full((1, 2), 9.0))


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_averages_with_the_decay_of_its_options(tmp_path, stage):
    RUNS[stage](options(tmp_path, steps=2, ema_decay=0.0))
    state = state_of(tmp_path)
    averaged = {name.removeprefix("module."): w for name, w in state["average"].items() if name != "n_averaged"}
    assert differences(averaged, dict(state[NETWORKS[stage]])) == []


def test_bfloat16_is_taken_where_the_machine_computes_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for has_it, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has_it=has_it: has_it)
        assert best_precision() == precision
        assert Engine(EngineOptions(tmp_path, steps=1)).fabric._precision.precision == precision


def test_training_leaves_a_gpu_without_float64_alone(tmp_path, monkeypatch):
    """Apple's, which Fabric would take by itself; metrics are summed in float64."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("lightning_fabric.accelerators.mps.MPSAccelerator.is_available", lambda: True)
    assert Engine(options(tmp_path)).fabric.device.type == "cpu"


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_trains_in_bfloat16_with_weights_in_float32(tmp_path, stage):
    RUNS[stage](options(tmp_path, steps=4, precision="bf16-mixed"))
    state = state_of(tmp_path)
    assert state["step"] == 4
    network = state[NETWORKS[stage]]
    assert {w.dtype for w in network.values()} == {torch.float32}


# -- stopping and going on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_stopped_by_sigterm_and_resumed_equals_the_unbroken_one(tmp_path, stage, unbroken):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as stopped:
        RUNS[stage](options(tmp_path), signalling(BATCHES[stage], 2, signal.SIGTERM))
    assert stopped.value.code == 143
    assert (tmp_path / NETWORKS[stage] / "config.json").is_file()
    assert state_of(tmp_path)["step"] == 3  # the step that was under way is finished and saved
    assert signal.getsignal(signal.SIGTERM) == handler
    RUNS[stage](options(tmp_path))
    assert_same_run(tmp_path, unbroken[stage])


def test_ctrl_c_saves_and_leaves_too(tmp_path):
    line = Line(options(tmp_path, save_every=100), signalling(lambda step: torch.ones(1), 2, signal.SIGINT))
    with pytest.raises(Stopped) as stopped:
        line.run()
    assert stopped.value.code == 130
    assert (state_of(tmp_path)["step"], line.exported) == (3, [3])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_of_processes_leaves_the_workers_to_the_engine(tmp_path, number):
    def batch_at(step):
        if step == 2:
            os.killpg(0, number)  # by a worker, to itself and to the run
        return torch.ones(1)

    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            Line(options(tmp_path, workers=1, save_every=100), batch_at).run()
        except Stopped as stopped:
            status = int(stopped.code or 0)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + number
    assert 1 <= state_of(tmp_path)["step"] < options(tmp_path).steps


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_outright_and_resumed_equals_the_unbroken_one(tmp_path, stage, unbroken):
    kill(stage, tmp_path, "step", 5)
    assert state_of(tmp_path)["step"] == 4
    assert set(metrics_of(tmp_path)) == {1, 2, 3, 4, 5}
    RUNS[stage](options(tmp_path))
    assert_same_run(tmp_path, unbroken[stage])


def test_a_run_that_has_taken_its_steps_says_so(tmp_path, caplog):
    RUNS["base"](options(tmp_path, steps=3))
    caplog.clear()
    with caplog.at_level("INFO"):
        RUNS["base"](options(tmp_path, steps=1))
    told = [record.message for record in caplog.records if record.name == "muse.training.engine"]
    assert told[-1] == f"the run in {tmp_path} has taken 3 of 1 steps; give more --engine.steps to go on"
    assert set(metrics_of(tmp_path)) == {1, 2, 3}


def kill(stage, folder, where, step):
    """Begin a run, or go on with it, and kill it before a step; or while it saves: when a file of the checkpoint is to
    be flushed ("fsync"), or when the whole one is to take its name ("replace")."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            if where != "step":
                setattr(os, where, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
            RUNS[stage](options(folder), signalling(BATCHES[stage], step, signal.SIGKILL))
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, f"{where} {step}"


def kill_at_random(stage, folder, rng):
    """Kill a run before any of its steps, or while it saves; where it was killed."""
    latest = state.latest(folder / "checkpoints")
    done = int(latest.name.removeprefix("step-")) if latest else 0
    where = rng.choice(["step", "step", "fsync", "replace"])
    step = rng.randrange(done, options(folder).steps) if where == "step" else -1
    kill(stage, folder, where, step)
    return f"step {step}" if where == "step" else f"{where} after step {done}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_three_times_at_random_equals_the_unbroken_one(tmp_path, stage, unbroken):
    """KILL_SEED, printed when the test fails, brings the same kills again."""
    seed = int(os.environ.get("KILL_SEED", random.SystemRandom().randrange(10**6)))
    rng = random.Random(seed)
    print(f"KILL_SEED={seed}")
    print("killed at", [kill_at_random(stage, tmp_path, rng) for _ in range(3)])
    RUNS[stage](options(tmp_path))
    assert_same_run(tmp_path, unbroken[stage])


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_run_killed_while_it_saves_goes_on_from_the_checkpoint_before(tmp_path, call, unbroken):
    with pytest.raises(Stopped):
        RUNS["base"](options(tmp_path), signalling(tokens_at, 2, signal.SIGTERM))
    rng = unittest.mock.Mock(choice=lambda places: call)
    assert kill_at_random("base", tmp_path, rng) == f"{call} after step 3"
    assert state_of(tmp_path)["step"] == 3
    RUNS["base"](options(tmp_path))
    assert_same_run(tmp_path, unbroken["base"])


@pytest.mark.parametrize("stage", STAGES)
def test_batches_made_by_another_process_give_the_same_run(tmp_path, stage, unbroken):
    RUNS[stage](options(tmp_path, workers=1))
    assert_same_run(tmp_path, unbroken[stage])


@pytest.mark.parametrize("stage", STAGES)
def test_another_seed_is_another_run(tmp_path, stage, unbroken):
    RUNS[stage](options(tmp_path, seed=1, save_every=100))
    assert differences(state_of(tmp_path), state_of(unbroken[stage]))


def test_a_finished_run_started_again_takes_no_step_and_exports_again(tmp_path):
    """A run killed between its last checkpoint and its export would otherwise never have one."""
    Line(options(tmp_path, steps=3)).run()
    before = (tmp_path / "metrics.jsonl").read_text()
    again = Line(options(tmp_path, steps=3)).run()
    assert (again.weights, again.exported) == ([0.0], [3])
    assert again.weight.weight.item() != 0
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_checkpoints_come_every_so_many_steps_and_at_the_end(tmp_path):
    assert Line(options(tmp_path, steps=7, save_every=3)).run().exported == [3, 6, 7]


def test_the_checkpoint_before_survives_a_disk_that_is_full(tmp_path, monkeypatch):
    line = Line(options(tmp_path, save_every=2))
    write = os.fsync

    def full(descriptor):
        if line.engine.step == 4:
            raise OSError(28, "No space left on device")
        write(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"^the checkpoint of step 4 cannot be written to .* \(.*No space left.*\)$"):
        line.run()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert state_of(tmp_path)["step"] == 2
    monkeypatch.undo()
    assert Line(options(tmp_path)).run().exported == [4, 6]


def test_a_disk_that_is_truly_full_leaves_the_checkpoint_before(tmp_path):
    """The system itself refuses to write more: a limit to the size of a file, as no test may fill a disk."""
    Line(options(tmp_path, steps=2)).run()
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
            try:
                Line(options(tmp_path, log_every=100)).run()
            except OSError as error:
                status = 0 if str(error).startswith("the checkpoint of step 4 cannot be written to") else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert Line(options(tmp_path)).run().exported == [4, 6]


def test_a_run_begun_before_checkpoints_were_folders_goes_on(tmp_path):
    line, unbroken = Line(options(tmp_path / "old")), Line(options(tmp_path / "new")).run()
    for line.engine.step in range(2):
        line.step(torch.ones(1), line.engine.step)
    old = {name: part.state_dict() for name, part in line.state.items()}
    torch.save({**old, "step": 2}, tmp_path / "state.pt")
    resumed = Line(options(tmp_path)).run()
    assert resumed.weights[-1] == unbroken.weights[-1]
    assert state_of(tmp_path)["step"] == 6


def test_a_checkpoint_of_other_networks_is_refused_with_one_sentence(tmp_path):
    Line(options(tmp_path, steps=2)).run()
    other = Line(options(tmp_path))
    other.state["weight"] = nn.Linear(3, 1, bias=False)
    with pytest.raises(ValueError, match=r"^weight/weight is of shape \(1, 1\) in .*step-00000002, and this run has"):
        other.run()
    other.state["weight"] = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"^weight/bias is missing in .*; the run there was begun with other options"):
        other.run()


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_wrong_with_a_batch_is_told_in_its_one_sentence_and_no_process_stays(tmp_path, workers):
    def spoilt(step):
        if step == 2:
            raise ValueError("none of the pictures can be read; see that the source holds pictures")
        return tokens_at(step)

    with pytest.raises(ValueError, match=r"^none of the pictures can be read; see that the source holds pictures$"):
        RUNS["base"](options(tmp_path, workers=workers), spoilt)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("stage", ["base", "superres"])
def test_a_run_does_not_go_on_with_the_tokens_of_another_vqgan(begun, stage, monkeypatch):
    folder = begun(stage)
    before = (folder / stage / "config.json").read_text()
    monkeypatch.setattr("tests.training.tiny_runs.FINGERPRINT", "ba9876543210")
    said = rf"^the {stage} of the run in \S+ was begun with vqgan_fingerprint {FINGERPRINT}, and this one has "
    with pytest.raises(ValueError, match=rf"{said}ba9876543210; give the same, or another folder$"):
        RUNS[stage](options(folder, steps=8))
    assert (folder / stage / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("stage", "config", "field", "value"),
    [
        ("base", "BASE_CONFIG", "heads", 4),
        ("superres", "SUPERRES_CONFIG", "attention", "full"),
        ("vqgan", "VQGAN_CONFIG", "norm_groups", 2),
        ("vqgan", "VQGAN_CONFIG", "decoder_padding", "replicate"),
    ],
)
def test_a_run_does_not_go_on_as_another_network_whose_weights_have_the_same_shapes(
    begun, stage, config, field, value, monkeypatch
):
    folder = begun(stage)
    before = state_of(folder)
    other = dataclasses.replace(getattr(tiny_runs, config), **{field: value})
    monkeypatch.setattr(tiny_runs, config, other)
    with pytest.raises(
        ValueError, match=rf"^the {stage} of the run in .* was begun with {field} .*this one has {value}"
    ):
        RUNS[stage](options(folder, steps=8))
    assert differences(before, state_of(folder)) == []


def test_a_run_may_go_on_with_another_dropout(tmp_path):
    RUNS["base"](options(tmp_path, steps=2), dropout=0.1)
    RUNS["base"](options(tmp_path, steps=4), dropout=0.0)
    assert state_of(tmp_path)["step"] == 4


class Rows:
    """Batches that know their order."""

    def __init__(self, **changes):
        order = {"rows": 12, "held-out": 2, "batch-size": 4, "engine.seed": 0, "content": "0123"}
        self.order: dict[str, Any] = order | changes

    def __call__(self, step):
        return torch.ones(1)


@pytest.mark.parametrize("change", [{"held-out": 3}, {"engine.seed": 1}])
def test_a_run_does_not_go_on_with_other_rows_held_out_or_another_seed(tmp_path, change):
    Line(options(tmp_path, steps=2), Rows()).run()
    ((name, value),) = change.items()
    said = rf"was begun with --{name} {Rows().order[name]}, and this one has {value}; give the same, or another folder$"
    with pytest.raises(ValueError, match=said):
        Line(options(tmp_path), Rows(**change)).run()
    assert state_of(tmp_path)["step"] == 2


@pytest.mark.parametrize("change", [{"rows": 20}, {"batch-size": 8}, {"content": "4567"}])
def test_a_run_goes_on_with_more_rows_or_larger_batches_and_says_once_what_comes_of_it(tmp_path, change, caplog):
    Line(options(tmp_path, steps=2), Rows()).run()
    Line(options(tmp_path, steps=4), Rows(**change)).run()
    ((name, value),) = change.items()
    (said,) = [record.message for record in caplog.records if "goes on with" in record.message]
    assert f"was begun with {name} {Rows().order[name]} and goes on with {value}: " in said
    caplog.clear()
    Line(options(tmp_path, steps=6), Rows(**change)).run()
    assert "goes on with" not in caplog.text
    assert state_of(tmp_path)["step"] == 6


def test_more_rows_are_other_ones_and_that_is_said_once(tmp_path, caplog):
    Line(options(tmp_path, steps=2), Rows()).run()
    Line(options(tmp_path, steps=4), Rows(rows=20, content="4567")).run()
    assert caplog.text.count("goes on with") == 1


def told_of_changes(caplog):
    """What was said since the last time of what a run goes on with."""
    found = [record.message.split("was begun with ")[1] for record in caplog.records if "begun with" in record.message]
    caplog.clear()
    return [sentence.split(":")[0] for sentence in found]


def test_a_run_that_goes_on_with_other_losses_says_so(tmp_path, caplog):
    def run(steps, **changes):
        training = tiny_runs.vqgan_training(options(tmp_path, steps=steps), **changes)
        train_vqgan(training, tiny_runs.pictures_at, tiny_runs.pictures_at(99)[:2], None)
        return told_of_changes(caplog)

    assert run(2) == []
    assert run(3, adversarial_weight=0.5, commitment_weight=1.0) == [
        "adversarial-weight 0.1 and goes on with 0.5",
        "commitment-weight 0.25 and goes on with 1.0",
    ]
    assert run(4, adversarial_weight=0.5, commitment_weight=1.0) == []
    # A run of before has noted less.
    order = {
        name: value for name, value in json.loads((tmp_path / "order.json").read_text()).items() if "-" not in name
    }
    (tmp_path / "order.json").write_text(json.dumps(order))
    assert run(5) == []
    training = tiny_runs.vqgan_training(options(tmp_path))
    assert losses_of(training, PerceptualLoss())["perceptual"] != losses_of(training, None)["perceptual"]


def test_a_decoder_that_goes_on_without_what_drew_says_so(tmp_path, caplog):
    def run(steps, drawn):
        train_decoder(
            tiny_runs.decoder_training(options(tmp_path, steps=steps)),
            tiny_runs.trained_vqgan(),
            tiny_runs.pictures_at,
            tiny_runs.pictures_at(99)[:2],
            None,
            drawn,
        )
        return told_of_changes(caplog)

    class Drawn:
        fingerprint = "0123"

        def __call__(self, pictures, step):
            return torch.zeros(len(pictures), 4 * 4, dtype=torch.long)

    drawn = Drawn()
    assert run(2, drawn) == []
    assert run(3, drawn) == []
    drawn.fingerprint = "4567"
    assert run(4, drawn) == ["drawn-by 0123 and goes on with 4567"]
    assert run(5, None) == ["drawn-by 4567 and goes on with none"]
    assert run(6, None) == []


def test_a_run_that_has_not_noted_the_order_of_its_rows_goes_on(tmp_path):
    Line(options(tmp_path, steps=2)).run()
    Line(options(tmp_path, steps=4), Rows()).run()
    with pytest.raises(ValueError, match="was begun with --held-out 2"):
        Line(options(tmp_path), Rows(**{"held-out": 0})).run()


def test_steps_that_are_taken_again_have_one_line_of_metrics(tmp_path):
    Line(options(tmp_path, steps=4)).run()
    with (tmp_path / "metrics.jsonl").open("a") as lines:  # as a run leaves it that is killed before it saves
        lines.write('{"step": 5, "loss": 7.0}\n{"step": 6, "lo')
    Line(options(tmp_path, steps=6)).run()
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert metrics_of(tmp_path)[5]["loss"] != 7.0


@pytest.mark.parametrize("theirs", CLASSES)
def test_a_run_goes_on_with_its_own_optimizer_only_and_another_is_refused_with_one_sentence(tmp_path, theirs):
    RUNS["base"](options(tmp_path, steps=2), optimizer=theirs)
    for mine in CLASSES.keys() - {theirs}:
        with pytest.raises(
            ValueError,
            match=rf"^\S*step-00000002 is of a run with the optimizer {theirs}, and this run has {mine}; "
            rf"give --optimizer {theirs}, or another folder$",
        ):
            RUNS["base"](options(tmp_path), optimizer=mine)
    RUNS["base"](options(tmp_path, steps=3), optimizer=theirs)
    assert state_of(tmp_path)["step"] == 3


def test_an_old_checkpoint_of_another_optimizer_is_refused_too(tmp_path):
    network = nn.Linear(1, 1)
    theirs, mine = torch.optim.AdamW(network.parameters()), AdaFactor(network.parameters(), lr=1.0)
    network(torch.ones(1)).sum().backward()
    theirs.step()
    old = {"network": network.state_dict(), "optimizer": theirs.state_dict(), "step": 1}
    torch.save(old, tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt is of a run with the optimizer adamw, and this run has adafactor"):
        state.read_old({"network": network, "optimizer": mine}, tmp_path / "state.pt")
    assert state.read_old({"network": network, "optimizer": theirs}, tmp_path / "state.pt") == 1


@pytest.mark.parametrize(("kept", "kind"), [({"fused": True}, "cuda"), ({"capturable": True}, "cuda"), ({}, "cpu")])
def test_the_count_of_steps_is_restored_where_the_optimizer_keeps_it(kept, kind):
    entry = TensorStorageMetadata(TensorProperties(dtype=torch.float32), torch.Size([]), [])
    with FakeTensorMode():
        network = nn.Module()
        network.weight = nn.Parameter(torch.empty(1, 1, device="cuda"))
        optimizer = torch.optim.AdamW(network.parameters(), **kept)
        parts = {"network": network, "optimizer": optimizer}
        tensors = state.targets(parts, {"optimizer/network.weight/step": entry})
        state.fill_optimizers(parts, tensors)
    assert optimizer.state[network.weight]["step"].device.type == kind


def test_weights_that_stay_are_kept_every_so_many_steps(tmp_path):
    kept = []
    line = Line(options(tmp_path, steps=7, keep_every=3, save_every=2))
    line.engine.run(line.state, line.batch_at, line.step, lambda step: {}, kept.append)
    names = [path.relative_to(tmp_path).as_posix() for path in kept]
    assert names == [f"kept/step-0000000{step}" for step in (3, 6, 7)], "and those of the end"


def test_a_run_that_is_stopped_keeps_no_weights_of_where_it_was_stopped(tmp_path):
    kept = []
    line = Line(options(tmp_path, steps=7, keep_every=3), signalling(lambda step: torch.ones(1), 3, signal.SIGTERM))
    with pytest.raises(Stopped):
        line.engine.run(line.state, line.batch_at, line.step, lambda step: {}, kept.append)
    assert (state_of(tmp_path)["step"], [path.name for path in kept]) == (4, ["step-00000003"])


def test_a_run_that_is_stopped_in_its_last_step_keeps_the_weights_of_its_end(tmp_path):
    kept = []
    line = Line(options(tmp_path, steps=5, keep_every=2), signalling(lambda step: torch.ones(1), 4, signal.SIGINT))
    with pytest.raises(Stopped):
        line.engine.run(line.state, line.batch_at, line.step, lambda step: {}, kept.append)
    assert [path.name for path in kept] == ["step-00000002", "step-00000004", "step-00000005"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_batch_taken_in_parts_is_the_same_step(tmp_path, stage):
    """Tolerance 1e-5: sums are taken in another order."""
    folders = [tmp_path / str(parts) for parts in (1, 2, 4)]
    for folder, parts in zip(folders, (1, 2, 4), strict=True):
        RUNS[stage](options(folder, accumulate=parts, save_every=100), dropout=0.0)
    first, *others = (metrics_of(folder) for folder in folders)
    for other in others:
        for step, line in first.items():
            assert other[step] == pytest.approx(line, abs=1e-5, rel=1e-4), step


def test_a_batch_that_cannot_be_taken_in_equal_parts_is_refused_with_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"^a batch of 4 cannot be split over 1 processes and 3 parts each; .* of 3$"):
        RUNS["base"](options(tmp_path, accumulate=3))


@pytest.mark.parametrize("stage", ["base", "superres"])
def test_recomputing_layers_changes_no_step(tmp_path, stage, unbroken):
    RUNS[stage](options(tmp_path, recompute=True))
    assert_same_run(tmp_path, unbroken[stage])


@pytest.mark.parametrize("stage", ["vqgan", "decoder"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("recompute", r"^recompute is for the layers of transformers .*; leave out --engine\.recomp"),
        ("graph", r"^graph is for the steps of transformers and a VQGAN is trained; leave out --engine\.graph$"),
    ],
)
def test_what_is_for_transformers_is_refused_for_a_vqgan_with_one_sentence(tmp_path, stage, name, said):
    with pytest.raises(ValueError, match=said):
        RUNS[stage](options(tmp_path, **{name: True}))


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_metrics_also_go_to_the_loggers_that_are_asked_for(tmp_path, monkeypatch, name):
    module = unittest.mock.MagicMock()
    monkeypatch.setitem(sys.modules, MODULES[name], module)
    Line(options(tmp_path, steps=2, loggers=(name,))).run()
    if name == "tensorboard":
        told = [call.args for call in module.SummaryWriter().__enter__().add_scalar.call_args_list]
        assert ("loss", 0.0, 1) in told
    else:
        calls = module.init().log.call_args_list
        assert [(call.kwargs["step"], call.args[0]["loss"]) for call in calls] == [(1, 0.0), (2, pytest.approx(-0.01))]
        module.init().finish.assert_called_once()


def test_a_logger_that_is_not_installed_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"^wandb is not installed; pip install wandb, or leave it out of --loggers$"):
        Line(options(tmp_path, loggers=("wandb",))).run()


@pytest.mark.parametrize("stage", ["vqgan", "decoder"])
def test_pictures_that_are_no_numbers_stop_a_run_with_one_sentence(tmp_path, stage):
    def broken(step):
        return BATCHES[stage](step) * (math.nan if step == 4 else 1)

    with pytest.raises(NotFinite, match=r"is nan at step 5; the last checkpoint is kept"):
        RUNS[stage](options(tmp_path), broken)
    assert state_of(tmp_path)["step"] == 4


@pytest.mark.parametrize("clip", [1.0, None])
def test_a_loss_that_is_no_number_stops_the_run_names_the_step_and_keeps_the_checkpoint(tmp_path, clip):
    def batch_at(step):
        return torch.full((1,), math.nan if step == 4 else 1.0)

    line = Line(options(tmp_path, clip=clip), batch_at)
    with pytest.raises(NotFinite, match=r"^loss is nan at step 5; the last checkpoint is kept: lower the .*32-true$"):
        line.run()
    state = state_of(tmp_path)
    assert state["step"] == 4
    assert math.isfinite(state["weight"]["weight"].item())
    assert set(metrics_of(tmp_path)) == {1, 2, 3, 4}


def test_a_gradient_that_is_no_number_leaves_the_weights_between_two_lines_of_metrics(tmp_path):
    line = Line(options(tmp_path, log_every=100, save_every=100), lambda step: torch.full((1,), math.inf))
    with pytest.raises(NotFinite, match="at step 1;"):
        line.run()
    assert line.weight.weight.item() == 0


class Cliff(Line):
    """The third step has a finite loss and an infinite gradient."""

    def step(self, batch, step):
        if step != 2:
            return super().step(batch, step)
        weight = self.weight.weight
        loss = (weight - weight.detach()).sqrt().sum()
        self.engine.update(loss, self.optimizer, self.weight)
        return {"loss": loss.detach()}


@pytest.mark.parametrize("changes", [{"save_every": 1}, {"save_every": 2, "keep_every": 3}])
def test_a_weight_that_is_no_number_is_neither_saved_nor_kept_though_the_loss_is_one(tmp_path, changes):
    line, kept = Cliff(options(tmp_path, clip=None, log_every=100, **changes)), []
    with pytest.raises(
        NotFinite, match=r"^the sum of the weights is (nan|inf) at step \d; the last checkpoint is kept"
    ):
        line.engine.run(line.state, line.batch_at, line.step, lambda step: {}, kept.append)
    saved = state_of(tmp_path)
    assert saved["step"] == 2
    assert math.isfinite(saved["weight"]["weight"].item())
    assert kept == []


# -- what a run leaves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES)
def test_every_line_of_metrics_parses_and_holds_finite_numbers(unbroken, stage):
    lines = [json.loads(line) for line in (unbroken[stage] / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert all(("reconstruction" if NETWORKS[stage] == "vqgan" else "loss") in line for line in lines)


def test_lines_of_metrics_come_every_so_many_steps_and_at_the_end(tmp_path):
    Line(options(tmp_path, steps=7, log_every=3, save_every=100)).run()
    assert list(metrics_of(tmp_path)) == [3, 6, 7]
    assert "validation_loss" in metrics_of(tmp_path)[7]


def test_every_checkpoint_has_a_line_of_metrics_with_what_was_measured_after_it(tmp_path):
    Line(options(tmp_path, steps=7, log_every=5, save_every=3)).run()
    assert {step: "validation_loss" in line for step, line in metrics_of(tmp_path).items()} == {
        3: True,
        5: False,
        6: True,
        7: True,
    }


def test_what_a_vqgan_run_leaves_is_the_averaged_vqgan_in_half_precision(tmp_path, unbroken):
    vqgan = load_module(VQGAN, VQGANConfig, unbroken["vqgan"] / "vqgan")
    averaged = {k.removeprefix("module."): w for k, w in state_of(unbroken["vqgan"])["average"].items()}
    for name, weight in vqgan.state_dict().items():
        assert weight.equal(averaged[name].half().float()), name
    assert (unbroken["vqgan"] / "reconstructions-000006.png").is_file()
    lines = metrics_of(unbroken["vqgan"])
    assert [step for step, line in lines.items() if "validation_reconstruction" in line] == [4, 6]
    assert vqgan.encode(torch.rand(1, 3, 8, 8)).shape == (1, 16)


def test_what_a_base_run_leaves_is_the_averaged_transformer_stamped_with_its_vqgan(unbroken):
    base = load_module(MaskedTransformer, TransformerConfig, unbroken["base"] / "base")
    averaged = {k.removeprefix("module."): w for k, w in state_of(unbroken["base"])["average"].items()}
    assert differences(dict(base.state_dict()), {k: averaged[k] for k in base.state_dict()}) == []
    assert base.config.vqgan_fingerprint == FINGERPRINT
    assert "validation_loss" in metrics_of(unbroken["base"])[6]


def test_the_training_state_is_no_part_of_what_is_loaded(unbroken):
    for stage, folder in unbroken.items():
        exported = folder / NETWORKS[stage]
        assert sorted(path.name for path in exported.iterdir()) == ["config.json", "model.safetensors"]


def test_a_base_run_lets_its_caller_watch_every_checkpoint(tmp_path):
    from muse.training.base import train_base
    from tests.training.tiny_runs import base_training, text_encoder

    seen = []
    watch = lambda base, step: seen.append((type(base), base.training, step))  # noqa: E731
    training = base_training(options(tmp_path, steps=4, save_every=2))
    train_base(training, text_encoder(), FINGERPRINT, tokens_at, [], watch)
    assert seen == [(MaskedTransformer, False, 2), (MaskedTransformer, False, 4)]


# -- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": 0}, "steps is 0; a run takes at least 1"),
        ({"warmup": 7}, "warmup is 7 steps of 6; give 0 to 6"),
        ({"warmup": -1}, "warmup is -1 steps of 6; give 0 to 6"),
        ({"minutes": 0.0}, "minutes is 0.0; give more than 0"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; give a number from 0 up to, not including, 1"),
        ({"accumulate": 0}, "accumulate is 0; give at least 1"),
        ({"save_every": 0}, "save_every is 0; give at least 1"),
        ({"ema_decay": -0.1}, "ema_decay is -0.1; give a number from 0 up to, not including, 1"),
        ({"clip": -1.0}, "clip is -1.0; give more than 0, or None to clip nothing"),
        ({"learning_rate": -3.0}, "learning_rate is -3.0; give a finite number above 0"),
        ({"final_rate": -1.0}, "final_rate is -1.0; give a share of the peak from 0 to 1"),
        ({"seed": -1}, "seed is -1; give a whole number from 0 to 4294967295"),
        ({"workers": -1}, "workers is -1; give 0 or more"),
    ],
)
def test_options_that_make_no_run_are_refused_with_one_sentence(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        options(tmp_path, **changes)


def test_the_engine_resumes_only_what_is_there(tmp_path):
    line = Line(options(tmp_path))
    before = copy.deepcopy(line.weight.state_dict())
    line.engine.resume(line.state)
    assert line.engine.step == 0
    assert differences(dict(before), dict(line.weight.state_dict())) == []


def test_a_folder_has_one_run_at_a_time(tmp_path):
    line, said = Line(options(tmp_path)), []

    def batch_at(step):
        if step == 1:
            with pytest.raises(ValueError, match=r"^another process trains in \S+; wait for its end, or give another"):
                Line(options(tmp_path)).run()
            said.append(step)
        return torch.ones(1)

    line.batch_at = batch_at
    line.run()
    assert (said, state_of(tmp_path)["step"]) == ([1], 6)
