"""The optimizers of the transformers: AdamW, the AdaFactor that Muse was trained with, and Muon, which needs fewer
steps to learn by heart."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from muse.models.layers import Stack

OptimizerName = Literal["adamw", "adafactor", "muon"]


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices and tables decay; what scales or shifts does not."""
    matrices = [p for p in module.parameters() if p.ndim >= 2]
    others = [p for p in module.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def optimizer_for(
    module: nn.Module, name: OptimizerName, learning_rate: float, weight_decay: float, *, is_captured: bool = False
) -> torch.optim.Optimizer:
    """The optimizer of a transformer, with the moments of the paper: 0.9 and 0.96. Muse, appendix.
    Where a CUDA graph captures its steps, torch's own must be told; ours may always be."""
    groups, betas = parameter_groups(module, weight_decay), (0.9, 0.96)
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, capturable=is_captured, fused=True)
    if name == "adafactor":
        return AdaFactor(groups, lr=learning_rate, betas=betas)
    assert name == "muon"  # as the options of a training promise
    return Muon(muon_groups(module, weight_decay), lr=learning_rate, betas=betas)


def muon_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """The matrices of a transformer's layers, whose steps are orthogonal; all else is left to Adam, as tables are
    sparse, and what scales or shifts is no matrix."""
    decaying, others = parameter_groups(module, weight_decay)
    in_layers = {p for stack in module.modules() if isinstance(stack, Stack) for p in stack.parameters()}
    params = cast(list[nn.Parameter], decaying["params"])
    matrices, tables = [p for p in params if p in in_layers], [p for p in params if p not in in_layers]
    return [{**decaying, "params": matrices, "is_orthogonal": True}, {**decaying, "params": tables}, others]


