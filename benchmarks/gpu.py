"""The table of a GPU: seconds, memory and share of the peak of the paper's models, in one go.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --rehearse        thin networks on a processor, to see that all of it runs

Weights are random and made on the device: they change nothing in the time. Rows: what draws a picture (the base alone
at 256 px; base, super-resolution and decoder at 512 px), in batches, decoding as one CUDA graph or kernel by kernel; a
training step of the 632M model. A row that does not fit into memory says so. Every row is printed as it comes, so that
a run that is stopped has told what it knows.
"""

import dataclasses
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import tyro
from torch import nn

from benchmarks import flops
from benchmarks.measure import ceiling, commit, machine, seconds_of, table
from benchmarks.train_step import training_step
from muse.models.narrow import narrow
from muse.models.superres import PRESETS as SUPERRES
from muse.models.superres import SuperResConfig, SuperResTransformer
from muse.models.transformer import PRESETS as BASES
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import guided_predict, superres_predict
from muse.sampling import SamplingOptions, decode, generators_for
from muse.sampling.graph import GraphedDecode
from muse.shapes import Predict

How = Literal["compiled graph", "graph", "kernels"]
"""Decoding as one CUDA graph of compiled layers or of layers as they are, or kernel by kernel."""
Network = TypeVar("Network", bound=nn.Module)
WORDS = 32
"""Sub-words of each prompt."""
MOST_VARIANTS = 64
"""Variants of a compiled layer: of one branch of guidance or two, of all positions or some."""
AMUSED = TransformerConfig(dim=1280, depth=22, heads=20, mlp_dim=5120, text_dim=768)
"""As many parameters as aMUSEd's transformer has."""


@dataclass(frozen=True)
class Gpu:
    """What is measured."""

    batches: tuple[int, ...] = (1, 8, 32)
    """Pictures at once."""
    how: tuple[How, ...] = ("compiled graph", "graph", "kernels")
    """The ways of decoding."""
    precision: Literal["bfloat16", "float8"] = "bfloat16"
    """Arithmetic of drawing; float8 is of the products of the transformers' layers."""
    models: tuple[str, ...] = ()
    """Only the models whose names begin so; all, if none is given."""
    train: bool = True
    """Whether training steps are measured too."""
    rounds: int = 3
    """Times each row is measured; its median counts."""
    seconds: float = 450.0
    """No row begins later than this after the start."""
    rehearse: bool = False
    """Thin networks instead of the paper's."""


@dataclass(frozen=True)
class Row:
    """What one case took."""

    model: str
    what: str
    batch: int
    seconds: str
    gibibytes: str = "-"
    share: str = "-"


@dataclass(frozen=True)
class Cascade:
    """The networks of one model by their shapes; those of 512 px only with super-resolution."""

    name: str
    base: TransformerConfig
    steps: int = 24
    superres: SuperResConfig | None = None


def thin(config: TransformerConfig) -> TransformerConfig:
    """The same with next to no weights."""
    return dataclasses.replace(config, dim=32, depth=2, heads=2, mlp_dim=64, text_dim=16, num_codes=64)


def thin_superres(config: SuperResConfig) -> SuperResConfig:
    small = {"dim": 32, "depth": 1, "low_depth": 1, "heads": 2, "mlp_dim": 64, "text_dim": 16}
    return dataclasses.replace(config, num_codes=64, low_num_codes=64, **small)


def cascades(rehearse: bool) -> list[Cascade]:
    """The models of the table."""
    found = [
        Cascade("muse-632m", BASES["muse-632m"]),
        Cascade("muse-3b", BASES["muse-3b"]),
        Cascade("muse-3b + superres-738m", BASES["muse-3b"], superres=SUPERRES["superres-738m"]),
        Cascade("as large as aMUSEd", AMUSED, steps=12),
    ]
    if not rehearse:
        return found
    return [
        dataclasses.replace(each, base=thin(each.base), superres=each.superres and thin_superres(each.superres))
        for each in found
    ]


def build(make: Callable[[], Network], device: str) -> Network:
    """A network with random weights in bfloat16, made where it will compute."""
    with torch.device(device):
        return make().to(torch.bfloat16).eval()


