"""Linear layers whose products are of numbers of 8 bits, for drawing: int8 on processors, float8 on GPUs.

Each row of the weights, and each position of what comes in, has a scale of its own, found when it comes ("dynamic"), so
that no sample of data is needed beforehand. LLM.int8() (arXiv:2208.07339) without its exceptions for outliers."""

import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor, nn
from torch.nn.functional import ScalingType, scaled_mm

from muse.models.layers import Stack

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
"""What the largest number of a row becomes."""
MULTIPLE = 16
"""Features are multiples of it in a GPU's products of 8 bits; layers of others stay as they are."""
LEAST = 1e-12
"""The smallest scale, of rows of zeros."""


def narrowed(
    rows: Float[Tensor, "row feature"], number: torch.dtype
) -> tuple[Shaped[Tensor, "row feature"], Float32[Tensor, "row 1"]]:
    """Rows in 8 bits, and what each is to be multiplied by."""
    scale = (rows.abs().amax(1, keepdim=True).float() / LARGEST[number]).clamp(min=LEAST)
    if rows.dtype == torch.float16:  # in which there is no inverse of a small scale
        rows = rows.float()
    inverse = (1 / scale).to(rows.dtype)
    shares = rows * inverse
    if number == torch.int8:
        shares = shares.round_()
    return shares.clamp_(-LARGEST[number], LARGEST[number]).to(number), 1 / inverse.float()


class NarrowLinear(nn.Module):
    """A linear layer without a bias, its weights in 8 bits, that also rounds what comes in before it multiplies.
    Raises ValueError for a layer with a bias."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, number: torch.dtype):
        super().__init__()
        if linear.bias is not None:
            raise ValueError(f"{linear} has a bias; only layers without one can be narrow")
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = narrowed(linear.weight.detach().float(), number)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.T.contiguous())

    def forward(self, states: Float[Tensor, "*place feature"]) -> Float[Tensor, "*place out"]:
        """The product in the type of what came."""
        rows, scale = narrowed(states.flatten(0, -2), self.weight.dtype)
        if self.weight.dtype == torch.int8:
            whole = torch._int_mm(rows, self.weight.T)
            product = (whole * scale).mul_(self.scale).to(states.dtype)
        else:
            row_wise = ScalingType.RowWise
            product = scaled_mm(
                rows, self.weight.T, scale, row_wise, self.scale, row_wise, output_dtype=torch.bfloat16
            ).to(states.dtype)
        return product.unflatten(0, states.shape[:-1])


def narrow(module: nn.Module, number: torch.dtype) -> None:
    """Make the linear layers of a transformer's stacks narrow, in place; tables, norms and what makes logits stay, and
    layers of an odd number of features."""
    for stack in [each for each in module.modules() if isinstance(each, Stack)]:
        for parent in list(stack.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear) and not (child.in_features % MULTIPLE or child.out_features % MULTIPLE):
                    setattr(parent, name, NarrowLinear(child, number))
