"""Functions of tensors as CUDA graphs, so that Python launches one thing instead of thousands of kernels."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

WORDS = 32
"""Texts are padded to a multiple of so many words, so that there are few shapes to capture."""
WARM_UPS = 3
"""Calls before the capture, in which kernels are chosen and memory is asked for."""
Function = Callable[..., tuple[Tensor, ...]]


class Graph:
    """A function of tensors, captured once where there is a CUDA device, and from then on replayed with other numbers
    of the same shapes. On another device it is the function itself.

    The function must not look at what the device has computed; weights may change between calls, their places not.
    What it changes beside its outputs changes in the `warm_ups` too. Graphs that are never replayed at the same time
    may share a `pool` of memory (`torch.cuda.graph_pool_handle`)."""

    def __init__(self, function: Function, inputs: Sequence[Tensor], warm_ups: int = WARM_UPS, pool: Any = None):
        self.function, self.pool = function, pool
        self.inputs = [tensor.clone() for tensor in inputs]
        self.graph: torch.cuda.CUDAGraph | None = None
        if self.inputs[0].device.type == "cuda":
            self._capture(warm_ups)

    def _capture(self, warm_ups: int) -> None:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(warm_ups):
                self.function(*self.inputs)
        torch.cuda.current_stream().wait_stream(beside)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may compute meanwhile, as those that read prompts.
        with torch.cuda.graph(self.graph, pool=self.pool, capture_error_mode="thread_local"):
            self.outputs = self.function(*self.inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the function gives for these inputs.
        Raises ValueError if they have other shapes than those it was captured for."""
        wanted, found = ([tuple(tensor.shape) for tensor in some] for some in (self.inputs, inputs))
        if wanted != found:
            raise ValueError(f"inputs of shapes {found} came; this graph was captured for {wanted}")
        if self.graph is None:
            return self.function(*inputs)
        for mine, given in zip(self.inputs, inputs, strict=True):
            mine.copy_(given)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)


class GraphedStep:
    """A function that is called over and over and changes something each time, such as a step of training: one graph
    for each shape that its inputs come in. The first calls of a shape are made kernel by kernel; they are its warm-ups.

    On a CUDA device the calls run on a stream of their own, so that the next inputs are made meanwhile; who looks at
    the outputs, or at what has changed, calls `torch.cuda.synchronize` first. On another device it is the function."""

    def __init__(self, function: Function, device: torch.device):
        self.function = function
        self.stream = torch.cuda.Stream() if device.type == "cuda" else None
        self.calls: dict[tuple[torch.Size, ...], int] = {}
        self.graphs: dict[tuple[torch.Size, ...], Graph] = {}
        self.is_capturing = False

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the function gives for these inputs."""
        if self.stream is None:
            return self.function(*inputs)
        self.stream.wait_stream(torch.cuda.current_stream())
        for tensor in inputs:
            tensor.record_stream(self.stream)
        with torch.cuda.stream(self.stream):
            return self._call(inputs)

    def _call(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        shapes = tuple(tensor.shape for tensor in inputs)
        self.calls[shapes] = self.calls.get(shapes, 0) + 1
        if self.calls[shapes] <= WARM_UPS:
            return self.function(*inputs)
        if shapes not in self.graphs:
            self.is_capturing = True
            self.graphs[shapes] = Graph(self.function, inputs, warm_ups=0)
            self.is_capturing = False
        return self.graphs[shapes](*inputs)


def padded(
    text: Float[Tensor, "text word dim"], is_word: Bool[Tensor, "text word"]
) -> tuple[Float[Tensor, "text longer dim"], Bool[Tensor, "text longer"]]:
    """Texts with padding behind them, up to a multiple of WORDS."""
    missing = -text.shape[1] % WORDS
    return functional.pad(text, (0, 0, 0, missing)), functional.pad(is_word, (0, missing))
