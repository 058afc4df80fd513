"""How different two pictures look to a pretrained network: the perceptual term of VQGAN training."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from muse.checkpoint import fill, read_state
from muse.shapes import Pictures

FIRES = (
    (64, 16, 64),
    (128, 16, 64),
    (128, 32, 128),
    (256, 32, 128),
    (256, 48, 192),
    (384, 48, 192),
    (384, 64, 256),
    (512, 64, 256),
)
"""Channels in, squeezed, and of each of the two expansions, of SqueezeNet 1.1 (arXiv:1602.07360)."""
POOLS_BEFORE = (0, 2, 4)
"""The fire modules that a pooling comes before."""
MEANS_BGR = (104.0, 117.0, 123.0)


class Fire(nn.Module):
    """Squeeze by a 1x1 convolution, expand by a 1x1 and a 3x3 one side by side."""

    def __init__(self, channels_in: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels_in, squeezed, 1)
        self.expand1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, features: Float[Tensor, "batch dim h w"]) -> Float[Tensor, "batch dim2 h w"]:
        squeezed = F.relu(self.squeeze(features))
        return torch.cat([F.relu(self.expand1(squeezed)), F.relu(self.expand3(squeezed))], dim=1)


class PerceptualLoss(nn.Module):
    """Mean squared distance between the normalised features of frozen SqueezeNet 1.1, summed over its stages.
    LPIPS without its learned weights (arXiv:1801.03924, equation 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1)
        self.fires = nn.ModuleList(Fire(*channels) for channels in FIRES)
        self.means: Tensor
        self.register_buffer("means", torch.tensor(MEANS_BGR).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    @classmethod
    def from_file(cls, path: Path) -> "PerceptualLoss":
        """Load the weights that `projects/emoji/networks.py` converts.
        Raises CheckpointError if they are damaged or of another network."""
        loss = cls()
        fill(loss, read_state(path), path, "SqueezeNet 1.1")
        return loss.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def features(self, pictures: Pictures) -> list[Float[Tensor, "batch dim h w"]]:
        """The activations after the first convolution and before each later pooling, and the last."""
        stage = F.relu(self.conv1(pictures.flip(1) * 255 - self.means))
        stages = []
        for i, fire in enumerate(self.fires):
            if i in POOLS_BEFORE:
                stages.append(stage)
                stage = F.max_pool2d(stage, 3, stride=2, ceil_mode=True)
            stage = fire(stage)
        return [*stages, stage]

    def forward(self, pictures: Pictures, others: Pictures) -> Float[Tensor, ""]:
        """The distance between pictures in [0, 1] and others, in batch order; 0 for equal ones."""
        stages = zip(self.features(pictures), self.features(others), strict=True)
        return torch.stack([distance_of_directions(a, b).mean() for a, b in stages]).sum()


class DistanceOfDirections(torch.autograd.Function):
    """Twice one minus the cosine, with a gradient that makes no copy of the features in float32: half the time."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, others: Tensor) -> Tensor:
        lengths = [torch.linalg.vector_norm(each, dim=1, dtype=torch.float32) for each in (features, others)]
        is_there = [(length > 1e-6).float() for length in lengths]
        lengths = [length.clamp(min=1e-6) for length in lengths]
        cosine = (features * others).sum(1, dtype=torch.float32) / (lengths[0] * lengths[1])
        ctx.save_for_backward(features, others, *lengths, cosine)
        return is_there[0] + is_there[1] - 2 * cosine

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (gradient,) = gradients
        features, others, length, other_length, cosine = ctx.saved_tensors

        def towards(these: Tensor, those: Tensor, own_length: Tensor) -> Tensor:
            along = (2 * gradient * cosine / own_length.square()).to(these.dtype)[:, None]
            across = (-2 * gradient / (length * other_length)).to(these.dtype)[:, None]
            return (these * along).addcmul_(those, across)

        needs = ctx.needs_input_grad
        return (
            towards(features, others, length) if needs[0] else None,
            towards(others, features, other_length) if needs[1] else None,
        )


def distance_of_directions(
    features: Float[Tensor, "batch dim h w"], others: Float[Tensor, "batch dim h w"]
) -> Float[Tensor, "batch h w"]:
    """The squared distance between features, each first brought to length 1 (or left 0), at each place."""
    return DistanceOfDirections.apply(features, others)
