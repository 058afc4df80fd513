"""The training loop every stage shares: steps, averages, checkpoints and logs, in one process or in many.

A batch and all randomness of a step depend on the seed and the number of the step alone, so a resumed run takes
exactly the steps that the unbroken run would have taken. The batch is that of all processes together; each takes its
share, and gradients are means over all shares, so that another number of processes takes the same steps.
"""

import dataclasses
import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from muse.checkpoint import CONFIG, METRICS, Configured, read_json, save_module, write_whole
from muse.precision import default_device, has_native_bfloat16, prefer_fast_float32
from muse.processes import Shard, is_of_torchrun
from muse.requests import check_choices, keep_whole
from muse.training import state as saved
from muse.training.fabric import DDPStrategy, Fabric
from muse.training.loggers import LoggerName, open_loggers
from muse.training.ranks import Ranks

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

log = logging.getLogger(__name__)

Metrics = dict[str, Tensor]
"""Numbers a step reports, as tensors without a gradient; those of several processes are averaged."""
Part = TypeVar("Part")


@dataclass(frozen=True)
class EngineOptions:
    """What every training run can be told."""

    folder: Path
    """Where checkpoints, metrics and samples go; a run that finds a checkpoint there goes on from it."""
    steps: int
    """Optimizer steps in the whole run."""
    minutes: float | None = None
    """End the run this long after it began or went on, even if not all steps are taken by then; the learning rate falls
    by whichever of the two is nearer to its end. For a machine that is lent for a while; such a run cannot be repeated
    bit for bit."""
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
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several processes, started by torchrun, train together: ddp keeps all weights in each, fsdp a shard of them
    (FSDP2). auto is ddp. One process alone needs neither."""
    accumulate: int = 1
    """Parts in which each process takes its share of a batch, to save memory; the steps are the same, but for what
    dropout and mixed captions draw."""
    recompute: bool = False
    """Save memory by computing each layer of a transformer again on the way back instead of keeping what it gave."""
    compile: bool = False
    """Compile the layers of a transformer by torch.compile: some minutes at first, faster steps on a GPU. Needs a C++
    compiler. A VQGAN stays as it is: its compiled gradients came out wrong (docs/log.md)."""
    graph: bool = False
    """Take each step of a transformer as one CUDA graph, the next inputs prepared meanwhile: a small model's GPU no
    longer waits for Python. For one process; the same share of the captions is dropped in each step, and a number that
    is none stops the run at the next line of metrics. On a processor the same steps are taken, without a graph."""
    workers: int = 1
    """Processes that prepare batches ahead; 0 prepares them in between the steps."""
    save_every: int = 500
    """Steps between checkpoints; the last one is kept."""
    keep_every: int | None = None
    """Steps between copies of a transformer's weights that stay, as those of the last step do, for `muse export` to
    average."""
    log_every: int = 50
    """Steps between lines of metrics; every checkpoint has one besides."""
    loggers: tuple[LoggerName, ...] = ()
    """Where metrics go besides metrics.jsonl: tensorboard, trackio or wandb, each to be installed by you."""
    seed: int = 0
    """Decides every batch and every draw."""

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("steps", "warmup", "accumulate", "workers", "save_every", "log_every", "seed"):
            keep_whole(self, name, least=None)
        if self.keep_every is not None:
            keep_whole(self, "keep_every")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; a run takes at least 1")
        if not 0 <= self.warmup <= self.steps:
            raise ValueError(f"warmup is {self.warmup} steps of {self.steps}; give 0 to {self.steps}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes is {self.minutes}; give more than 0")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; give a number from 0 up to, not including, 1")
        if self.graph and (self.accumulate > 1 or self.recompute or self.strategy == "fsdp"):
            raise ValueError("graph is given with accumulate, recompute or fsdp; a step is one graph without them")
        for name in ("accumulate", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}; give a finite number above 0")
        if not 0 <= self.final_rate <= 1:
            raise ValueError(f"final_rate is {self.final_rate}; give a share of the peak from 0 to 1")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"clip is {self.clip}; give more than 0, or None to clip nothing")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; give a whole number from 0 to {2**32 - 1}")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}; give 0 or more")


MAY_CHANGE = {"dropout"}
"""Fields of a network's config that a run may go on with another value of."""
LOCK = ".lock"
"""A file of a run's folder that its process holds."""
HELD: list[TextIO] = []
"""Files that this process holds. A process that is forked from it has them too, and would keep them locked after it."""
OLD_STATE = "state.pt"
"""The one file in which the first runs were kept."""
CHECKPOINTS = "checkpoints"
"""The folder of a run from which it goes on."""
ORDER = "order.json"
"""A file of a run's folder that says what decides which rows come in which step, and what else a run should keep."""
LOSSES = (
    *("perceptual", "perceptual-weight", "adversarial-weight", "gradient-weight", "commitment-weight"),
    *("discriminator-from", "adversarial-from", "quantize-from"),
)
"""What the losses of pictures are made of."""
WHEN_CHANGED = {
    "rows": "others are held out, so validation may know what it is shown",
    "batch-size": "some rows of this epoch come twice or not at all",
    "size": "it has learned from pictures of the old one",
    "content": "these are other rows, and others are held out, so validation may know what it is shown",
    **dict.fromkeys(LOSSES, "it has learned by the old losses, which are not to be compared with those to come"),
    "text-encoder": "it has learned from the states of the old one, which are others unless it is the same rounded",
    **dict.fromkeys(("drawn-by", "drawn-share"), "it has learned to paint other tokens than it is given now"),
}
"""What of the order a run may go on with another value of, and what comes of it."""


