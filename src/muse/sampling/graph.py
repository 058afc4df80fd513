"""The whole loop of decoding as one CUDA graph: a picture of a 3B model is 17,000 kernels, and Python launches each."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from muse.cuda_graph import Graph
from muse.sampling.decode import Noise, StepReport, decode, draw_noise, plan_for, raise_if_broken, reveal
from muse.sampling.options import SamplingOptions
from muse.shapes import Predict, Tokens

MOST_GRAPHS = 64
"""Graphs that are kept: a server of batches of up to eight has sixteen before any client asks for other options."""


class GraphedDecode:
    """`decode` of hidden grids as one graph: given the same generators it draws the same tokens.

    `predict_of` makes a `predict` of the tensors that change from picture to picture, such as text states, of which
    `context` is an example; it becomes a part of the graph. `height` is that of `decode`, `pool` that of `Graph`."""

    def __init__(
        self,
        predict_of: Callable[..., Predict],
        context: Sequence[Tensor],
        options: SamplingOptions,
        start_tokens: Tokens,
        mask_id: int,
        height: int | None = None,
        pool: Any = None,
    ):
        device, (batch, num_positions) = start_tokens.device, start_tokens.shape
        self.options, self.start_tokens = options, start_tokens
        self.plan = plan = plan_for(start_tokens, options, mask_id, height)

        def draw(noise: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
            predict, reports = predict_of(*given), list[StepReport]()
            tokens, is_broken = reveal(
                start_tokens, plan, predict, options, mask_id, lambda index: noise[index], reports.append
            )
            seen = ([report.tokens, report.is_hidden, report.log_probs] for report in reports)
            return tokens, is_broken, *(torch.stack(each) for each in zip(*seen, strict=True))

        noise = torch.rand(options.steps, 2, batch, num_positions, device=device, dtype=torch.float32)
        self.graph = Graph(torch.no_grad()(draw), (noise, *context), pool=pool)

    def __call__(self, generators: Sequence[torch.Generator], *context: Tensor) -> Tokens:
        """Tokens of all pictures.
        Raises ValueError for a context of other shapes, FloatingPointError for logits that are NaN or +inf."""
        return self.steps(generators, *context)[0]

    def steps(self, generators: Sequence[torch.Generator], *context: Tensor) -> tuple[Tokens, list[StepReport]]:
        """As a call, with what stands after each step."""
        noise: list[Noise] = [draw_noise(generators, self.start_tokens.shape[1]) for _ in range(self.options.steps)]
        tokens, is_broken, *seen = self.graph(torch.stack(noise).to(self.start_tokens.device), *context)
        raise_if_broken(is_broken)
        reports = [
            StepReport(step, drawn, is_hidden, log_probs=log_probs)
            for step, drawn, is_hidden, log_probs in zip(self.plan.steps, *seen, strict=True)
        ]
        return tokens, reports


class Graphs:
    """`decode` of hidden grids by graphs: one for each kind of grid, of options and of shapes, captured when such a
    grid is asked for a second time, as a capture takes as long as several grids. The MOST_GRAPHS that were used last
    are kept. Several threads may draw, one after the other."""

    def __init__(self) -> None:
        self.kept: OrderedDict[Hashable, GraphedDecode | None] = OrderedDict()
        self.drawing = threading.Lock()
        self.pool: Any = None

    @staticmethod
    def fit(device: torch.device) -> bool:
        """Whether graphs are captured on a device."""
        return device.type == "cuda"

    def decode(
        self,
        kind: Hashable,
        start_tokens: Tokens,
        predict_of: Callable[..., Predict],
        context: Sequence[Tensor],
        options: SamplingOptions,
        generators: Sequence[torch.Generator],
        mask_id: int,
        callback: Callable[[StepReport], None] | None = None,
        height: int | None = None,
    ) -> Tokens:
        """As `decode`, of what `predict_of` makes of the context: of one `kind` it must always make the same.
        `callback` sees every step, but where there is a graph not before the last one is taken.
        Raises FloatingPointError for logits that are NaN or +inf."""
        key = kind, options, start_tokens.shape, *((tensor.shape, tensor.dtype) for tensor in context)
        with self.drawing:
            is_known = key in self.kept
            graph = self.kept.pop(key, None)
            if is_known and graph is None:
                if self.pool is None and start_tokens.device.type == "cuda":
                    self.pool = torch.cuda.graph_pool_handle()
                graph = GraphedDecode(predict_of, context, options, start_tokens, mask_id, height, self.pool)
            self.kept[key] = graph
            while len(self.kept) > MOST_GRAPHS:
                self.kept.popitem(last=False)
            drawn = None if graph is None else graph.steps(generators, *context)
        if drawn is None:
            return decode(start_tokens, predict_of(*context), options, generators, mask_id, callback, height)
        tokens, reports = drawn
        if callback is not None:
            for report in reports:
                callback(report)
        return tokens
