"""A module and its folder: config.json and model.safetensors, as diffusers and transformers lay them out."""

import dataclasses
import hashlib
import json
import math
import secrets
import stat
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from muse.requests import MAKE_ROOM, fresh_file, told_when_full

CONFIG, WEIGHTS = "config.json", "model.safetensors"
METRICS = "metrics.jsonl"
"""What a run of training writes line by line into its folder."""
SCALES = ".row_scales"
"""Ends the name of what the rows of a weight stored in int8 are multiplied by."""
Module = TypeVar("Module", bound=nn.Module)


class CheckpointError(ValueError):
    """A checkpoint folder that is missing, damaged or does not fit; the message says which part and what to do."""


@runtime_checkable
class Configured(Protocol):
    """A module built from one frozen dataclass."""

    config: Any

    def state_dict(self) -> dict[str, Tensor]: ...


def write_whole(path: Path, content: str) -> None:
    """Write a text file so that a reader never sees half of it, however many processes write it.
    Raises OSError if it cannot be written; nothing half-written is left."""
    with fresh_file(path) as fresh:
        fresh.write_text(content)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises OSError that names the file if safetensors cannot write what it is to write within, as on a full disk."""
    try:
        with told_when_full(path):
            yield
    except SafetensorError as error:
        advice = f"; {MAKE_ROOM}" if "No space left" in str(error) else ""
        raise OSError(f"{path} cannot be written ({error}){advice}") from error


def usual_mode(folder: Path) -> int:
    """The mode of a file that this process makes in a folder; safetensors lets nobody else read what it writes."""
    probe = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        probe.touch()
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink(missing_ok=True)


def save_module(module: Configured, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a module's weights, which `dtype` rounds as `rounded` does, and then its config.
    Files that were there stay whole until the new ones are. Raises OSError if they cannot be written."""
    write_weights(rounded(module.state_dict(), dtype), folder)
    config = {"class": type(module).__name__, **dataclasses.asdict(module.config)}
    write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def check_stored(name: str, dtype: Any) -> None:
    """Raises ValueError for what weights cannot be rounded to, unless it is None, for as they are."""
    is_type = isinstance(dtype, torch.dtype) and (dtype.is_floating_point or dtype == torch.int8)
    if dtype is not None and not is_type:
        raise ValueError(f"{name} is {dtype!r}; give torch.int8 or one of torch's types of fractions, as torch.float16")


def write_weights(weights: dict[str, Tensor], folder: Path) -> None:
    """Write the tensors of a folder, which stays whole meanwhile.
    Raises OSError if they cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, weights)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, so that a reader never sees half of them, however many processes write them.
    Raises OSError if they cannot be written; nothing half-written is left."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with writing(path), fresh_file(path) as fresh:
        save_file(whole, fresh, metadata={"format": "pt"})
        fresh.chmod(usual_mode(path.parent))


def rounded(weights: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Weights with their fractions in another type. In int8 each row of a matrix or kernel has a scale of its own,
    stored beside it, and is off by at most 1/254 of its largest number; what is neither is in float16."""
    if dtype is None:
        return dict(weights)
    stored: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if dtype == torch.int8 and tensor.is_floating_point() and tensor.ndim > 1:
            rows = tensor.float()
            scales = rows.flatten(1).abs().amax(1) / torch.iinfo(torch.int8).max
            safe = scales.where(scales > 0, 1.0).reshape(-1, *(1,) * (tensor.ndim - 1))
            stored[name], stored[name + SCALES] = (rows / safe).round().to(torch.int8), scales
        elif tensor.is_floating_point():
            stored[name] = tensor.to(torch.float16 if dtype == torch.int8 else dtype)
        else:
            stored[name] = tensor
    return stored


