"""Inception-v3 as FID has it: the network of 2015 with 1008 labels, and TensorFlow 1's way to resize.
Szegedy et al. (arXiv:1512.00567); its use by Heusel et al. (arXiv:1706.08500).

It differs from the Inception-v3 that classifies today: average pools do not count the padding, the last block pools by
maximum, and pictures are resized without antialiasing. Names of weights are those of the published files."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from muse.shapes import Pictures

SIDE = 299
NUM_LABELS = 1008
Maps = Float[Tensor, "batch dim h w"]
More = Float[Tensor, "batch dim2 h2 w2"]
"""Maps of other channels and sizes."""


class Conv(nn.Module):
    """A convolution without bias, frozen batch norm, ReLU; of stride 1 it keeps the size unless told `pad=False`."""

    def __init__(self, channels_in: int, channels_out: int, *kernel: int, stride: int = 1, pad: bool = True):
        super().__init__()
        size = kernel if len(kernel) == 2 else kernel * 2
        padding = tuple(side // 2 if pad and stride == 1 else 0 for side in size)
        self.conv = nn.Conv2d(channels_in, channels_out, size, stride, padding, bias=False)  # pyright: ignore
        self.bn = nn.BatchNorm2d(channels_out, eps=0.001)

    def forward(self, maps: Maps) -> More:
        return F.relu(self.bn(self.conv(maps)))


def chain(maps: Maps, *layers: nn.Module) -> More:
    for layer in layers:
        maps = layer(maps)
    return maps


def mean_pool(maps: Maps) -> Maps:
    return F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)


class MixedA(nn.Module):
    """Kernels of 1, 5 and twice 3."""

    def __init__(self, width: int, pooled: int):
        super().__init__()
        self.branch1x1 = Conv(width, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(width, 48, 1), Conv(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(width, 64, 1), Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3)
        self.branch_pool = Conv(width, pooled, 1)

    def forward(self, maps: Maps) -> More:
        fives = chain(maps, self.branch5x5_1, self.branch5x5_2)
        threes = chain(maps, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3)
        return torch.cat([self.branch1x1(maps), fives, threes, self.branch_pool(mean_pool(maps))], 1)


class MixedB(nn.Module):
    """Halves the size."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = Conv(288, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(288, 64, 1), Conv(64, 96, 3)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, maps: Maps) -> More:
        threes = chain(maps, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3)
        return torch.cat([self.branch3x3(maps), threes, F.max_pool2d(maps, 3, 2)], 1)


