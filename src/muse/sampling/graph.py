"""The whole loop of decoding as one CUDA graph: a picture of a 3B model is 17,000 kernels, and Python launches each."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from muse.sampling.decode import Noise, draw_noise, raise_if_broken, reveal, schedule
from muse.sampling.options import SamplingOptions
from muse.shapes import Predict, Tokens

WARM_UPS = 3
"""Calls before the capture, in which kernels are chosen and memory is asked for."""


class Graph:
    """A function of tensors, captured once where there is a CUDA device, and from then on replayed with other numbers
    of the same shapes. On another device it is the function itself.

    The function must not look at what the device has computed; weights may change between calls, their places not."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], inputs: Sequence[Tensor]):
        self.function = function
        self.inputs = [tensor.clone() for tensor in inputs]
        self.graph: torch.cuda.CUDAGraph | None = None
        if self.inputs[0].device.type == "cuda":
            self._capture()

    def _capture(self) -> None:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                self.function(*self.inputs)
        torch.cuda.current_stream().wait_stream(beside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
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


class GraphedDecode:
    """`decode` of hidden grids as one graph: given the same generators it draws the same tokens.

    `predict_of` makes a `predict` of the tensors that change from picture to picture, such as text states, of which
    `context` is an example; it becomes a part of the graph."""

    def __init__(
        self,
        predict_of: Callable[..., Predict],
        context: Sequence[Tensor],
        options: SamplingOptions,
        start_tokens: Tokens,
        mask_id: int,
    ):
        device, (batch, num_positions) = start_tokens.device, start_tokens.shape
        self.options, self.start_tokens = options, start_tokens
        counts, halton = schedule(start_tokens, options, mask_id)

        def draw(noise: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
            predict = predict_of(*given)
            return reveal(start_tokens, counts, predict, options, mask_id, lambda index: noise[index], halton)

        noise = torch.rand(options.steps, 2, batch, num_positions, device=device)
        self.graph = Graph(torch.no_grad()(draw), (noise, *context))

    def __call__(self, generators: Sequence[torch.Generator], *context: Tensor) -> Tokens:
        """Tokens of all pictures.
        Raises ValueError for a context of other shapes, FloatingPointError for NaN or infinite logits."""
        steps: list[Noise] = [draw_noise(generators, self.start_tokens.shape[1]) for _ in range(self.options.steps)]
        tokens, is_broken = self.graph(torch.stack(steps).to(self.start_tokens.device), *context)
        raise_if_broken(is_broken)
        return tokens
