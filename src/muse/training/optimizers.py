"""The optimizers of the transformers: AdamW, and the AdaFactor that Muse was trained with."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

OptimizerName = Literal["adamw", "adafactor"]


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices and tables decay; what scales or shifts does not."""
    matrices = [p for p in module.parameters() if p.ndim >= 2]
    others = [p for p in module.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def optimizer_for(
    module: nn.Module, name: OptimizerName, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimizer of a transformer, with the moments of the paper: 0.9 and 0.96. Muse, appendix."""
    groups, betas = parameter_groups(module, weight_decay), (0.9, 0.96)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas)
    return AdaFactor(groups, lr=learning_rate, betas=betas)


class AdaFactor(torch.optim.Optimizer):
    """AdaFactor (arXiv:1804.04235) with a first moment and absolute step sizes, as large models are trained with it.

    The second moment of a matrix is kept as its row and column means. It fades by 1 - t^-0.8 (section 7.2), but never
    slower than `betas[1]`. A matrix sharded by rows has the moments that the whole would have: column means are summed
    over the shards. Neither torch's nor transformers' can be told a fixed second moment, or works on shards."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.96),
        weight_decay: float = 0.0,
        clip: float = 1.0,
        eps: float = 1e-30,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "clip": clip, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step down the gradients that are there."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter] or self._begin(parameter)
        state["step"] += 1
        fading = min(group["betas"][1], 1 - float(state["step"]) ** -0.8)
        assert parameter.grad is not None
        weight, gradient, average = local(parameter), local(parameter.grad), local(state["average"])
        update = gradient * self._scale(parameter, gradient.square() + group["eps"], state, fading)
        size = over_shards(update.square().sum(), parameter).div(parameter.numel()).sqrt()
        update /= (size / group["clip"]).clamp(min=1)
        average.lerp_(update, 1 - group["betas"][0])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(average, alpha=group["lr"])

    def _begin(self, parameter: Tensor) -> dict[str, Any]:
        state = self.state[parameter]
        state["step"] = torch.zeros(())
        state["average"] = torch.zeros_like(parameter)
        if parameter.ndim == 2:
            state["rows"] = torch.zeros_like(parameter[:, :1])
            state["columns"] = local(parameter).new_zeros(1, parameter.shape[1])
        else:
            state["squares"] = torch.zeros_like(parameter)
        return state

    def _scale(self, parameter: Tensor, squares: Tensor, state: dict[str, Any], fading: float) -> Tensor:
        """One over the root of the second moment, after the squares of this step have entered it."""
        if parameter.ndim != 2:
            return local(state["squares"]).lerp_(squares, 1 - fading).rsqrt()
        rows, columns = local(state["rows"]), local(state["columns"])
        rows.lerp_(squares.mean(1, keepdim=True), 1 - fading)
        columns.lerp_(over_shards(squares.sum(0, keepdim=True), parameter) / len(parameter), 1 - fading)
        typical = over_shards(rows.sum(), parameter) / len(parameter)
        return (rows / typical).rsqrt() * columns.rsqrt()


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, or the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def over_shards(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The sum of what each shard of a parameter gives."""
    if isinstance(parameter, DTensor):
        dist.all_reduce(tensor, group=parameter.device_mesh.get_group())
    return tensor