class OneByOne(torch.optim.Optimizer, ABC):
    """An optimizer that moves one parameter, or this process's shard of it, after the other, with decoupled decay."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One step down the gradients that are there."""
        for group in self.param_groups:
            for parameter, update in self.updates(group):
                weight = local(parameter)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(group["lr"] * update)  # a number or a tensor, which a captured step reads anew

    def updates(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
        """The parameters of a group that have gradients, each with its update."""
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield parameter, self.update_of(parameter, parameter.grad, group)

    @abstractmethod
    def update_of(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        """What a learning rate of 1 would take away from this process's shard."""


def counted(state: dict[str, Any], parameter: Tensor) -> Tensor:
    """The number of this step, where the parameter is, so that a captured step counts too."""
    state["step"] = state["step"].to(local(parameter).device).add_(1)
    return state["step"]


class AdaFactor(OneByOne):
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

    def update_of(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter] or self._begin(parameter)
        fading = (1 - counted(state, parameter) ** -0.8).clamp(max=group["betas"][1])
        gradient, average = local(gradient), local(state["average"])
        update = gradient * self._scale(parameter, gradient.square() + group["eps"], state, fading)
        size = over_shards(update.square().sum(), parameter).div(parameter.numel()).sqrt()
        update /= (size / group["clip"]).clamp(min=1)
        return average.lerp_(update, 1 - group["betas"][0])

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

    def _scale(self, parameter: Tensor, squares: Tensor, state: dict[str, Any], fading: Tensor) -> Tensor:
        """One over the root of the second moment, after the squares of this step have entered it."""
        if parameter.ndim != 2:
            return local(state["squares"]).lerp_(squares, 1 - fading).rsqrt()
        rows, columns = local(state["rows"]), local(state["columns"])
        rows.lerp_(squares.mean(1, keepdim=True), 1 - fading)
        columns.lerp_(over_shards(squares.sum(0, keepdim=True), parameter) / len(parameter), 1 - fading)
        typical = over_shards(rows.sum(), parameter) / len(parameter)
        return (rows / typical).rsqrt() * columns.rsqrt()


class Muon(OneByOne):
    """Muon (Jordan and others, 2024) for groups with `is_orthogonal`, AdamW for the others, in one optimizer.

    A matrix moves along the nearest orthogonal matrix of its averaged gradient, scaled to the size of an AdamW step,
    0.2 times the root of its longer side (arXiv:2502.16982, equation 4), so that both take the same learning rate. A
    sharded matrix is gathered for it. torch's own Muon takes matrices only, and no checkpoint of ours holds two
    optimizers as one."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.96),
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        eps: float = 1e-8,
    ):
        defaults = {"betas": betas, "weight_decay": weight_decay, "momentum": momentum, "eps": eps}
        super().__init__(params, {"lr": lr, "is_orthogonal": False, **defaults})

    def updates(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
        if not group["is_orthogonal"]:
            yield from super().updates(group)
            return
        alike: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike[parameter.shape].append(parameter)
        for shape, parameters in alike.items():
            at_once = max(1, LARGEST_STACK // shape.numel())
            for start in range(0, len(parameters), at_once):
                some = parameters[start : start + at_once]
                directions = torch.stack([self._ahead(each, group["momentum"]) for each in some])
                for parameter, whole in zip(some, nearest_orthogonal(directions), strict=True):
                    yield parameter, shard_of(whole * (0.2 * max(shape) ** 0.5), parameter)

    def _ahead(self, parameter: Tensor, momentum: float) -> Tensor:
        """The averaged gradient of a matrix, Nesterov's look ahead in it, whole."""
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["average"] = torch.zeros_like(parameter)
        average = state["average"]
        average.lerp_(gradient, 1 - momentum)
        ahead = torch.lerp(gradient, average, momentum)
        return ahead.full_tensor() if isinstance(ahead, DTensor) else ahead

    def update_of(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state, (first, second) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["average"], state["squares"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        num = counted(state, parameter)
        gradient, average, squares = local(gradient), local(state["average"]), local(state["squares"])
        average.lerp_(gradient, 1 - first)
        squares.lerp_(gradient.square(), 1 - second)
        size = (squares / (1 - second**num)).sqrt_().add_(group["eps"])
        return average / (1 - first**num) / size


POLYNOMIAL = (3.4445, -4.7750, 2.0315)
"""Of a singular value s: a s + b s^3 + c s^5; five times over it takes all of (0.01, 1] to near 1."""
LARGEST_STACK = 2**25
"""Numbers in the matrices whose steps are computed at once: many small ones are otherwise many small kernels."""
CLASSES: dict[OptimizerName, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adafactor": AdaFactor,
    "muon": Muon,
}
MOMENTS: dict[OptimizerName, set[str]] = {
    "adamw": {"step", "exp_avg", "exp_avg_sq"},
    "adafactor": {"step", "average", "squares", "rows", "columns"},
    "muon": {"step", "average", "squares"},
}
"""What each keeps of a transformer's parameters, by which a checkpoint tells whose it is."""


def nearest_orthogonal(matrices: Float[Tensor, "*matrix rows columns"]) -> Float[Tensor, "*matrix rows columns"]:
    """U V^T of each matrix U S V^T, its singular values between about 0.7 and 1.2: five Newton-Schulz steps in
    bfloat16. Muon (kellerjordan.github.io/posts/muon)."""
    first, third, fifth = POLYNOMIAL
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    wide = (matrices.mT if is_tall else matrices).bfloat16().contiguous()
    wide = wide.view(-1, *wide.shape[-2:])
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        square = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(square, square, square, beta=third, alpha=fifth), wide, beta=first)
    return (wide.mT if is_tall else wide).float().reshape(matrices.shape)


def shard_of(whole: Tensor, parameter: Tensor) -> Tensor:
    """This process's shard of a tensor that is laid out as a parameter is."""
    if not isinstance(parameter, DTensor):
        return whole
    return local(distribute_tensor(whole, parameter.device_mesh, parameter.placements))


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, or the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def over_shards(tensor: Tensor, parameter: Tensor) -> Tensor:
    """The sum of what each shard of a parameter gives."""
    if isinstance(parameter, DTensor):
        dist.all_reduce(tensor, group=parameter.device_mesh.get_group())
    return tensor