def drawing(model: Cascade, batch: int, device: str, what: Gpu, how: How) -> Callable[[], object]:
    """A function that draws a batch of pictures from text states: tokens, and the picture of them."""
    base = build(lambda: MaskedTransformer(model.base), device)
    text = torch.randn(batch, WORDS, model.base.text_dim, device=device, dtype=torch.bfloat16)
    is_word = torch.ones(batch, WORDS, dtype=torch.bool, device=device)
    options, seeds = SamplingOptions(steps=model.steps), generators_for(range(batch))
    high = model.superres
    superres = build(lambda: SuperResTransformer(high), device) if high is not None else None
    config = VQGANConfig(num_codes=(high or model.base).num_codes)
    if what.rehearse:
        config = dataclasses.replace(config, channels=(8,) * len(config.channels), norm_groups=4, code_dim=8)
    if high is not None:  # f=8
        config = dataclasses.replace(config, channels=config.channels[:-1])
    vqgan = build(lambda: VQGAN(config), device)
    transformers = [network for network in (base, superres) if network is not None]
    if what.precision == "float8":
        for network in transformers:
            narrow(network, torch.float8_e4m3fn)
    if how == "compiled graph":
        torch._dynamo.reset()
        torch._dynamo.config.recompile_limit = MOST_VARIANTS
        torch._dynamo.config.fail_on_recompile_limit_hit = True
        for layer in itertools.chain.from_iterable(network.layers for network in transformers):
            layer.compile()

    def hidden(of: TransformerConfig | SuperResConfig) -> torch.Tensor:
        return torch.full((batch, of.height * of.width), of.mask_id, device=device)

    above = SamplingOptions(steps=8)

    def predict_base(text: torch.Tensor, is_word: torch.Tensor) -> Predict:
        return guided_predict(base, text, is_word, batch, options)

    def predict_superres(low: torch.Tensor, text: torch.Tensor, is_word: torch.Tensor) -> Predict:
        assert superres is not None
        return superres_predict(superres, low, text, is_word, above)

    def drawer(
        predict_of: Callable[..., Predict],
        context: tuple[torch.Tensor, ...],
        of: TransformerConfig | SuperResConfig,
        sampling: SamplingOptions,
    ) -> Callable[..., torch.Tensor]:
        """From a context to tokens, as one graph or kernel by kernel."""
        if how != "kernels":
            graph = GraphedDecode(predict_of, context, sampling, hidden(of), of.mask_id)
            return lambda *given: graph(seeds, *given)
        return lambda *given: decode(hidden(of), predict_of(*given), sampling, seeds, of.mask_id)

    low = torch.zeros(batch, model.base.height * model.base.width, dtype=torch.long, device=device)
    with torch.no_grad():
        draw_low = drawer(predict_base, (text, is_word), model.base, options)
        draw_high = drawer(predict_superres, (low, text, is_word), high, above) if high is not None else None

    @torch.no_grad()
    def draw() -> torch.Tensor:
        tokens = draw_low(text, is_word)
        if high is None or draw_high is None:
            return vqgan.decode(tokens, model.base.height)
        return vqgan.decode(draw_high(tokens, text, is_word), high.height)

    return draw


def training(config: TransformerConfig, batch: int, device: str) -> Callable[[], None]:
    """A function that takes a training step on a batch, in bfloat16 over float32 weights."""
    tokens = torch.randint(config.num_codes, (batch, config.height * config.width), device=device)
    text = torch.randn(batch, WORDS, config.text_dim, device=device)
    return training_step(config, tokens, text, "bfloat16")


def cases(what: Gpu, device: str) -> Iterator[tuple[Row, Callable[[], Callable[[], object]], int | None]]:
    """Every row without its figures, what makes its task, and the operations of it where they are known."""
    for model in cascades(what.rehearse):
        if what.models and not model.name.startswith(what.models):
            continue
        pixels = "256 px" if model.superres is None else "512 px"
        for batch, how in itertools.product(what.batches, what.how):
            known = batch * flops.of_picture(model.base, WORDS, SamplingOptions(steps=model.steps))
            yield (
                Row(model.name, f"a picture of {pixels}, {how}, {what.precision}", batch, ""),
                lambda model=model, batch=batch, how=how: drawing(model, batch, device, what, how),
                known if model.superres is None else None,
            )
    config = thin(BASES["muse-632m"]) if what.rehearse else BASES["muse-632m"]
    for batch in what.batches if what.train else ():
        yield (
            Row("muse-632m", "a training step", batch, ""),
            lambda batch=batch: training(config, batch, device),
            flops.of_training_step(config, WORDS, batch),
        )


def measure(task: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds, and GiB at the peak."""
    task()  # chooses kernels and makes room
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds = statistics.median(seconds_of(task) for _ in range(rounds))
    return seconds, torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def main(what: Gpu) -> None:
    """Measure and print."""
    if not torch.cuda.is_available() and not what.rehearse:
        raise SystemExit("there is no GPU; --rehearse runs thin networks on the processor")
    device, begun, rows = "cuda" if torch.cuda.is_available() else "cpu", time.perf_counter(), []
    peak = ceiling(torch.bfloat16)
    for row, make, operations in cases(what, device):
        if time.perf_counter() - begun > what.seconds:
            rows.append(dataclasses.replace(row, seconds="no time left"))
            continue
        try:
            seconds, gibibytes = measure(make(), what.rounds)
        except torch.OutOfMemoryError:
            rows.append(dataclasses.replace(row, seconds="out of memory"))
        else:
            share = f"{operations / seconds / peak:.2f}" if operations else "-"
            rows.append(dataclasses.replace(row, seconds=f"{seconds:.3f}", gibibytes=f"{gibibytes:.1f}", share=share))
        print(json.dumps(dataclasses.asdict(rows[-1])), flush=True)
        if device == "cuda":
            torch.cuda.empty_cache()
    header = [field.name for field in dataclasses.fields(Row)]
    print(table(header, [dataclasses.astuple(row) for row in rows]))
    print(json.dumps({"commit": commit(), "machine": machine(), "peak_tflops": round(peak / 1e12, 1)}))


if __name__ == "__main__":
    main(tyro.cli(Gpu))
