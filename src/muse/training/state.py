"""The state of a run on disk, by torch.distributed.checkpoint: written by any number of processes, read by any other.

checkpoints/step-00000500/     one file for each process that wrote it, and .metadata

Every tensor has a name of its own, so that a shard finds its place whoever wrote it. A folder takes its name once it is
whole; the one before it is deleted after that.
"""

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from muse.training.optimizers import CLASSES, MOMENTS
from muse.training.ranks import Ranks

STEP = "step"


@runtime_checkable
class Stateful(Protocol):
    """Anything a checkpoint holds."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


def latest(folder: Path) -> Path | None:
    """The last whole checkpoint in a folder, if there is one."""
    return max(folder.glob("step-*"), default=None)


def write(state: Mapping[str, Stateful], folder: Path, step: int, ranks: Ranks) -> None:
    """Write a checkpoint, then delete the one before it; all processes call this.
    Raises OSError if it cannot be written, and the one before it stays."""
    fresh, whole = folder / "unfinished", folder / f"step-{step:08}"
    if ranks.is_first:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)
    ranks.wait()
    tensors = {**flat(state), STEP: torch.tensor(step)}
    try:
        with warnings.catch_warnings(action="ignore"):  # that one process alone is one process
            dcp.save(tensors, storage_writer=dcp.FileSystemWriter(fresh), no_dist=ranks.count == 1)
    except CheckpointException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        first = next(iter(error.failures.values()))[0]
        raise OSError(f"the checkpoint of step {step} cannot be written to {folder} ({first})") from error
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if ranks.is_first:
        shutil.rmtree(whole, ignore_errors=True)
        os.replace(fresh, whole)
        for other in folder.glob("step-*"):
            if other != whole:
                shutil.rmtree(other, ignore_errors=True)
    ranks.wait()


def read(state: Mapping[str, Stateful], folder: Path, ranks: Ranks) -> int:
    """Fill networks, optimizers and the rest from a checkpoint; returns its step.
    Raises ValueError if it belongs to other networks or another optimizer."""
    reader = dcp.FileSystemReader(folder)
    there = {
        name: entry
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    for part, optimizer in optimizers(state).items():
        check_moments(optimizer, {name.rpartition("/")[2] for name in there if name.startswith(part + "/")}, folder)
    wanted = targets(state, there)
    wanted[STEP] = torch.tensor(0)
    for name, tensor in wanted.items():
        if name not in there or there[name].size != tensor.shape:
            found = f"of shape {tuple(there[name].size)}" if name in there else "missing"
            raise ValueError(
                f"{name} is {found} in {folder}, and this run has it of shape {tuple(tensor.shape)}; the run there was "
                "begun with other options: give those, or another folder"
            )
    with warnings.catch_warnings(action="ignore"):
        dcp.load(wanted, storage_reader=dcp.FileSystemReader(folder), no_dist=ranks.count == 1)
    fill_optimizers(state, wanted)
    return int(wanted[STEP])


def read_old(state: Mapping[str, Stateful], path: Path) -> int:
    """As `read`, from the one file in which the first runs were kept, all of one process."""
    old = torch.load(path, map_location="cpu", weights_only=True)
    for part, optimizer in optimizers(state).items():
        check_moments(optimizer, {moment for each in old[part]["state"].values() for moment in each}, path)
    for name, part in state.items():
        part.load_state_dict(old[name])
    return old["step"]


def check_moments(optimizer: torch.optim.Optimizer, moments: set[str], where: Path) -> None:
    """Raises ValueError if they are those of another optimizer."""
    mine = next((name for name, kind in CLASSES.items() if type(optimizer) is kind), None)
    theirs = next((name for name, kept in MOMENTS.items() if kept == moments), None)
    if mine and theirs and mine != theirs:
        raise ValueError(
            f"{where} is of a run with the optimizer {theirs}, and this run has {mine}; give --optimizer {theirs}, or "
            "another folder"
        )


def optimizers(state: Mapping[str, Stateful]) -> dict[str, torch.optim.Optimizer]:
    """Those parts of a state that are optimizers."""
    return {name: part for name, part in state.items() if isinstance(part, torch.optim.Optimizer)}


def names_of(state: Mapping[str, Stateful]) -> dict[Tensor, str]:
    """The name of every parameter of every network."""
    modules = {name: part for name, part in state.items() if isinstance(part, nn.Module)}
    return {p: f"{part}.{name}" for part, module in modules.items() for name, p in module.named_parameters()}


def flat(state: Mapping[str, Stateful]) -> dict[str, Tensor]:
    """Every tensor of a state under one name: `network/weight`, or `optimizer/network.weight/moment`."""
    tensors, names = {}, names_of(state)
    for part, holder in state.items():
        if not isinstance(holder, torch.optim.Optimizer):
            tensors |= {f"{part}/{name}": tensor for name, tensor in holder.state_dict().items()}
            continue
        for parameter, moments in holder.state.items():
            tensors |= {f"{part}/{names[parameter]}/{moment}": value for moment, value in moments.items()}
    return tensors


def targets(state: Mapping[str, Stateful], there: Mapping[str, TensorStorageMetadata]) -> dict[str, Tensor]:
    """Tensors to read a checkpoint into: the networks' own, and new ones for the optimizers' moments."""
    tensors = flat({name: part for name, part in state.items() if not isinstance(part, torch.optim.Optimizer)})
    parameters = {name: parameter for parameter, name in names_of(state).items()}
    groups = {p: group for each in optimizers(state).values() for group in each.param_groups for p in group["params"]}
    for name, entry in there.items():
        part, _, rest = name.partition("/")
        owner = parameters.get(rest.rpartition("/")[0])
        if part in optimizers(state):
            tensors[name] = torch.empty(0) if owner is None else like(owner, entry, groups.get(owner, {}))
    return tensors


def like(parameter: Tensor, entry: TensorStorageMetadata, group: Mapping[str, Any]) -> Tensor:
    """An empty tensor for a moment: sharded as its parameter is if it has as many rows, else whole."""
    dtype, device = entry.properties.dtype, parameter.device
    if not entry.size:  # the count of steps, which optimizers keep at hand unless a kernel on the device counts
        is_there = group.get("fused") or group.get("capturable")
        return torch.zeros((), dtype=dtype, device=device if is_there else "cpu")
    if isinstance(parameter, DTensor) and entry.size[0] == parameter.shape[0]:
        narrow = parameter.detach()[:, : entry.size[1]] if len(entry.size) == 2 else parameter.detach()
        return torch.zeros_like(narrow, dtype=dtype)
    return torch.zeros(entry.size, dtype=dtype, device=device)


def fill_optimizers(state: Mapping[str, Stateful], tensors: Mapping[str, Tensor]) -> None:
    """Put the moments of a checkpoint in their places."""
    parameters = {name: parameter for parameter, name in names_of(state).items()}
    for part, optimizer in optimizers(state).items():
        for name, tensor in tensors.items():
            if name.startswith(part + "/"):
                parameter, _, moment = name.removeprefix(part + "/").rpartition("/")
                optimizer.state[parameters[parameter]][moment] = tensor
