"""LPIPS (Zhang et al., arXiv:1801.03924), version 0.1 on AlexNet: how different two pictures look, by weights that were
fitted to what people say.

The fitted weights come with torchmetrics; its own function would need torchvision, which this package does without.
Those of AlexNet are torchvision's file."""

import importlib.resources
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from muse.checkpoint import fill, read_state
from muse.evaluation.metrics import PerPicture
from muse.evaluation.networks import MissingWeights, file_of, sha256_of
from muse.precision import exact_convolutions
from muse.shapes import Pictures

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
FETCH_ALEXNET = (
    f"fetch {ALEXNET_FILE} (torchvision's AlexNet, 233 MB, from PyTorch's model downloads), give it as --lpips"
)
STAGES = (2, 5, 8, 10, 12)
"""How many of AlexNet's layers there are up to the end of each stage that is looked at."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of colours in [-1, 1]."""
FITTED = "functional/image/lpips_models/alex.pth"
CLASSIFIER = "classifier."


class Lpips(nn.Module):
    """AlexNet up to its last convolution, and a weight for each channel of each of five stages."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )
        fitted = read_state(Path(str(importlib.resources.files("torchmetrics"))) / FITTED)
        self.name = "AlexNet of random weights"
        """Which weights these are, for reports."""
        self.fitted = [fitted[f"lin{i}.model.1.weight"] for i in range(len(STAGES))]
        self.eval().requires_grad_(False)

    @classmethod
    def load(cls, where: str | None) -> "Lpips":
        """Fill in the weights of AlexNet from a file, or one on the hub by owner/name/file.
        Raises MissingWeights if there is none, CheckpointError if it is of another network."""
        if where is None:
            raise MissingWeights(f"the weights of AlexNet were not given; {FETCH_ALEXNET}")
        path = file_of(where, FETCH_ALEXNET)
        state = {name: value for name, value in read_state(path).items() if not name.startswith(CLASSIFIER)}
        network = cls()
        fill(network, state, path, "torchvision's AlexNet")
        network.name = f"AlexNet sha256 {sha256_of(path)[:16]}, LPIPS 0.1 of torchmetrics"
        return network

    @exact_convolutions()
    def forward(self, pictures: Pictures, others: Pictures) -> PerPicture:
        """The distance of each picture, in [0, 1], from the other one of its place; 0 for equal ones. Equation 1."""
        stages = zip(self.fitted, self.stages(pictures), self.stages(others), strict=True)
        return torch.stack([F.conv2d((a - b).square(), weight).mean((1, 2, 3)) for weight, a, b in stages]).sum(0)

    def stages(self, pictures: Pictures) -> list[Float[Tensor, "batch dim h w"]]:
        """The features of each stage, at each place of length 1."""
        shift, scale = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (SHIFT, SCALE))
        features, stages = (2 * pictures - 1 - shift) / scale, []
        for i, layer in enumerate(self.features, start=1):
            features = layer(features)
            if i in STAGES:
                stages.append(features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt())
        return stages