@runtime_checkable
class Dealt(Protocol):
    """Batches that can be made in part: of the `batch_size` samples of a step only those of one process."""

    batch_size: int

    def __call__(self, step: int) -> Any: ...

    def share(self, step: int, rows: slice) -> Any: ...


@runtime_checkable
class Ordered(Protocol):
    """Batches that know what decides which rows come in which step, by the names that the command line has for it."""

    @property
    def order(self) -> Mapping[str, int | str]: ...


class Stopped(SystemExit):
    """A signal has ended the run before its end. It is saved, and what was to come after it does not come; the code is
    that of a process that such a signal ends, 130 or 143."""


class NotFinite(ArithmeticError):
    """The loss, a gradient or a weight became NaN or infinite; the last checkpoint is untouched."""


def learning_rate(step: int, options: EngineOptions, done_by_time: float = 0.0) -> float:
    """The learning rate of a step: linear warm-up, then cosine decay over the steps, or over the time that is given
    to the run if that is nearer to its end, which it may be before the warm-up is over."""
    done = max((step - options.warmup) / max(options.steps - options.warmup, 1), 0.0)
    done = min(max(done, done_by_time), 1.0)
    share = options.final_rate + (1 - options.final_rate) * (1 + math.cos(math.pi * done)) / 2
    if step < options.warmup:
        share = min(share, (step + 1) / options.warmup)
    return options.learning_rate * share


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a run's folder, made if it is not there, for one process.
    Raises ValueError if another one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ValueError(
                    f"another process trains in {folder}; wait for its end, or give another folder"
                ) from error
            except OSError:  # there are file systems without locks
                log.warning("%s cannot be locked; see that no other process trains in it", folder)
        HELD.append(file)
        try:
            yield
        finally:
            HELD.remove(file)


def forget_after(step: int, file: Path) -> None:
    """Leave out what a file of metrics says of later steps, which a run that goes on takes again."""
    if not file.is_file():
        return
    lines = file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        write_whole(file, "".join(kept))


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Give every group of an optimizer a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def best_precision() -> Literal["32-true", "bf16-mixed"]:
    """bfloat16 where the processor multiplies in it natively, else float32."""
    return "bf16-mixed" if has_native_bfloat16(default_device()) else "32-true"


def average_of(module: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a module's weights, buffers copied."""
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=False)


class ShareOfStep(Dataset):
    """One process's share of the batch of each step, as a data set."""

    def __init__(self, batch_at: Callable[[int], Any], rows: slice):
        self.batch_at, self.rows = batch_at, rows

    def __getitem__(self, step: int) -> Any:
        """The share, or the error that came instead: raised in another process it would lose its one sentence."""
        try:
            return self._share(step)
        except Exception as error:
            return error

    def _share(self, step: int) -> Any:
        if isinstance(self.batch_at, Dealt):
            return self.batch_at.share(step, self.rows)
        batch = self.batch_at(step)
        if self.rows.step == 1:
            return batch
        check_split(len(batch), self.rows.step, 1)
        return batch[self.rows]


def check_split(num: int, processes: int, parts: int) -> None:
    """Raises ValueError if a batch cannot be shared out evenly; means over shares would not be its mean."""
    if num % (processes * parts):
        raise ValueError(
            f"a batch of {num} cannot be split over {processes} processes and {parts} parts each; "
            f"make it a multiple of {processes * parts}"
        )


