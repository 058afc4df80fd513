"""Seconds of a whole picture of 256 px, of the text's sub-words to its pixels: a Muse as large as aMUSEd, and aMUSEd by
diffusers in turns.

    python -m benchmarks.picture
    python -m benchmarks.picture --versus diffusers

Both read the prompt with a CLIP text encoder as aMUSEd has it, draw 16 x 16 tokens of 8192 codes under guidance in 12
steps, and paint them with a VQGAN of their own. Weights are random: they change nothing in the time.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, cast

import torch
import tyro

from benchmarks import flops
from benchmarks.generate import Generate, Precision, computing_in, draw, theirs
from benchmarks.gpu import AMUSED
from benchmarks.measure import in_turns_beside, interleaved
from muse.images import to_images
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.precision import dtype_for, prefer_fast_float32
from muse.sampling import SamplingOptions

WORDS = 77
"""Sub-words to which a CLIP text encoder pads every prompt."""
GUIDANCE = 9.0
"""The scale t that is aMUSEd's default of 10 in its own convention."""


@dataclass(frozen=True)
class Picture:
    """What is drawn, and how often."""

    dim: int = AMUSED.dim
    """Features of a position of ours."""
    depth: int = AMUSED.depth
    """Layers of ours."""
    steps: int = 12
    """Parallel decoding steps of both."""
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    """Number formats of all weights; int8 is of our transformer's products alone."""
    compiled: bool = False
    """Whether the peer's transformer is compiled by torch.compile first, some minutes."""
    refreshes: tuple[int, ...] = (SamplingOptions().refresh, 1)
    """How often ours computes every position: each so many steps; the default, and always."""
    rounds: int = 3
    """Times each is measured, in turns."""
    versus: Literal["nobody", "diffusers"] = "nobody"
    """A peer that is measured in the same turns."""

    @property
    def config(self) -> TransformerConfig:
        return Generate(dim=self.dim, depth=self.depth, text_dim=AMUSED.text_dim).config

    @property
    def options(self) -> SamplingOptions:
        return SamplingOptions(steps=self.steps, guidance=GUIDANCE)


def clip_text(dtype: torch.dtype) -> torch.nn.Module:
    """CLIP's text encoder with a projection, of the size that aMUSEd takes."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768
    )
    return cast(torch.nn.Module, CLIPTextModelWithProjection(config)).to(dtype).eval()


def ours(what: Picture, precision: Precision, words: torch.Tensor) -> tuple[int, Callable[[SamplingOptions], object]]:
    """How many parameters our transformer has, and a function of options that draws a picture of the sub-words."""
    dtype = dtype_for(precision, "cpu")
    text_encoder, base = clip_text(dtype), MaskedTransformer(what.config)
    weights = sum(p.numel() for p in base.parameters())
    base = computing_in(base, precision, "cpu")
    vqgan = VQGAN(VQGANConfig()).to(dtype).eval()

    @torch.no_grad()
    def paint(options: SamplingOptions) -> object:
        text = text_encoder(words, output_hidden_states=True).hidden_states[-2]
        return to_images(vqgan.decode(draw(base, text, options), base.config.height).float())

    return weights, paint


def main(what: Picture) -> None:
    """Measure and print."""
    prefer_fast_float32()
    torch.manual_seed(0)
    words = torch.randint(1, 1000, (1, WORDS))
    tasks, peers, millions, operations = {}, {}, {}, {}
    for precision in what.precisions:
        number, paint = ours(what, precision, words)
        for refresh in what.refreshes:
            name, options = f"muse, refresh {refresh}, {precision}", replace(what.options, refresh=refresh)
            tasks[name], millions[name] = partial(paint, options), round(number / 1e6, 1)
            operations[name] = round(flops.of_picture(what.config, WORDS, options) / 1e9)
        if what.versus == "diffusers" and theirs([precision]):
            from benchmarks.peers import draws_with_amused

            dtype = getattr(torch, precision)
            name = peers[precision] = f"aMUSEd, {precision}"
            number, tasks[name] = draws_with_amused(clip_text(dtype), words, what.steps, dtype, compiled=what.compiled)
            millions[name] = round(number / 1e6, 1)
    seconds = interleaved(tasks, what.rounds)
    in_turns_beside(seconds, peers, million_parameters=millions, transformer_gflop=operations)


if __name__ == "__main__":
    main(tyro.cli(Picture))
