"""Frozen networks that look at pictures: where their weights come from, and what is done to pictures before."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from muse.checkpoint import CheckpointError, fill, first_line, read_state
from muse.evaluation.exported import load_program
from muse.evaluation.inception import SIDE, Inception
from muse.evaluation.metrics import Features
from muse.images import to_tensor
from muse.models.text_encoder import check_loaded, quietly
from muse.pipeline import download
from muse.precision import exact_convolutions

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d"
"""How the hash of the published weights begins; only those make a figure FID."""
FETCH_INCEPTION = (
    f"fetch {INCEPTION_FILE} (release v0.2.0 of torch-fidelity on GitHub, 91 MB) and give it as --inception"
)
BATCH = 32
EXPORTED = ".pt2"


class MissingWeights(ValueError):
    """Weights that are not here and cannot be had; the message says which file to fetch. Other metrics still run."""


@dataclass(frozen=True)
class FeatureNetwork:
    """A frozen network and all that a figure on its features has to say of it."""

    name: str
    """What figures are named after."""
    frechet_name: str
    """What a Frechet distance of its features is called."""
    weights: str
    """Which weights: where from, and the hash of the file."""
    resize: str
    """What is done to pictures before the network sees them."""
    prepare: Callable[[Sequence[Image.Image]], Float[Tensor, "batch 3 h w"]]
    forward: Callable[[Float[Tensor, "batch 3 h w"]], Features]
    labels: Callable[[Features], Float[Tensor, "picture label"]] | None = None
    """Logits of the features, where the network has them."""

    @property
    def key(self) -> str:
        """The hash of the weights alone, wherever they lie."""
        return self.weights.rpartition(" ")[2]

    @torch.no_grad()
    @exact_convolutions()
    def __call__(self, images: Sequence[Image.Image]) -> Features:
        """Features of images, in float32 on the CPU."""
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        return torch.cat([self.forward(self.prepare(part)).float().cpu() for part in parts])


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- Inception-v3 ------------------------------------------------------------------------------------------------------


def load_inception(where: str | Path | None, device: torch.device | str = "cpu") -> FeatureNetwork:
    """Inception-v3 of FID from a file (.pth or .safetensors), or a file on the hub (owner/name/file).
    Raises MissingWeights if there is none, CheckpointError if it is of another network."""
    if where is None:
        raise MissingWeights(f"the weights of Inception-v3 were not given; {FETCH_INCEPTION}")
    path = file_of(str(where), FETCH_INCEPTION)
    digest = sha256_of(path)
    network = Inception()
    fill(network, read_state(path), path, "Inception-v3 of FID")
    network.eval().requires_grad_(False).to(device)
    return FeatureNetwork(
        name="inception",
        frechet_name="fid" if digest.startswith(INCEPTION_SHA256) else "frechet_inception_other_weights",
        weights=f"{path.name} sha256 {digest[:16]}",
        resize=f"bilinear to {SIDE} x {SIDE} without antialiasing, as TensorFlow 1",
        prepare=lambda images: stack(images).to(device),
        forward=network,
        labels=lambda features: network.labels(features.to(device)).cpu(),
    )


# -- other networks ----------------------------------------------------------------------------------------------------


def load_features(where: str | Path | None, device: torch.device | str = "cpu") -> FeatureNetwork:
    """A network of the reader's choice: a file that `torch.export` saved, or a folder or hub name of transformers.
    Raises MissingWeights if there is none, CheckpointError if it is no such network."""
    if where is None:
        raise MissingWeights(
            "no network was given; give a folder of transformers, such as DINOv2's, or an exported .pt2 as --features"
        )
    if str(where).endswith(EXPORTED):
        return load_exported(Path(where), device)
    return load_transformers(folder_of(str(where), "--features"), str(where), device)


def load_exported(path: Path, device: torch.device | str = "cpu") -> FeatureNetwork:
    """A file of `torch.export.save`: pictures in [0, 1], of a size that it fixes, to one row of features each.
    Raises MissingWeights if there is none, CheckpointError if it is no such network or brings code along."""
    if not path.is_file():
        raise MissingWeights(f"there is no file {path}; give the exported network as --features")
    try:
        exported = load_program(path)
        side = int(input_shape(exported)[-1])
        module = exported.module().to(device)
    except CheckpointError:
        raise
    except Exception as error:  # whatever the archive holds
        raise CheckpointError(f"{path} is no exported network ({first_line(error)}); export it again") from error
    return FeatureNetwork(
        name=slug(path.stem),
        frechet_name=f"frechet_{slug(path.stem)}",
        weights=f"{path.name} sha256 {sha256_of(path)[:16]}",
        resize=f"Lanczos to {side} x {side}",
        prepare=lambda images: stack([at_side(image, side) for image in images]).to(device),
        forward=module,
    )


def export_features(network: nn.Module, side: int, path: Path) -> None:
    """Write a network of pictures in [0, 1] as `load_exported` reads it."""
    example = torch.zeros(2, 3, side, side)
    sizes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    with torch.no_grad():
        torch.export.save(torch.export.export(network.eval(), (example,), dynamic_shapes=sizes), path)


def input_shape(exported: Any) -> Sequence[Any]:
    """The shape of the pictures an exported network takes."""
    (name,) = exported.graph_signature.user_inputs
    return next(node.meta["val"].shape for node in exported.graph.nodes if node.name == name)


def load_transformers(folder: Path, name: str, device: torch.device | str = "cpu") -> FeatureNetwork:
    """Any vision model of transformers, by its pooled output."""
    from transformers import AutoImageProcessor, AutoModel

    try:
        with quietly():
            network, report = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
            processor: Any = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        check_loaded(network, report["missing_keys"], report["unexpected_keys"])
    except Exception as error:  # a damaged folder fails in as many ways as transformers has file formats
        raise CheckpointError(f"{folder} holds no vision model of transformers ({first_line(error)})") from error
    network.eval().requires_grad_(False).to(device)

    def forward(pixels: Float[Tensor, "batch 3 h w"]) -> Features:
        pooled = network(pixel_values=pixels).pooler_output
        return pooled.flatten(1)

    return FeatureNetwork(
        name=slug(Path(name).name),
        frechet_name=f"frechet_{slug(Path(name).name)}",
        weights=f"{Path(name).name} {hash_of_folder(folder)}",
        resize=f"by {type(processor).__name__}",
        prepare=lambda images: processor(images=list(images), return_tensors="pt")["pixel_values"].to(device),
        forward=forward,
    )


# -- where weights are -------------------------------------------------------------------------------------------------


def folder_of(name: str, flag: str) -> Path:
    """A folder here, or the hub's.
    Raises MissingWeights, which says what to fetch."""
    if Path(name).is_dir():
        return Path(name)
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not Path(name).exists():
        try:
            return download(name)
        except CheckpointError as error:
            raise MissingWeights(
                f"{error}; fetch its files (all .json, .txt and .safetensors of it) into a folder, give that as {flag}"
            ) from error
    raise MissingWeights(f"there is no folder {name}; give a folder or a hub name as {flag}")


def file_of(name: str, otherwise: str) -> Path:
    """A file here, or one on the hub by owner/name/file.
    Raises MissingWeights, which says what to do otherwise."""
    if Path(name).is_file():
        return Path(name)
    parts = name.split("/", 2)
    if len(parts) == 3 and all(parts) and not name.startswith("."):
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download("/".join(parts[:2]), parts[2]))
        except Exception as error:  # the hub's client raises many kinds
            raise MissingWeights(f"{name} is no file here and the hub did not give it; {otherwise}") from error
    raise MissingWeights(f"there is no file {name}; {otherwise}")


def hash_of_folder(folder: Path) -> str:
    """How the weights of a folder, and what its JSON files say of pictures and words, are told from others."""
    paths = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
    digests = [f"{path.name} {sha256_of(path)}" for path in paths]
    return "sha256 " + hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


# -- pictures ----------------------------------------------------------------------------------------------------------


def stack(images: Sequence[Image.Image]) -> Float[Tensor, "batch 3 h w"]:
    """Images of one size as colours in [0, 1]."""
    return torch.stack([to_tensor(image) for image in images])


def at_side(image: Image.Image, side: int) -> Image.Image:
    return image if image.size == (side, side) else image.resize((side, side), Image.Resampling.LANCZOS)


def slug(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower()
