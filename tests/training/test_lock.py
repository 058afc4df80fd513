"""Whose a run's folder is after the run was killed outright."""

import contextlib
import os
import signal

import torch
from torch import nn

from muse.training.engine import LOCK, Engine, EngineOptions, alone_in


def test_the_folder_of_a_run_that_was_killed_is_free_while_its_worker_still_lives(tmp_path):
    run = os.fork()
    if run == 0:
        with contextlib.suppress(BaseException):
            os.setsid()

            def batch_at(step):
                if step == 2:
                    (tmp_path / "worker").write_text(str(os.getpid()))
                    os.kill(os.getsid(0), signal.SIGKILL)
                return torch.ones(1)

            engine = Engine(EngineOptions(tmp_path / "run", steps=9, workers=1))
            engine.run({"weight": nn.Linear(1, 1)}, batch_at, lambda batch, step: {}, lambda step: {})
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(run, 0)[1]) == -signal.SIGKILL
    try:
        assert (tmp_path / "run" / LOCK).is_file()
        os.kill(int((tmp_path / "worker").read_text()), 0)
        with alone_in(tmp_path / "run"):
            pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run, signal.SIGKILL)