def launch(options: EngineOptions) -> Fabric:
    """This process among those that torchrun started, or alone, with its device and arithmetic.
    Raises ValueError if it is one of several that torchrun did not start, which cannot find each other."""
    shard = Shard.from_environment()
    precision = best_precision() if options.precision == "auto" else options.precision
    kind = default_device()  # Apple's GPUs have no float64, in which metrics are summed
    if not is_of_torchrun():
        if shard.num_ranks > 1:
            raise ValueError(
                f"RANK is {shard.rank} and WORLD_SIZE {shard.num_ranks} without torchrun; start training by "
                "torchrun, or leave both unset to train in one process"
            )
        return Fabric(accelerator=kind, devices=1, precision=precision)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator=kind, devices=here, num_nodes=shard.num_ranks // here, strategy=DDPStrategy(), precision=precision
    )
    fabric.launch()
    return fabric


class Engine:
    """Runs one stage of training.

    `state` names everything that a checkpoint must hold: networks, optimizers, averages, trackers.
    """

    def __init__(self, options: EngineOptions):
        self.options = options
        torch.set_flush_denormal(True)  # with numbers next to 0 the first steps of a VQGAN take 10 s instead of 0.5
        prefer_fast_float32()
        self.fabric = launch(options)
        self.ranks = Ranks(self.fabric.global_rank, self.fabric.world_size)
        if options.graph and self.ranks.count > 1:
            raise ValueError(f"graph is for one process and {self.ranks.count} were started; leave one of the two out")
        self.step = 0
        self.noted: dict[str, Any] = {}
        """What a stage wants kept in ORDER beside that of its batches, by the names in WHEN_CHANGED."""
        self._asked_to_stop = 0  # the number of the signal
        self._time_used = 0.0  # of the minutes that the run has, as a share; the same in every process

    # -- networks -------------------------------------------------------------------------------------------------

    @property
    def is_sharded(self) -> bool:
        """Whether each process has a shard of the weights only."""
        return self.options.strategy == "fsdp" and self.ranks.count > 1

    def building(self) -> AbstractContextManager[object]:
        """Where to build a network that `place` puts where it belongs: without memory in those processes that get
        their shards of its weights from the first."""
        return torch.device("meta") if self.is_sharded and not self.ranks.is_first else nullcontext()

    def place(self, module: nn.Module, units: Sequence[nn.Module] = (), methods: Sequence[str] = ()) -> None:
        """Put a network on this process's device: all of it, or its shards.
        `units` are the parts whose weights are gathered one after the other, inner ones first; `methods` those of the
        network, besides its forward, that need weights outside of the units."""
        if not self.is_sharded:
            module.to(self.fabric.device)
            return
        whole = dict(module.state_dict()) if self.ranks.is_first else {}
        module.to("meta")
        is_half = self.fabric._precision.precision == "bf16-mixed"
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if is_half else MixedPrecisionPolicy()
        for unit in (*units, module):
            fully_shard(unit, mp_policy=policy, reshard_after_forward=True)
        for method in methods:
            register_fsdp_forward_method(module, method)
        module.to_empty(device=self.fabric.device)
        set_model_state_dict(module, whole, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))

    def recompute(self, layers: Iterable[nn.Module]) -> None:
        """Save memory, if the options say so: compute each layer again on the way back."""
        if self.options.recompute:
            for layer in layers:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)

    def compile(self, layers: Iterable[nn.Module]) -> None:
        """Compile each layer, if the options say so."""
        if self.options.compile:
            for layer in layers:
                layer.compile()

    def export(self, module: nn.Module, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write a network as a folder that `load_module` reads; every process must call this."""
        if not isinstance(module, FSDPModule):
            if self.ranks.is_first:
                save_module(cast(Any, module), folder, dtype)
            return
        weights = {}
        for name, tensor in module.state_dict().items():
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.ranks.is_first:
                weights[name] = whole.cpu()
        if self.ranks.is_first:
            plain = next(c for c in type(module).__mro__ if not issubclass(c, FSDPModule))
            with torch.device("meta"):
                copy = plain(module.config)
            copy.load_state_dict(weights, strict=True, assign=True)
            save_module(cast(Any, copy), folder, dtype)
        self.ranks.wait()

    # -- checkpoints ----------------------------------------------------------------------------------------------

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoint from which a run goes on."""
        return self.options.folder / CHECKPOINTS

    @property
    def has_begun(self) -> bool:
        """Whether the run's folder has a checkpoint to go on from."""
        return saved.latest(self.checkpoints) is not None or (self.options.folder / OLD_STATE).is_file()

    def resume(self, state: Mapping[str, saved.Stateful]) -> None:
        """Take up the checkpoint of the run's folder, if there is one, whatever the number of processes that wrote it.
        Raises ValueError if it belongs to other networks or another optimizer."""
        old = self.options.folder / OLD_STATE
        if self.has_begun:
            self.check_configs(state)
        if (latest := saved.latest(self.checkpoints)) is not None:
            self.step = saved.read(state, latest, self.ranks)
        elif old.is_file():
            self.step = saved.read_old(state, old)
        if self.step and self.ranks.is_first:
            log.info("going on from step %d of %s", self.step, self.options.folder)

    def check_configs(self, state: Mapping[str, saved.Stateful]) -> None:
        """Raises ValueError if the run's folder holds a network of another config than that of the state, but for what
        may change on the way: weights of one shape may be of many networks, and tokens of many VQGANs."""
        for name, part in state.items():
            file = self.options.folder / name / CONFIG
            if not isinstance(part, Configured) or not file.is_file():
                continue
            theirs, ours = read_json(file), json.loads(json.dumps(dataclasses.asdict(part.config)))
            for field in ours:
                found = theirs.get(field)
                if field not in MAY_CHANGE and found is not None and found != ours[field]:
                    raise ValueError(
                        f"the {name} of the run in {self.options.folder} was begun with {field} {found}, and "
                        f"this one has {ours[field]}; give the same, or another folder"
                    )

    def check_order(self, batch_at: object) -> None:
        """Warn if the run was begun with other rows, batches or pictures of another size, or else that was noted.
        Raises ValueError if rows that it was trained on are to be held out, or all rows would come in another order."""
        file = self.options.folder / ORDER
        if not self.has_begun or not file.is_file():
            return
        order, theirs, folder = self.order_with(batch_at), read_json(file), self.options.folder
        for name, ours in order.items():
            if (found := theirs.get(name, ours)) == ours:  # runs of before have noted less
                continue
            if name == "content" and theirs.get("rows") != order.get("rows"):
                continue  # more rows are other ones
            if name not in WHEN_CHANGED:
                raise ValueError(
                    f"the run in {folder} was begun with --{name} {found}, and this one has {ours}; give the same, or "
                    "another folder"
                )
            if self.ranks.is_first:
                begun = f"no {name}" if found is None else f"{name} {found}"
                sentence = "the run in %s was begun with %s and goes on with %s: %s"
                log.warning(sentence, folder, begun, "none" if ours is None else ours, WHEN_CHANGED[name])

    def order_with(self, batch_at: object) -> dict[str, Any]:
        """What ORDER holds of a run on these batches."""
        return {**(batch_at.order if isinstance(batch_at, Ordered) else {}), **self.noted}

    def save(self, state: Mapping[str, saved.Stateful]) -> None:
        """Write the checkpoint; the one before it stays whole until this one is.
        Raises OSError if it cannot be written, and the one before it stays."""
        saved.write(state, self.checkpoints, self.step, self.ranks)

    # -- steps ----------------------------------------------------------------------------------------------------

    def parts(self, batch: Part) -> list[Part]:
        """This process's share of a batch in as many parts as gradients are accumulated over.
        Raises ValueError if they would not be equally large."""
        parts = self.options.accumulate
        check_split(len(batch) * self.ranks.count, self.ranks.count, parts)  # pyright: ignore[reportArgumentType]
        return [batch[i::parts] for i in range(parts)]  # pyright: ignore

    def update(self, losses: Tensor | Iterable[Tensor], optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
        """One optimizer step down the gradient of a loss, or of the sum of several that are made one by one.
        With several processes it is the gradient of the mean of their losses.
        Raises NotFinite, and leaves the weights, when the gradient to be clipped is no number."""
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.fabric.device)
        for loss in [losses] if isinstance(losses, Tensor) else losses:
            self.fabric.backward(loss)
            total += loss.detach()
        if not isinstance(module, FSDPModule):  # which does it on the way back
            self.ranks.mean([p.grad for p in module.parameters() if p.grad is not None])
        if self.options.clip is not None:
            norm = nn.utils.clip_grad_norm_(module.parameters(), self.options.clip)
            norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
            self._check({"loss": total, "the norm of the gradient": norm}, self.step + 1)
        set_rate(optimizer, self.rate())
        optimizer.step()

    def update_unseen(self, loss: Tensor, optimizer: torch.optim.Optimizer, module: nn.Module, rate: Tensor) -> Tensor:
        """The same step of one process alone, without a look at what the device has computed, so that a CUDA graph can
        hold it. `rate` is the learning rate, a number on the device.
        Returns the norm of the gradient before it is clipped."""
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        largest = math.inf if self.options.clip is None else self.options.clip
        norm = nn.utils.clip_grad_norm_(module.parameters(), largest)
        set_rate(optimizer, rate)
        optimizer.step()
        set_rate(optimizer, self.rate())  # a number, as checkpoints hold it
        return norm

    def rate(self) -> float:
        """The learning rate of this step."""
        return learning_rate(self.step, self.options, self._time_used)

    def settle(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.fabric.device.type == "cuda":
            torch.cuda.synchronize()

    def run(
        self,
        state: Mapping[str, saved.Stateful],
        batch_at: Callable[[int], Any],
        take_step: Callable[[Any, int], Metrics],
        after_save: Callable[[int], Metrics],
        keep: Callable[[Path], None] | None = None,
    ) -> None:
        """Take the remaining steps, logging and saving on the way.

        `batch_at` gives the whole batch of a step, or, if it is `Dealt`, a process's share of it. What `after_save`
        measures is logged too. `keep` writes the weights that stay into a folder. All processes call all of them.
        Raises NotFinite when a loss is no number, or a weight that is to be written; and Stopped, saved and exported,
        after SIGTERM and Ctrl-C."""
        options = self.options
        if isinstance(batch_at, Dealt):
            check_split(batch_at.batch_size, self.ranks.count, options.accumulate)
        with alone_in(options.folder) if self.ranks.is_first else nullcontext():
            self._run(state, batch_at, take_step, after_save, keep)

    def _run(
        self,
        state: Mapping[str, saved.Stateful],
        batch_at: Callable[[int], Any],
        take_step: Callable[[Any, int], Metrics],
        after_save: Callable[[int], Metrics],
        keep: Callable[[Path], None] | None,
    ) -> None:
        options = self.options
        self.check_order(batch_at)
        self.resume(state)
        if self.step >= options.steps:
            if self.ranks.is_first:
                log.info(
                    "the run in %s has taken %d of %d steps; give more --engine.steps to go on",
                    *(options.folder, self.step, options.steps),
                )
            after_save(self.step)  # a run killed between its last checkpoint and its export has none
            return
        batches = DataLoader(
            ShareOfStep(batch_at, self.ranks.share),
            batch_size=None,
            sampler=range(self.step, options.steps),  # pyright: ignore[reportArgumentType]
            num_workers=options.workers,
            worker_init_fn=leave_signals_and_folders_to_the_engine,
        )
        clock = StepClock(self.step, options.steps)
        began = time.monotonic()
        with self._leaving_gently(), self._metrics() as write, taken_in_turn(batches) as in_turn:
            for batch in in_turn:
                if isinstance(batch, Exception):
                    raise batch
                torch.manual_seed(options.seed * 1_000_003 + self.step + self.ranks.index * 7_368_787)
                metrics = take_step(self.fabric.to_device(batch), self.step)
                self.step += 1
                is_asked_to_stop = self.ranks.any(bool(self._asked_to_stop), self.fabric.device)
                self._time_used = self._share_of_time(time.monotonic() - began)
                last = self.step == options.steps or is_asked_to_stop or self._time_used >= 1
                is_saved = last or self.step % options.save_every == 0
                is_end = self.step == options.steps or (last and not is_asked_to_stop)
                is_kept = options.keep_every is not None and (is_end or self.step % options.keep_every == 0)
                is_reported = is_saved or self.step % options.log_every == 0
                if is_kept or is_reported:
                    self.settle()
                if is_saved or is_kept:
                    self._check(metrics, self.step)
                    self._check({"the sum of the weights": self._sum_of_weights(state)}, self.step)
                if keep is not None and is_kept:
                    keep(options.folder / "kept" / f"step-{self.step:08}")
                if is_saved:
                    if self.ranks.is_first and (order := self.order_with(batch_at)):
                        write_whole(options.folder / ORDER, json.dumps(order) + "\n")
                    self.save(state)
                    metrics |= after_save(self.step)
                if is_reported:
                    self._report(metrics, clock, write)
                if is_asked_to_stop:
                    log.info("stopped at step %d; the same command goes on from here", self.step)
                    raise Stopped(128 + (self._asked_to_stop or signal.SIGTERM))
                if last:
                    break
        if self.step < options.steps and self.ranks.is_first:
            log.info("the %g minutes are over at step %d of %d", options.minutes, self.step, options.steps)

    def _share_of_time(self, seconds: float) -> float:
        """How much of the time given to the run has passed, in the mean of all processes; 0 if it has no end."""
        if self.options.minutes is None:
            return 0.0
        mine = seconds / (60 * self.options.minutes)
        if self.ranks.count == 1:
            return mine
        share = torch.tensor(mine, dtype=torch.float64, device=self.fabric.device)
        return float(self.ranks.sum(share)) / self.ranks.count

    @contextmanager
    def _metrics(self) -> Iterator[Callable[[int, dict[str, float]], None]]:
        """How the first process writes the numbers of a step: a line of JSON, and to the loggers of the options."""
        if not self.ranks.is_first:
            yield lambda step, numbers: None
            return
        forget_after(self.step, self.options.folder / METRICS)
        with (
            (self.options.folder / METRICS).open("a") as lines,
            open_loggers(self.options.loggers, self.options.folder) as others,
        ):

            def write(step: int, numbers: dict[str, float]) -> None:
                lines.write(json.dumps({"step": step, **numbers}) + "\n")
                lines.flush()
                others(step, numbers)

            yield write

    def _sum_of_weights(self, state: Mapping[str, saved.Stateful]) -> Tensor:
        """The sum of the absolute weights of all networks and processes: no number if one of them is none. Without
        clipping, a finite loss with an infinite gradient makes such weights."""
        weights = [p.detach() for part in state.values() if isinstance(part, nn.Module) for p in part.parameters()]
        mine = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights]
        return self.ranks.sum(torch.stack([weight.float().abs().sum() for weight in mine]).sum())

    def _check(self, metrics: Metrics, step: int) -> None:
        for name, value in metrics.items():
            if not torch.isfinite(value).all():
                raise NotFinite(
                    f"{name} is {float(value)} at step {step}; the last checkpoint is kept: "
                    "lower the learning rate, or use precision 32-true"
                )

    def _report(self, metrics: Metrics, clock: "StepClock", write: Callable[[int, dict[str, float]], None]) -> None:
        values = torch.stack([value.detach().double().to(self.fabric.device) for value in metrics.values()])
        self.ranks.mean([values])
        metrics = dict(zip(metrics, values, strict=True))
        self._check(metrics, self.step)
        numbers = {name: float(value) for name, value in metrics.items()}
        minutes = math.inf if self.options.minutes is None else self.options.minutes * (1 - self._time_used)
        seconds_a_step, left = clock.lap(self.step, 60 * minutes)
        write(self.step, {"seconds_a_step": round(seconds_a_step, 4), **numbers})
        if not self.ranks.is_first:
            return
        shown = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        log.info("step %d/%d  %s  %.2f s a step, %s left", self.step, self.options.steps, shown, seconds_a_step, left)

    @contextmanager
    def _leaving_gently(self) -> Iterator[None]:
        def ask(number: int, frame: object) -> None:
            self._asked_to_stop = number

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
        self.recent_steps = self.recent_seconds = 0.0  # a lap counts half as much as the one after it

    def lap(self, step: int, most: float) -> tuple[float, str]:
        """Seconds a step since the last lap, and the time left as h:mm:ss, at most `most` seconds: by the recent laps,
        as a short one may be nearly all checkpoint."""
        now = time.monotonic()
        steps, seconds = max(step - self.last_step, 1), now - self.last_time
        self.last_step, self.last_time = step, now
        self.recent_steps = self.recent_steps / 2 + steps
        self.recent_seconds = self.recent_seconds / 2 + seconds
        left = min(self.recent_seconds / self.recent_steps * (self.steps - step), most)
        minutes, rest = divmod(round(max(left, 0)), 60)
        return seconds / steps, f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


@contextmanager
def taken_in_turn(batches: DataLoader[Any]) -> Iterator[Iterator[Any]]:
    """The batches one after the other. The processes that prepare them end with the block, also where an error leaves
    it: they do not listen to the signal by which Python would end them."""
    iterator = iter(batches)
    try:
        yield iterator
    finally:
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()


def leave_signals_and_folders_to_the_engine(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal, and SIGTERM often every process of a job; a worker that died of one
    would end the run before it is saved. And a worker sees only after some seconds that the run was killed, whose
    folder the next one can have at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for file in HELD:
        file.close()
