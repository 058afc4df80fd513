"""Group normalisation with a gradient of its own on a processor."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

WIDEST = 4
"""Channels of one group up to which torch's gradient is the slower one: it takes the channels of a group at once."""
FEWEST = 2**16
"""Numbers in the features of one picture from which on ours is worth its start."""
AT_ONCE = 2**19
"""Numbers that are taken in one go, so that they stay in the cache from one operation to the next."""


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`, trained faster on a processor.

    Where features lie in memory place by place (`torch.channels_last`), as a VQGAN's do there, and groups are narrow,
    torch's gradient of this layer takes a third of a training step in bfloat16; ours a seventh of that time
    (docs/log.md). It is the same gradient, of sums in float32, and can be taken once only: not where a gradient is
    differentiated again."""

    def forward(self, input: Float[Tensor, "batch dim h w"]) -> Float[Tensor, "batch dim h w"]:  # torch's name of it
        if not is_ours_faster(input, self.num_groups):
            return super().forward(input)
        return PlaceByPlace.apply(input, self.weight, self.bias, self.num_groups, self.eps)  # pyright: ignore[reportReturnType]


def is_ours_faster(features: Tensor, groups: int) -> bool:
    """Whether a gradient will be asked for, and torch's is the slower one: compiled it is not."""
    return (
        torch.is_grad_enabled()
        and features.device.type == "cpu"
        and features.is_contiguous(memory_format=torch.channels_last)
        and features.shape[1] <= WIDEST * groups
        and features.numel() >= FEWEST * len(features)
        and not torch.compiler.is_compiling()
    )


class PlaceByPlace(torch.autograd.Function):
    """Features normalised by torch, their gradient in two passes over the places of each picture: the sums by channel
    of the gradient, and of the gradient times the features; then what each number of the features takes from them."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        samples, channels, height, width = features.shape
        normal, mean, rstd = torch.native_group_norm(
            features, weight, bias, samples, channels, height * width, groups, eps
        )
        ctx.save_for_backward(features, weight, mean, rstd)
        return normal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        features, weight, mean, rstd = ctx.saved_tensors
        samples, channels, height, width = features.shape
        wanted = torch.empty_like(features)
        given, taken, found = (
            [picture.flatten(0, 1).split(max(AT_ONCE // channels, 1)) for picture in maps.permute(0, 2, 3, 1)]
            for maps in (gradient.contiguous(memory_format=torch.channels_last), features, wanted)
        )
        by_bias, by_weight = torch.zeros(2, samples, channels, device=features.device)
        for i in range(samples):
            for dy, x in zip(given[i], taken[i], strict=True):
                dy = dy.float()
                by_bias[i] += dy.sum(0)
                by_weight[i] += (dy * x).sum(0)

        # Of every group: x_hat = (x - mean) * rstd; dx = rstd * (w dy - avg(w dy) - x_hat * avg(w dy x_hat))
        mean, rstd = (each.float()[..., None] for each in (mean, rstd))
        by_bias, by_weight = (sums.view(samples, mean.shape[1], -1) for sums in (by_bias, by_weight))
        by_weight = (by_weight - mean * by_bias) * rstd
        scales = weight.float().view(by_bias.shape[1:])
        size = by_bias.shape[-1] * height * width
        of_features = -(rstd**2) * (scales * by_weight).sum(-1, keepdim=True) / size
        offset = -rstd * (scales * by_bias).sum(-1, keepdim=True) / size - mean * of_features
        of_gradient, of_features, offset = (
            each.expand_as(by_bias).reshape(samples, channels) for each in (rstd * scales, of_features, offset)
        )
        for i in range(samples):
            for dy, x, dx in zip(given[i], taken[i], found[i], strict=True):
                dx.copy_(torch.addcmul(offset[i], x.float(), of_features[i]).addcmul_(dy.float(), of_gradient[i]))
        return wanted, by_weight.sum(0).flatten(), by_bias.sum(0).flatten(), None, None
