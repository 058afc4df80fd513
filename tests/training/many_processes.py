"""One of several processes that train together, as torchrun starts them; what each scenario leaves is a folder.

RANK=0 WORLD_SIZE=2 ... python -m tests.training.many_processes FOLDER       all scenarios
torchrun --nproc-per-node 2 -m tests.training.many_processes FOLDER ddp      one of them
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any, cast
from unittest import mock

import torch
from torch import nn
from torch._dynamo.utils import counters as dynamo_counters

from muse.apps.stages import tell
from muse.data.batches import TokenBatch
from muse.data.crops import PicturesOfStep
from muse.data.sources import RowSource, open_source
from muse.training.base import train_base
from muse.training.engine import Engine, EngineOptions, Stopped
from muse.training.ranks import part
from muse.training.recipes import base_paper_3b
from muse.training.superres import train_superres
from muse.training.vqgan import train_vqgan
from tests.data.picture_folders import awkward_folder
from tests.training.tiny_runs import (
    BASE_CONFIG,
    FINGERPRINT,
    base_training,
    options,
    pairs_at,
    pictures_at,
    signalling,
    superres_training,
    text_encoder,
    tokens_at,
    vqgan_training,
)

SHALLOW = replace(BASE_CONFIG, depth=1)  # a layer is traced in seconds


def wide_batch(step: int) -> TokenBatch:
    """Eight samples: parts of two are left when two processes take two parts each."""
    one, other = tokens_at(step), tokens_at(step + 50)
    return TokenBatch(torch.cat([one.tokens, other.tokens]), [*one.captions, *other.captions])


def base(engine: EngineOptions, batch_at: Callable[[int], TokenBatch] = wide_batch, **changes: Any) -> None:
    """Half of the captions are dropped, so that sometimes a process has none."""
    training = base_training(engine, dropout=0.0, caption_drop=0.5, **changes)
    train_base(training, text_encoder(), FINGERPRINT, batch_at, [tokens_at(99)])


def superres(engine: EngineOptions) -> None:
    """With mistakes among the low-resolution tokens, which all processes must draw alike."""
    training = superres_training(engine, dropout=0.0, caption_drop=0.5, low_corruption=0.3)
    train_superres(training, text_encoder(), FINGERPRINT, FINGERPRINT, pairs_at, [pairs_at(99)])


def vqgan(engine: EngineOptions) -> None:
    train_vqgan(vqgan_training(engine), pictures_at, pictures_at(99)[:2], perceptual=None)


def thinned(folder: Path) -> None:
    """The recipe of the 3B model as it is, but for its sizes."""
    training = base_paper_3b().training
    small = {"num_codes": 8, "height": 3, "width": 3, "dim": 32, "depth": 3, "mlp_dim": 64, "text_dim": 8}
    quick = {"steps": 3, "warmup": 0, "workers": 0, "precision": "32-true", "save_every": 3, "log_every": 1}
    training = replace(
        training,
        model=replace(training.model, **small),
        engine=replace(training.engine, folder=folder, **quick),
    )
    train_base(training, text_encoder(), FINGERPRINT, wide_batch, [tokens_at(99)])


def in_two_legs(engine: EngineOptions, **changes: Any) -> None:
    """Only the first process is asked to stop; all must leave after the same step. Then all go on."""
    asked = signalling(wide_batch, 2, signal.SIGTERM) if os.environ["RANK"] == "0" else wide_batch
    with contextlib.suppress(Stopped):
        base(engine, asked, **changes)
    base(engine, **changes)


def compiled(engine: EngineOptions) -> None:
    """The layers see other sizes at each step, as more or fewer captions are dropped. They are traced and traced again,
    but not made into machine code, which is torch's part and takes a minute in each process."""
    with mock.patch.object(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager")):
        base(engine, model=SHALLOW)
    assert dynamo_counters["frames"]["ok"] > 0, "nothing was compiled"


def found_in_pictures(folder: Path) -> None:
    """Each process reads half of every awkward picture there is, and the first says what all have found."""
    engine, rank = Engine(options(folder)), int(os.environ["RANK"])
    pictures = folder / f"pictures-{rank}"
    batches = PicturesOfStep(cast(RowSource, open_source(str(awkward_folder(pictures)))), 16, 2, seed=0)
    for step in range(5):
        batches.share(step, engine.ranks.share)
    (folder / f"alone-{rank}.txt").write_text(batches.sentence())
    with (folder / f"said-{rank}.txt").open("w") as said, contextlib.redirect_stdout(said):
        tell(folder, batches)


SCENARIOS: dict[str, Callable[[Path], None]] = {
    "ddp": lambda folder: base(options(folder, strategy="ddp")),
    "fsdp": lambda folder: base(options(folder, strategy="fsdp", keep_every=3)),
    "fsdp-parts": lambda folder: base(options(folder, strategy="fsdp", accumulate=2, recompute=True)),
    "fsdp-adafactor": lambda folder: in_two_legs(options(folder, strategy="fsdp"), optimizer="adafactor"),
    "fsdp-muon": lambda folder: in_two_legs(options(folder, strategy="fsdp"), optimizer="muon"),
    "fsdp-bf16": lambda folder: base(options(folder, strategy="fsdp", precision="bf16-mixed", steps=2)),
    "compiled": lambda folder: compiled(options(folder, strategy="ddp", compile=True)),
    "paper-3b": thinned,
    "superres": lambda folder: superres(options(folder, strategy="fsdp")),
    "vqgan": lambda folder: vqgan(options(folder)),
    "found": found_in_pictures,
    "sigterm": lambda folder: in_two_legs(options(folder, strategy="fsdp")),
    # Last, as none survives it.
    "kill": lambda folder: base(options(folder, strategy="fsdp"), signalling(wide_batch, 5, signal.SIGKILL)),
}


def main(folder: Path, names: Sequence[str]) -> None:
    torch.set_num_threads(1)
    for name in names or SCENARIOS:
        SCENARIOS[name](folder / name)
    part()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
