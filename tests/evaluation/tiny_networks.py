"""A network that looks at pictures, and pictures to look at."""

import numpy as np
import torch
from PIL import Image
from torch import nn

SIDE = 32


class TinyFeatures(nn.Module):
    """Pictures of 32 pixels to 24 features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 8, stride=8), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.layers(pictures)


def noise(seed: int, size: tuple[int, int] = (128, 128)) -> Image.Image:
    """Coarse coloured noise."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)
