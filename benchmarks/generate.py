"""Seconds to draw a grid of tokens, ours and a peer's in turns, at equal width, depth, tokens, codes and steps.

    python -m benchmarks.generate
    python -m benchmarks.generate --versus muse-maskgit-pytorch

Ours twice: as it draws by default, and with every position computed at every step, as the peer computes them. The shape
is that of muse-maskgit-pytorch's README: width 512, depth 8, 16 x 16 tokens, 18 steps.
Weights are random: they change nothing in the time.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

import torch
import tyro
from torch import nn

from benchmarks import flops
from benchmarks.measure import ceiling, interleaved, median_ratio, report
from muse.models.narrow import narrow
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.pipeline import guided_predict
from muse.precision import dtype_for, number_for, prefer_fast_float32
from muse.sampling import SamplingOptions, decode, generators_for

Precision = Literal["float32", "bfloat16", "int8"]
"""int8 is that of the layers' products; the rest is in bfloat16 where the machine computes in it."""


Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Generate:
    """What is drawn, and how often."""

    dim: int = 512
    """Features of a position."""
    depth: int = 8
    """Layers."""
    side: int = 16
    """Rows and columns of the grid."""
    num_codes: int = 8192
    """Codes."""
    steps: int = 18
    """Parallel decoding steps."""
    guidance: float = 3.0
    """The scale t; 0 needs no unconditional branch."""
    batch: int = 1
    """Pictures at once."""
    words: int = 32
    """Sub-words of each prompt."""
    text_dim: int = 512
    """Features of a text state."""
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    """Number formats: of our weights; a peer's weights are float32, it computes in bfloat16 by autocast, and never in
    int8."""
    refreshes: tuple[int, ...] = (SamplingOptions().refresh, 1)
    """How often ours computes every position: each so many steps; the default, and always."""
    rounds: int = 5
    """Times each is measured, in turns."""
    versus: Literal["nobody", "muse-maskgit-pytorch"] = "nobody"
    """A peer that is measured in the same turns."""

    @property
    def config(self) -> TransformerConfig:
        return TransformerConfig(
            num_codes=self.num_codes,
            height=self.side,
            width=self.side,
            dim=self.dim,
            depth=self.depth,
            heads=self.dim // 64,
            mlp_dim=4 * self.dim,
            text_dim=self.text_dim,
        )

    @property
    def options(self) -> SamplingOptions:
        return SamplingOptions(steps=self.steps, guidance=self.guidance)


def computing_in(network: Network, precision: Precision, device: str) -> Network:
    """A transformer, in place, that draws in a precision as `Muse` has it."""
    number = number_for(precision, device)
    network = network.to(device, dtype_for(precision, device)).eval()
    if number is not None:
        narrow(network, number)
    return network


@torch.no_grad()
def draw(base: MaskedTransformer, text: torch.Tensor, options: SamplingOptions) -> torch.Tensor:
    """A grid for each text, the way `Muse.draw_base` draws it."""
    config, num, device = base.config, len(text), text.device
    is_word = torch.ones(text.shape[:2], dtype=torch.bool, device=device)
    start = torch.full((num, config.height * config.width), config.mask_id, device=device)
    predict = guided_predict(base, text, is_word, num, options)
    return decode(start, predict, options, generators_for(range(num)), config.mask_id)


def theirs(precisions: Sequence[Precision]) -> list[Precision]:
    """The number formats of some that a peer has too."""
    return [precision for precision in precisions if precision != "int8"]


def main(what: Generate) -> None:
    """Measure and print."""
    prefer_fast_float32()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    text = torch.randn(what.batch, what.words, what.text_dim, device=device)
    tasks, parameters, dtypes, operations = {}, {}, {}, {}
    for precision in what.precisions:
        dtype = dtype_for(precision, device)
        base = MaskedTransformer(what.config)
        weights = sum(p.numel() for p in base.parameters())
        base = computing_in(base, precision, device)
        for refresh in what.refreshes:
            name, options = f"muse {precision}, refresh {refresh}", replace(what.options, refresh=refresh)
            tasks[name], dtypes[name] = partial(draw, base, text.to(dtype), options), dtype
            parameters[name] = weights
            operations[name] = what.batch * flops.of_picture(what.config, what.words, options)
    if what.versus == "muse-maskgit-pytorch":
        from benchmarks.peers import draws_with_muse_maskgit

        for precision in theirs(what.precisions):
            name, dtype = f"{what.versus} {precision}", getattr(torch, precision)
            peer, tasks[name] = draws_with_muse_maskgit(what.config, text, what.options, dtype)
            parameters[name], dtypes[name] = sum(p.numel() for p in peer.parameters()), dtype
    million = {name: f"{number / 1e6:.1f}" for name, number in parameters.items()}
    print_times(interleaved(tasks, what.rounds), dtypes, operations, million_parameters=million)


def print_times(
    seconds: dict[str, list[float]], dtypes: dict[str, torch.dtype], operations: dict[str, int], **about: object
) -> None:
    """The table: seconds, our share of the machine's ceiling, and how many times as long as ours each takes: as our
    first in the same number format, and as our fastest. `operations` are of each of ours."""
    ceilings = {dtype: ceiling(dtype) for dtype in set(dtypes.values())}
    fastest = min((name for name in seconds if name.startswith("muse ")), key=lambda n: statistics.median(seconds[n]))
    rows = []
    for name, each in seconds.items():
        median = statistics.median(each)
        share = f"{operations[name] / median / ceilings[dtypes[name]]:.2f}" if name in operations else "-"
        alike = next(other for other in seconds if other.startswith("muse ") and dtypes[other] == dtypes[name])
        ratios = [f"{median_ratio(each, seconds[other]):.2f}" for other in (alike, fastest)]
        rows.append((name, f"{median:.2f}", f"{min(each):.2f} to {max(each):.2f}", share, *ratios))
    header = ("who", "seconds", "range", "share of ceiling", "times ours alike", "times our fastest")
    gigaflops = {str(dtype).removeprefix("torch."): round(each / 1e9) for dtype, each in ceilings.items()}
    report(
        header,
        rows,
        operations_gflop={n: round(each / 1e9, 1) for n, each in operations.items()},
        ceiling_gflops=gigaflops,
        **about,
    )


if __name__ == "__main__":
    main(tyro.cli(Generate))
