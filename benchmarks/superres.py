"""Seconds to draw a large grid of tokens from a small one, ours with each attention and a peer's in turns, at equal
width, depth, tokens, codes and steps.

    python -m benchmarks.superres
    python -m benchmarks.superres --versus muse-maskgit-pytorch

The default is the super-resolution of muse-maskgit-pytorch's README, width 512, depth 8, 64 x 64 tokens of 16 x 16, in
the paper's 8 steps. Neither has layers over the small grid. Weights are random: they change nothing in the time.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import tyro

from benchmarks.generate import Generate, Precision, computing_in, theirs
from benchmarks.measure import in_turns_beside, interleaved
from muse.models.superres import Attention, SuperResConfig, SuperResTransformer
from muse.pipeline import superres_predict
from muse.precision import prefer_fast_float32
from muse.sampling import SamplingOptions, decode, generators_for


@dataclass(frozen=True)
class Superres:
    """What is drawn, and how often."""

    shape: Generate = field(default_factory=lambda: Generate(side=64, steps=8, rounds=3))
    """The transformer, its steps, precisions and rounds, and the peer."""
    low_side: int = 16
    """Rows and columns of the small grid."""
    attentions: tuple[Literal["full", "multi-axis"], ...] = ("full", "multi-axis")
    """Self-attention of our large tokens."""

    def config(self, attention: Attention) -> SuperResConfig:
        """The shape of ours."""
        shape, low = self.shape, self.low_side
        return SuperResConfig(
            num_codes=shape.num_codes,
            low_num_codes=shape.num_codes,
            height=shape.side,
            width=shape.side,
            low_height=low,
            low_width=low,
            dim=shape.dim,
            depth=shape.depth,
            low_depth=0,
            heads=shape.dim // 64,
            mlp_dim=4 * shape.dim,
            text_dim=shape.text_dim,
            attention=attention,
        )


def ours(
    what: Superres, attention: Attention, options: SamplingOptions, precision: Precision, text: torch.Tensor
) -> Callable[[], torch.Tensor]:
    """A function that draws a large grid for each text, the way `Muse.draw_superres` does."""
    config = what.config(attention)
    superres = computing_in(SuperResTransformer(config), precision, str(text.device))
    is_word = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
    low = torch.zeros(len(text), what.low_side**2, dtype=torch.long, device=text.device)
    start = torch.full((len(text), what.shape.side**2), config.mask_id, device=text.device)

    @torch.no_grad()
    def draw() -> torch.Tensor:
        predict = superres_predict(superres, low, text, is_word, options)
        return decode(start, predict, options, generators_for(range(len(text))), config.mask_id)

    return draw


def main(what: Superres) -> None:
    """Measure and print."""
    prefer_fast_float32()
    torch.manual_seed(0)
    shape, device = what.shape, "cuda" if torch.cuda.is_available() else "cpu"
    text = torch.randn(shape.batch, shape.words, shape.text_dim, device=device)
    tasks, peers = {}, {}
    for precision in shape.precisions:
        for attention, refresh in itertools.product(what.attentions, shape.refreshes):
            options = replace(shape.options, refresh=refresh)
            tasks[f"muse {attention}, refresh {refresh}, {precision}"] = ours(what, attention, options, precision, text)
        if shape.versus == "muse-maskgit-pytorch" and theirs([precision]):
            from benchmarks.peers import draws_with_muse_maskgit

            name = peers[precision] = f"{shape.versus}, {precision}"
            _, tasks[name] = draws_with_muse_maskgit(
                shape.config, text, shape.options, getattr(torch, precision), what.low_side
            )
    in_turns_beside(interleaved(tasks, shape.rounds), peers)


if __name__ == "__main__":
    main(tyro.cli(Superres))