class MixedC(nn.Module):
    """Kernels of 7 as a row and a column."""

    def __init__(self, narrow: int):
        super().__init__()
        self.branch1x1 = Conv(768, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = Conv(768, narrow, 1), Conv(narrow, narrow, 1, 7)
        self.branch7x7_3 = Conv(narrow, 192, 7, 1)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(768, narrow, 1), Conv(narrow, narrow, 7, 1)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Conv(narrow, narrow, 1, 7), Conv(narrow, narrow, 7, 1)
        self.branch7x7dbl_5 = Conv(narrow, 192, 1, 7)
        self.branch_pool = Conv(768, 192, 1)

    def forward(self, maps: Maps) -> More:
        once = chain(maps, self.branch7x7_1, self.branch7x7_2, self.branch7x7_3)
        first = chain(maps, self.branch7x7dbl_1, self.branch7x7dbl_2, self.branch7x7dbl_3)
        twice = chain(first, self.branch7x7dbl_4, self.branch7x7dbl_5)
        return torch.cat([self.branch1x1(maps), once, twice, self.branch_pool(mean_pool(maps))], 1)


class MixedD(nn.Module):
    """Halves the size again."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(768, 192, 1), Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(768, 192, 1), Conv(192, 192, 1, 7)
        self.branch7x7x3_3, self.branch7x7x3_4 = Conv(192, 192, 7, 1), Conv(192, 192, 3, stride=2)

    def forward(self, maps: Maps) -> More:
        threes = chain(maps, self.branch3x3_1, self.branch3x3_2)
        sevens = chain(maps, self.branch7x7x3_1, self.branch7x7x3_2, self.branch7x7x3_3, self.branch7x7x3_4)
        return torch.cat([threes, sevens, F.max_pool2d(maps, 3, 2)], 1)


class MixedE(nn.Module):
    """Kernels of 3 as a row and a column side by side; the last one pools by maximum."""

    def __init__(self, width: int, pools_maximum: bool):
        super().__init__()
        self.pools_maximum = pools_maximum
        self.branch1x1 = Conv(width, 320, 1)
        self.branch3x3_1 = Conv(width, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Conv(384, 384, 1, 3), Conv(384, 384, 3, 1)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(width, 448, 1), Conv(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Conv(384, 384, 1, 3), Conv(384, 384, 3, 1)
        self.branch_pool = Conv(width, 192, 1)

    def forward(self, maps: Maps) -> More:
        once, twice = self.branch3x3_1(maps), chain(maps, self.branch3x3dbl_1, self.branch3x3dbl_2)
        pooled = F.max_pool2d(maps, 3, stride=1, padding=1) if self.pools_maximum else mean_pool(maps)
        threes = [self.branch3x3_2a(once), self.branch3x3_2b(once)]
        doubles = [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return torch.cat([self.branch1x1(maps), *threes, *doubles, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """Pictures to the 2048 features of the last pool."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3, self.Conv2d_2b_3x3 = Conv(32, 32, 3, pad=False), Conv(32, 64, 3)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Conv(64, 80, 1), Conv(80, 192, 3, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = MixedA(192, 32), MixedA(256, 64), MixedA(288, 64)
        self.Mixed_6a = MixedB()
        self.Mixed_6b, self.Mixed_6c = MixedC(128), MixedC(160)
        self.Mixed_6d, self.Mixed_6e = MixedC(160), MixedC(192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = MixedD(), MixedE(1280, False), MixedE(2048, True)
        self.fc = nn.Linear(2048, NUM_LABELS)

    def forward(self, pictures: Pictures) -> Float[Tensor, "batch 2048"]:
        """Features of pictures in [0, 1], at any size."""
        # 8-bit values, as TensorFlow's graph has them.
        maps = (resize_as_tensorflow_1(pictures * 255, SIDE) - 128) / 128
        maps = chain(maps, self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_2b_3x3)
        maps = chain(F.max_pool2d(maps, 3, 2), self.Conv2d_3b_1x1, self.Conv2d_4a_3x3)
        maps = chain(F.max_pool2d(maps, 3, 2), self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a)
        maps = chain(maps, self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e)
        return chain(maps, self.Mixed_7a, self.Mixed_7b, self.Mixed_7c).mean((2, 3))

    def labels(self, features: Float[Tensor, "batch 2048"]) -> Float[Tensor, "batch 1008"]:
        """Logits without the bias, as the inception score has them."""
        return features @ self.fc.weight.T


def resize_as_tensorflow_1(pictures: Float[Tensor, "batch 3 h w"], side: int) -> Float[Tensor, "batch 3 h2 w2"]:
    """Bilinear, without antialiasing, pixel i at i * old / new: the grid starts at the corner and not at half a pixel.
    Other ways to resize move FID by several points (arXiv:2104.11222)."""
    for axis in (2, 3):
        old = pictures.shape[axis]
        where = torch.arange(side, device=pictures.device, dtype=torch.float64) * (old / side)
        low = where.long().clamp(max=old - 1)
        share = (where - low).to(pictures.dtype).reshape(-1, *([1] * (3 - axis)))
        near, far = pictures.index_select(axis, low), pictures.index_select(axis, (low + 1).clamp(max=old - 1))
        pictures = near + (far - near) * share
    return pictures
