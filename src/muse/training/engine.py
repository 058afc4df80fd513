"""The training loop every stage shares: steps, averages, checkpoints and logs. The one file that knows ranks exist.

A batch and all randomness of a step depend on the seed and the number of the step alone, so a resumed run takes
exactly the steps that the unbroken run would have taken.
"""

import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

log = logging.getLogger(__name__)

Metrics = dict[str, Tensor]
"""Numbers a step reports, as tensors without a gradient."""


@dataclass(frozen=True)
class EngineOptions:
    """What every training run can be told."""

    folder: Path
    """Where checkpoints, metrics and samples go; a run that finds a checkpoint there goes on from it."""
    steps: int
    """Optimizer steps in the whole run."""
    learning_rate: float = 1e-4
    """Peak of the learning rate; it rises linearly over `warmup` steps and falls as a cosine to `final_rate`."""
    warmup: int = 0
    """Steps over which the learning rate rises."""
    final_rate: float = 0.0
    """Share of the peak at which the learning rate ends."""
    clip: float | None = 1.0
    """Largest norm of all gradients together."""
    ema_decay: float = 0.999
    """How much of the average weights one step keeps."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """Arithmetic of the networks; auto takes bfloat16 where the machine computes in it."""
    workers: int = 1
    """Processes that prepare batches ahead; 0 prepares them in between the steps."""
    save_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 50
    """Steps between lines of metrics."""
    seed: int = 0
    """Decides every batch and every draw."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; a run takes at least 1")
        if not 0 <= self.warmup <= self.steps:
            raise ValueError(f"warmup is {self.warmup} steps of {self.steps}; give 0 to {self.steps}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; give a number from 0 up to, not including, 1")


@runtime_checkable
class Stateful(Protocol):
    """Anything a checkpoint holds."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


class NotFinite(RuntimeError):
    """The loss became NaN or infinite; the last checkpoint is untouched."""


def learning_rate(step: int, options: EngineOptions) -> float:
    """The learning rate of a step: linear warm-up, then cosine decay."""
    if step < options.warmup:
        return options.learning_rate * (step + 1) / options.warmup
    done = (step - options.warmup) / max(options.steps - options.warmup, 1)
    share = options.final_rate + (1 - options.final_rate) * (1 + math.cos(math.pi * done)) / 2
    return options.learning_rate * share


def best_precision() -> Literal["32-true", "bf16-mixed"]:
    """bfloat16 where the processor multiplies in it natively, else float32."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


def average_of(module: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a module's weights, buffers copied."""
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)


class BatchOfStep(Dataset):
    """A function from the number of a step to its batch, as a data set."""

    def __init__(self, batch_at: Callable[[int], Any]):
        self.batch_at = batch_at

    def __getitem__(self, step: int) -> Any:
        return self.batch_at(step)


