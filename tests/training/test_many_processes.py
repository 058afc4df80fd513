"""Two processes take the steps of one: data parallel, sharded, in parts, stopped and gone on, killed and gone on alone.

Equal means within 2e-5 of each number: sums are taken in another order. The processes are started once, in the way of
torchrun, and run all scenarios of `many_processes` one after the other."""

import os
import signal
import socket
import subprocess
import sys

import pytest
import torch

from muse.checkpoint import load_module
from muse.models.transformer import MaskedTransformer, TransformerConfig
from tests.training.many_processes import SHALLOW, base, superres, thinned, vqgan
from tests.training.test_engine import ROOT, metrics_of, state_of
from tests.training.tiny_runs import options

CLOSE = 2e-5
pytestmark = pytest.mark.xdist_group("many processes")  # so that one worker runs the scenarios, once


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder in which two processes have run all scenarios, and how each ended."""
    folder, port = tmp_path_factory.mktemp("together"), str(free_port())
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    paths = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0"}
    command = [sys.executable, "-m", "tests.training.many_processes", str(folder)]
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **places, **paths, "RANK": str(i), "LOCAL_RANK": str(i), "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    said = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * 2, "\n".join(said)[-6000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process does in the same steps."""
    folder = tmp_path_factory.mktemp("alone")
    base(options(folder / "base", keep_every=3))
    base(options(folder / "adafactor"), optimizer="adafactor")
    base(options(folder / "muon"), optimizer="muon")
    base(options(folder / "shallow"), model=SHALLOW)
    vqgan(options(folder / "vqgan"))
    thinned(folder / "paper-3b")
    superres(options(folder / "superres"))
    return folder


def assert_same_steps(folder, other):
    ours, theirs = metrics_of(folder), metrics_of(other)
    assert set(ours) == set(theirs)
    assert max(theirs) >= 3
    for step, line in theirs.items():
        mine = {name: ours[step][name] for name in line}
        assert mine == pytest.approx(line, abs=CLOSE, rel=CLOSE), f"step {step} of {folder.name}"


@pytest.mark.parametrize(
    ("scenario", "same"),
    [
        ("ddp", "base"),
        ("fsdp", "base"),
        ("fsdp-parts", "base"),
        ("fsdp-adafactor", "adafactor"),
        ("fsdp-muon", "muon"),
        ("compiled", "shallow"),
        ("paper-3b", "paper-3b"),
        ("superres", "superres"),
        ("vqgan", "vqgan"),
        ("sigterm", "base"),
    ],
)
def test_two_processes_take_the_steps_of_one(together, alone, scenario, same):
    assert_same_steps(together / scenario, alone / same)


def test_torchrun_starts_them(alone, tmp_path):
    """The command that docs/training.md gives, with the launcher's own meeting of processes."""
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tests.training.many_processes"]
    subprocess.run(
        [sys.executable, "-m", *command, str(tmp_path), "ddp"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "CUDA_VISIBLE_DEVICES": ""},
        check=True,
        timeout=180,
    )
    assert_same_steps(tmp_path / "ddp", alone / "base")


@pytest.mark.parametrize("scenario", ["ddp", "fsdp"])
def test_two_processes_leave_the_averaged_network_of_one(together, alone, scenario):
    ours, theirs = (
        load_module(MaskedTransformer, TransformerConfig, folder / "base").state_dict()
        for folder in (together / scenario, alone / "base")
    )
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, atol=2e-5, rtol=0)


def test_shards_are_kept_whole_for_the_export(together, alone):
    for step in (3, 6):
        ours, theirs = (
            load_module(MaskedTransformer, TransformerConfig, run / f"kept/step-{step:08}/base").state_dict()
            for run in (together / "fsdp", alone / "base")
        )
        for name, weight in theirs.items():
            torch.testing.assert_close(ours[name], weight, atol=CLOSE, rtol=0)


def test_a_run_killed_in_two_processes_goes_on_in_one(together, alone):
    assert state_of(together / "kill")["step"] == 4
    base(options(together / "kill"))
    assert_same_steps(together / "kill", alone / "base")


def test_sharded_training_in_bfloat16_keeps_weights_and_moments_in_float32(together):
    state = state_of(together / "fsdp-bf16")
    assert state["step"] == 2
    assert {tensor.dtype for part in ("base", "average", "optimizer") for tensor in state[part].values()} <= {
        torch.float32,
        torch.int64,
    }


def test_the_last_line_counts_what_all_processes_have_found(together):
    def said(name):
        return (together / "found" / name).read_text()

    kinds = "1 16-bit, 1 CMYK, 1 animated, 2 palette, 1 rotated, 1 transparent"
    assert said("said-0.txt").endswith(
        f"  (8 of 10 pictures that this run looked at were used; skipped 2 damaged; converted {kinds})\n"
    )
    assert said("said-1.txt") == ""
    assert not any(said(f"alone-{rank}.txt") in said("said-0.txt") for rank in range(2)), "each saw all by itself"
