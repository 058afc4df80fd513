"""The whole loop of decoding as one CUDA graph: a picture of a 3B model is 17,000 kernels, and Python launches each."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from muse.cuda_graph import Graph
from muse.sampling.decode import Noise, StepReport, draw_noise, plan_for, raise_if_broken, reveal
from muse.sampling.options import SamplingOptions
from muse.shapes import Predict, Tokens

MOST_GRAPHS = 8
"""Graphs that are kept; each holds the memory of its activations."""


class GraphedDecode:
    """`decode` of hidden grids as one graph: given the same generators it draws the same tokens.

    `predict_of` makes a `predict` of the tensors that change from picture to picture, such as text states, of which
    `context` is an example; it becomes a part of the graph. `height` is that of `decode`."""

    def __init__(
        self,
        predict_of: Callable[..., Predict],
        context: Sequence[Tensor],
        options: SamplingOptions,
        start_tokens: Tokens,
        mask_id: int,
        height: int | None = None,
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
        self.graph = Graph(torch.no_grad()(draw), (noise, *context))

    def __call__(
        self,
        generators: Sequence[torch.Generator],
        *context: Tensor,
        callback: Callable[[StepReport], None] | None = None,
    ) -> Tokens:
        """Tokens of all pictures. `callback` sees every step, but not before the last one is taken.
        Raises ValueError for a context of other shapes, FloatingPointError for logits that are NaN or +inf."""
        steps: list[Noise] = [draw_noise(generators, self.start_tokens.shape[1]) for _ in range(self.options.steps)]
        noise = torch.stack(steps).to(self.start_tokens.device)
        tokens, is_broken, *seen = self.graph(noise, *context)
        raise_if_broken(is_broken)
        if callback is not None:
            for step, drawn, is_hidden, log_probs in zip(self.plan.steps, *seen, strict=True):
                callback(StepReport(step, drawn, is_hidden, log_probs=log_probs))
        return tokens


class Graphs:
    """`decode` of hidden grids by graphs: one for each kind of grid, of options and of shapes, captured when it is
    first asked for. The MOST_GRAPHS that were used last are kept. Several threads may draw, one after the other."""

    def __init__(self) -> None:
        self.kept: OrderedDict[Hashable, GraphedDecode] = OrderedDict()
        self.drawing = threading.Lock()

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
        Raises FloatingPointError for logits that are NaN or +inf."""
        key = kind, options, start_tokens.shape, *(tensor.shape for tensor in context)
        with self.drawing:
            if key not in self.kept:
                while len(self.kept) >= MOST_GRAPHS:
                    self.kept.popitem(last=False)
                self.kept[key] = GraphedDecode(predict_of, context, options, start_tokens, mask_id, height)
            self.kept.move_to_end(key)
            return self.kept[key](generators, *context, callback=callback)