class Engine:
    """Runs one stage of training.

    `state` names everything that a checkpoint must hold: networks, optimizers, averages, trackers.
    """

    def __init__(self, options: EngineOptions):
        self.options = options
        torch.set_flush_denormal(True)  # with numbers next to 0 the first steps of a VQGAN take 10 s instead of 0.5
        if not torch.cuda.is_available():
            torch.set_float32_matmul_precision("medium")  # oneDNN's products, still float32, a fifth faster than MKL's
        precision = best_precision() if options.precision == "auto" else options.precision
        self.fabric = Fabric(accelerator="auto", devices=1, precision=precision)
        self.step = 0
        self._asked_to_stop = False

    @property
    def checkpoint(self) -> Path:
        """The file from which a run goes on."""
        return self.options.folder / "state.pt"

    def resume(self, state: Mapping[str, Stateful]) -> None:
        """Take up the checkpoint of the run's folder, if there is one."""
        if not self.checkpoint.is_file():
            return
        saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        for name, part in state.items():
            part.load_state_dict(saved[name])
        self.step = saved["step"]
        log.info("going on from step %d of %s", self.step, self.checkpoint)

    def save(self, state: Mapping[str, Stateful]) -> None:
        """Write the checkpoint; the one before it stays whole until this one is."""
        self.options.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.checkpoint.with_suffix(".tmp")
        try:
            torch.save({**{name: part.state_dict() for name, part in state.items()}, "step": self.step}, fresh)
            os.replace(fresh, self.checkpoint)
        finally:
            fresh.unlink(missing_ok=True)

    def update(self, loss: Tensor, optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
        """One optimizer step down the gradient of a loss.
        Raises NotFinite, and leaves the weights, when the gradient to be clipped is no number."""
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if self.options.clip is not None:
            clip = self.options.clip
            norm = self.fabric.clip_gradients(module, optimizer, max_norm=clip, error_if_nonfinite=False)
            assert isinstance(norm, Tensor)
            self._check({"loss": loss.detach(), "the norm of the gradient": norm}, self.step + 1)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.options)
        optimizer.step()

    def run(
        self,
        state: Mapping[str, Stateful],
        batch_at: Callable[[int], Any],
        take_step: Callable[[Any, int], Metrics],
        after_save: Callable[[int], Metrics],
    ) -> None:
        """Take the remaining steps, logging and saving on the way; SIGTERM and Ctrl-C save and leave.
        What `after_save` measures is logged too.
        Raises NotFinite when a loss is no number."""
        options = self.options
        self.resume(state)
        if self.step >= options.steps:
            after_save(self.step)  # a run killed between its last checkpoint and its export has none
            return
        self.options.folder.mkdir(parents=True, exist_ok=True)
        batches = DataLoader(
            BatchOfStep(batch_at),
            batch_size=None,
            sampler=range(self.step, options.steps),  # pyright: ignore[reportArgumentType]
            num_workers=options.workers,
            worker_init_fn=leave_ctrl_c_to_the_engine,
        )
        clock = StepClock(self.step, options.steps)
        with self._leaving_gently(), (options.folder / "metrics.jsonl").open("a") as lines:
            for batch in batches:
                torch.manual_seed(options.seed * 1_000_003 + self.step)
                metrics = take_step(self.fabric.to_device(batch), self.step)
                self.step += 1
                last = self.step == options.steps or self._asked_to_stop
                if last or self.step % options.save_every == 0:
                    self._check(metrics, self.step)
                    self.save(state)
                    metrics |= after_save(self.step)
                if last or self.step % options.log_every == 0:
                    self._check(metrics, self.step)
                    self._report(metrics, clock, lines.write)
                    lines.flush()
                if self._asked_to_stop:
                    log.info("stopped at step %d; the same command goes on from here", self.step)
                    return

    def _check(self, metrics: Metrics, step: int) -> None:
        for name, value in metrics.items():
            if not torch.isfinite(value).all():
                raise NotFinite(
                    f"{name} is {float(value)} at step {step}; the last checkpoint is kept: "
                    "lower the learning rate, or use precision 32-true"
                )

    def _report(self, metrics: Metrics, clock: "StepClock", write: Callable[[str], int]) -> None:
        numbers = {name: float(value) for name, value in metrics.items()}
        seconds_a_step, left = clock.lap(self.step)
        write(json.dumps({"step": self.step, "seconds_a_step": round(seconds_a_step, 4), **numbers}) + "\n")
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        log.info("step %d/%d  %s  %.2f s a step, %s left", self.step, self.options.steps, shown, seconds_a_step, left)

    @contextmanager
    def _leaving_gently(self) -> Iterator[None]:
        def ask(number: int, frame: object) -> None:
            self._asked_to_stop = True

        before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class StepClock:
    """How long a step takes, and how long the rest will."""

    def __init__(self, step: int, steps: int):
        self.steps, self.last_step, self.last_time = steps, step, time.monotonic()

    def lap(self, step: int) -> tuple[float, str]:
        """Seconds a step since the last lap, and the time left as h:mm:ss."""
        now = time.monotonic()
        seconds = (now - self.last_time) / max(step - self.last_step, 1)
        self.last_step, self.last_time = step, now
        minutes, rest = divmod(round(seconds * (self.steps - step)), 60)
        return seconds, f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def leave_ctrl_c_to_the_engine(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; a worker that died of it would end the run before it is saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
