"""`muse tokenize` and `muse import-vqgan`. Torch is imported by the commands."""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from muse.data.options import SourceOptions


@dataclass(frozen=True)
class Tokenize:
    """Turn pictures and captions into a token cache, which `muse train base` reads. Started by torchrun, its processes
    share the work; started again, it goes on where it was stopped."""

    pictures: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A folder of pictures with .txt files, or a metadata.jsonl, .csv or .parquet; .tar or .parquet files: one, a
    folder of them, or a pattern like 'shards/*.tar'; or a data set of the hub, like owner/name."""
    out: tyro.conf.Positional[Path]
    """The folder of the cache."""
    model: str = "emoji"
    """The VQGAN: its folder, or the name or folder of a model that has one."""
    high: Annotated[str | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(optional)")] = None
    """The VQGAN of super-resolution, which adds high tokens: its folder, or the name or folder of a model that has
    one."""
    size: int = 256
    """Side in pixels of the pictures that become tokens: the shorter side is scaled to it, the longer one cropped at
    the centre."""
    high_size: int = 512
    """Side in pixels of those that become high tokens."""
    text_encoder: Annotated[str | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(optional)")] = None
    """Also store the states of this text encoder for every caption: large, but training is spared it."""
    batch_size: int = 32
    """Pictures that go through a VQGAN at once."""
    threads: int = 4
    """Threads that read and scale pictures."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the VQGANs run."""
    source: SourceOptions = field(default_factory=SourceOptions)

    def run(self) -> None:
        """Raises ValueError or OSError, in one sentence, for what cannot be read or written."""
        from muse.apps.stages import part_of
        from muse.checkpoint import load_module
        from muse.data.sources import open_source
        from muse.data.tokenize import Networks, TokenizeOptions, tokenize
        from muse.models.vqgan import VQGAN, VQGANConfig
        from muse.pipeline import load_text_encoder
        from muse.precision import check_device, default_device
        from muse.processes import Shard, local_rank

        options = TokenizeOptions(self.size, self.high_size, self.batch_size, self.threads)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
        shard = Shard.from_environment()
        device = default_device() if self.device == "auto" else self.device
        if device == "cuda":
            device = f"cuda:{local_rank()}"
        check_device(device)

        def vqgan(place: str, part: str) -> VQGAN:
            return load_module(VQGAN, VQGANConfig, part_of(place, part)).to(device)

        text = part_of(self.text_encoder, "text_encoder") if self.text_encoder else None
        networks = Networks(
            vqgan(self.model, "vqgan"),
            vqgan(self.high, "vqgan_superres") if self.high else None,
            load_text_encoder(text).to(device) if text else None,
            str(text) if text else None,
        )
        source = open_source(self.pictures, self.source)
        tally = tokenize(source, self.pictures, self.out, networks, options, shard.rank, shard.num_ranks)
        if tally is not None:
            print(f"{self.out}  ({tally.sentence()})")


@dataclass(frozen=True)
class ImportVQGAN:
    """Turn a public VQGAN into a folder that Muse reads, so that the first stage of training can be left out."""

    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")]
    """A folder of diffusers' VQModel, or the checkpoint file of taming-transformers or of LlamaGen."""
    out: tyro.conf.Positional[Path]
    """The folder of the VQGAN."""

    def run(self) -> None:
        """Raises CheckpointError if the source is none that we know, or does not fit."""
        from muse.checkpoint import save_module
        from muse.training.public_vqgans import import_vqgan

        vqgan = import_vqgan(self.source)
        save_module(vqgan, self.out)
        config = vqgan.config
        print(f"{self.out}  (f={config.stride}, {config.num_codes:,} codes, VQGAN {vqgan.fingerprint()})")