def widened(stored: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """What `rounded` made int8, in float32 again.
    Raises CheckpointError if a weight in int8 and its scales do not come together."""
    scales = {name.removesuffix(SCALES): tensor for name, tensor in stored.items() if name.endswith(SCALES)}
    weights = {name: tensor for name, tensor in stored.items() if not name.endswith(SCALES)}
    narrow = {name: tensor for name, tensor in weights.items() if tensor.dtype == torch.int8}
    for name in sorted(scales.keys() | narrow.keys()):
        rows = narrow[name].shape[:1] if name in narrow else None
        if name not in scales or rows != scales[name].shape:
            raise CheckpointError(
                f"weight {name} of {path} is in int8 without fitting scales; get the checkpoint again"
            )
        weights[name] = narrow[name].float() * scales[name].reshape(-1, *(1,) * (narrow[name].ndim - 1))
    return weights


def load_module(cls: type[Module], config_class: type, folder: Path) -> Module:
    """The module of a folder, in evaluation mode and float32.
    Raises CheckpointError if a file is missing or damaged, or the weights do not fit the config."""
    config = read_config(cls.__name__, config_class, folder)
    module = build_empty(cls, config, folder)
    weights = read_weights(folder)
    check_fit(module, weights, folder)
    floats = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    module.load_state_dict(floats, strict=True, assign=True)
    return module.eval()


class Uninitialised(TorchFunctionMode):
    """Weights stay as they are made, whatever `torch.nn.init` is asked to fill them with."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def without_memory() -> Iterator[None]:
    """Modules that are made within have weights without memory or numbers, to be given those of a file. To draw
    numbers for what has no memory, torch imports its compiler, which takes longer than a picture."""
    with torch.device("meta"), Uninitialised():
        yield


def build_empty(cls: type[Module], config: Any, folder: Path) -> Module:
    """The module of a config, its weights without memory.
    Raises CheckpointError if there can be no such module."""
    try:
        with without_memory():
            return cls(config)
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} does not describe a {cls.__name__}: {error}") from error


def read_config(class_name: str, config_class: type, folder: Path) -> Any:
    """The config dataclass of a folder.
    Raises CheckpointError if it is missing, damaged, of another class, or has fields we do not know."""
    fields = read_json(folder / CONFIG)
    found = fields.pop("class", None)
    if found != class_name:
        raise CheckpointError(f"{folder / CONFIG} describes a {found}; wanted a {class_name}")
    hints = typing.get_type_hints(config_class)
    if unknown := sorted(set(fields) - set(hints)):
        raise CheckpointError(
            f"{folder / CONFIG} has a field {unknown[0]!r} that this version does not know; upgrade Muse"
        )
    try:
        return config_class(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})
    except (ArithmeticError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} does not describe a {class_name}: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.
    Raises CheckpointError if the file is missing or holds something else."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; this folder is no whole checkpoint") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); get the checkpoint again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}; wanted an object with named fields")
    return content


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder, those in int8 in float32.
    Raises CheckpointError if the file is missing or damaged."""
    path = folder / WEIGHTS
    try:
        return widened(load_file(path), path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing; this folder is no whole checkpoint") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}); get the checkpoint again") from error


def is_narrow(folder: Path) -> bool:
    """Whether the weights of a folder are in int8, as `rounded` makes them; not if there are none to be read."""
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            return any(name.endswith(SCALES) for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return False


def fingerprint_of(modules: Iterable[nn.Module], dtype: torch.dtype | None = None, configs: bool = True) -> str:
    """Sixteen hexadecimal digits that change with any weight of any of the modules, or with what it is in `dtype`; and,
    with their `configs`, with any field that is not as a config has it by itself, as there are such that add no weight.
    """
    digest = hashlib.sha256()
    for module in modules:
        config = getattr(module, "config", None)
        if configs and dataclasses.is_dataclass(config):
            told = ((field, getattr(config, field.name)) for field in dataclasses.fields(config))
            changed = {field.name: value for field, value in told if value != field.default}
            digest.update(json.dumps(changed, sort_keys=True).encode())
        for name, tensor in sorted(module.state_dict().items()):
            whole = tensor.detach().to("cpu", dtype).contiguous().reshape(-1)
            digest.update(f"{name} {tuple(tensor.shape)} {whole.dtype}".encode())
            digest.update(whole.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def count_parameters(folder: Path) -> int:
    """Numbers in the weights of a folder, in one file or several, read from the head of each.
    Raises CheckpointError if there are none or a file is damaged."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder / WEIGHTS} is missing; this folder is no whole checkpoint")
    count = 0
    for path in paths:
        try:
            with safe_open(path, "pt") as file:
                names = (name for name in file.keys() if not name.endswith(SCALES))  # noqa: SIM118
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is damaged ({error}); get the checkpoint again") from error
    return count


def check_fit(module: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    """Raises CheckpointError that names the first weight that the config does not ask for, or asks otherwise."""
    wanted = module.state_dict()
    for name in sorted(set(wanted) ^ set(weights)):
        state = "is missing from" if name in wanted else "is not asked for by the config of"
        raise CheckpointError(f"weight {name} {state} {folder}; config and weights belong to different models")
    for name, tensor in wanted.items():
        if tensor.shape != weights[name].shape:
            raise CheckpointError(
                f"weight {name} of {folder} has shape {tuple(weights[name].shape)}, its config says "
                f"{tuple(tensor.shape)}; config and weights belong to different models"
            )


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; a pickle is opened for tensors alone.
    Raises CheckpointError if it is not there, or holds something else."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give the one that holds the weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles fail in many ways
        raise CheckpointError(f"{path} holds no weights ({first_sentence(error)}); get it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds a {type(state).__name__} and no weights by name; give a state dict")
    return state


def fill(network: nn.Module, state: dict[str, Tensor], path: Path, what: str) -> None:
    """Load strictly, but for counters that old files lack.
    Raises CheckpointError if the weights are of another network."""
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    wanted = {name: value.shape for name, value in network.state_dict().items() if name not in counters}
    found = {name: value.shape for name, value in state.items() if name not in counters}
    if wanted != found:
        name = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise CheckpointError(f"{path} holds the weights of another network than {what}: {name} does not fit")
    network.load_state_dict({name: state[name] for name in wanted}, strict=False)


def first_sentence(error: Exception) -> str:
    """What an error says first, without advice after it: torch's, about files, is to open pickles after all."""
    return first_line(error).split(". ")[0]


def first_line(error: Exception) -> str:
    """What an error says first, or its kind if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
