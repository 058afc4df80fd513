"""The whole loop of decoding as one CUDA graph: a picture of a 3B model is 17,000 kernels, and Python launches each."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from muse.cuda_graph import Graph
from muse.sampling.decode import Noise, draw_noise, plan_for, raise_if_broken, reveal
from muse.sampling.options import SamplingOptions
from muse.shapes import Predict, Tokens


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
        plan = plan_for(start_tokens, options, mask_id, height)

        def draw(noise: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
            predict = predict_of(*given)
            return reveal(start_tokens, plan, predict, options, mask_id, lambda index: noise[index])

        noise = torch.rand(options.steps, 2, batch, num_positions, device=device, dtype=torch.float32)
        self.graph = Graph(torch.no_grad()(draw), (noise, *context))

    def __call__(self, generators: Sequence[torch.Generator], *context: Tensor) -> Tokens:
        """Tokens of all pictures.
        Raises ValueError for a context of other shapes, FloatingPointError for logits that are NaN or +inf."""
        steps: list[Noise] = [draw_noise(generators, self.start_tokens.shape[1]) for _ in range(self.options.steps)]
        tokens, is_broken = self.graph(torch.stack(steps).to(self.start_tokens.device), *context)
        raise_if_broken(is_broken)
        return tokens
