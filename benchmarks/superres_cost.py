"""What super-resolution costs as its grid grows: seconds and memory of the whole stage, by attention.

    python -m benchmarks.superres_cost

One picture, guided at every step, with random weights. Each case runs in a process of its own, so that its peak of
memory is its own.
"""

import dataclasses
import json
import multiprocessing
import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from muse.models.superres import Attention, SuperResConfig, SuperResTransformer
from muse.pipeline import superres_predict
from muse.sampling import SamplingOptions, decode, generators_for

WORDS = 12
"""Words of the prompt."""


@dataclass(frozen=True)
class Options:
    """What is measured."""

    sides: tuple[int, ...] = (16, 32, 64)
    """Sides of the high-resolution grids, in tokens; the low-resolution ones are a quarter of them."""
    attentions: tuple[Literal["full", "multi-axis"], ...] = ("full", "multi-axis")
    dim: int = 256
    depth: int = 6
    low_depth: int = 2
    num_codes: int = 512
    steps: int = 8
    """Parallel decoding steps of the stage."""
    device: str = "cpu"
    threads: int = 2
    """Threads of a processor."""


@dataclass(frozen=True)
class Cost:
    """What one case took."""

    tokens: int
    attention: str
    seconds: float
    """Of the whole stage."""
    mebibytes: float
    """At the peak, more than before the stage: on a processor of the process, on a GPU of its tensors."""


def measure(side: int, attention: Attention, options: Options) -> Cost:
    """Draw one picture of `side` x `side` tokens."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = SuperResConfig(
        num_codes=options.num_codes,
        low_num_codes=options.num_codes,
        height=side,
        width=side,
        low_height=side // 4,
        low_width=side // 4,
        dim=options.dim,
        depth=options.depth,
        low_depth=options.low_depth,
        heads=max(options.dim // 64, 2),
        mlp_dim=4 * options.dim,
        text_dim=options.dim,
        attention=attention,
    )
    superres = SuperResTransformer(config).eval().to(options.device)
    draw(superres, dataclasses.replace(options, steps=1))  # the first pass makes room and chooses kernels
    before = memory(options.device)
    started = time.perf_counter()
    draw(superres, options)
    seconds = time.perf_counter() - started
    return Cost(side * side, attention, round(seconds, 3), round(peak_memory(options.device) - before, 1))


@torch.no_grad()
def draw(superres: SuperResTransformer, options: Options) -> None:
    """The whole stage for one picture."""
    config, device = superres.config, options.device
    low = torch.zeros(1, config.low_height * config.low_width, dtype=torch.long, device=device)
    text = torch.randn(1, WORDS, config.text_dim, device=device)
    is_word = torch.ones(1, WORDS, dtype=torch.bool, device=device)
    sampling = SamplingOptions(steps=options.steps, guidance_ramp="constant")
    predict = superres_predict(superres, low, text, is_word, sampling)
    start = torch.full((1, config.height * config.width), config.mask_id, device=device)
    decode(start, predict, sampling, generators_for([0]), config.mask_id)
    if device != "cpu":
        torch.cuda.synchronize()


def memory(device: str) -> float:
    """What is in use now, in MiB; on a GPU the peak starts anew from here."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_memory(device: str) -> float:
    """The most that was in use, in MiB."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def in_own_process(side: int, attention: Attention, options: Options) -> Cost:
    """Measure one case in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (side, attention, options))


def table(costs: Sequence[Cost]) -> str:
    """The costs as a table, one row a case."""
    rows = [f"| {c.tokens} | {c.attention} | {c.seconds:.2f} | {c.mebibytes:.0f} |" for c in costs]
    return "\n".join(["| tokens | attention | seconds | MiB |", "| --- | --- | --- | --- |", *rows])


def main(options: Options) -> None:
    """Print the table and one JSON line."""
    costs = [in_own_process(side, attention, options) for side in options.sides for attention in options.attentions]
    print(table(costs))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    line = {"commit": commit.stdout.strip(), "torch": torch.__version__, **dataclasses.asdict(options)}
    print(json.dumps({**line, "costs": [dataclasses.asdict(cost) for cost in costs]}))


if __name__ == "__main__":
    main(tyro.cli(Options))
