"""Pictures a second through a VQGAN: to tokens, to pictures, and in training without a discriminator.

    python -m benchmarks.vqgan
    python -m benchmarks.vqgan --versus diffusers

The default is the paper's shape at half of its width. Weights are random: they change nothing in the time. A training
step is: encode, look up codes, decode, squared error, backward, AdamW; the codebook stays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.generate import print_times
from benchmarks.measure import interleaved
from benchmarks.train_step import Autocast
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.precision import prefer_fast_float32

Task = Literal["encode", "decode", "train"]


@dataclass(frozen=True)
class Pictures:
    """What goes through, and how often."""

    width: int = 64
    """Channels at the finest resolution; the others have one, two, two and four times as many."""
    size: int = 256
    """Side of the pictures in pixels."""
    batch: int = 4
    """Pictures at once."""
    patch: int = 1
    """Side of the squares of pixels that the first convolution takes in at once."""
    tasks: tuple[Task, ...] = ("encode", "decode", "train")
    precisions: tuple[Autocast, ...] = ("float32", "bfloat16")
    """Arithmetic, of bfloat16 by autocast over float32 weights: as tokens are made, and as training does."""
    rounds: int = 5
    """Times each is measured, in turns."""
    versus: Literal["nobody", "diffusers"] = "nobody"
    """A peer that is measured in the same turns: `VQModel` of the same shape."""

    @property
    def config(self) -> VQGANConfig:
        w = self.width
        return VQGANConfig(
            channels=(w, w, 2 * w, 2 * w, 4 * w), decoder_blocks=3, norm_groups=min(32, w), patch=self.patch
        )


class Ours:
    """The three tasks of our VQGAN."""

    def __init__(self, what: Pictures):
        self.network = VQGAN(what.config).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.side = what.size // what.config.stride

    def encode(self, pictures: Tensor) -> Tensor:
        return self.network.encode(pictures)

    def decode(self, tokens: Tensor) -> Tensor:
        return self.network.decode(tokens, self.side)

    def reconstruct(self, pictures: Tensor) -> Tensor:
        latents, quantizer = self.network.latents(pictures).float(), self.network.quantizer
        quantized = quantizer.look_up(quantizer.nearest(latents))
        return self.network.decoder(latents + (quantized - latents).detach())


class Diffusers:
    """The same of diffusers' VQModel."""

    def __init__(self, what: Pictures):
        from diffusers import VQModel

        if what.patch != 1:
            raise ValueError(f"patch is {what.patch}, which diffusers' VQModel does not have; compare at patch 1")
        config = what.config
        levels = len(config.channels)
        self.network = VQModel(
            down_block_types=cast(Any, ("DownEncoderBlock2D",) * levels),
            up_block_types=cast(Any, ("UpDecoderBlock2D",) * levels),
            block_out_channels=cast(Any, config.channels),
            layers_per_block=config.blocks,
            latent_channels=config.code_dim,
            num_vq_embeddings=config.num_codes,
            norm_num_groups=config.norm_groups,
            mid_block_add_attention=False,
        )
        self.shape = (what.batch, what.size // config.stride, what.size // config.stride, config.code_dim)

    def encode(self, pictures: Tensor) -> Tensor:
        latents = cast(Any, self.network).encode(pictures).latents
        return cast(Any, self.network).quantize(latents)[2][2]

    def decode(self, tokens: Tensor) -> Tensor:
        codes = cast(Any, self.network).quantize.get_codebook_entry(tokens.flatten(), self.shape)
        return cast(Any, self.network).decode(codes, force_not_quantize=True).sample

    def reconstruct(self, pictures: Tensor) -> Tensor:
        return cast(Any, self.network)(pictures).sample


def task_of(who: Ours | Diffusers, task: Task, what: Pictures, dtype: torch.dtype) -> Callable[[], object]:
    """A function that does a task once."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = cast(nn.Module, who.network)
    network.to(device)
    pictures = torch.rand(what.batch, 3, what.size, what.size, device=device).contiguous(
        memory_format=torch.channels_last
    )
    side = what.size // what.config.stride
    tokens = torch.randint(what.config.num_codes, (what.batch, side * side), device=device)
    autocast = partial(torch.autocast, device, torch.bfloat16, enabled=dtype == torch.bfloat16)
    if task != "train":
        work = partial(who.encode, pictures) if task == "encode" else partial(who.decode, tokens)

        def once() -> Tensor:
            with torch.no_grad(), autocast():
                return work()

        return once
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            decoded = who.reconstruct(pictures)
        F.mse_loss(decoded.float(), pictures).backward()
        optimizer.step()

    return step


def operations(what: Pictures, task: Task) -> int:
    """Floating-point operations of one call, counted on our network without computing anything."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = VQGAN(what.config)
        pictures = torch.zeros(what.batch, 3, what.size, what.size)
        side = what.size // what.config.stride
        if task in ("encode", "train"):
            network.encoder(pictures)
        if task in ("decode", "train"):
            network.decoder(torch.zeros(what.batch, what.config.code_dim, side, side))
    return counter.get_total_flops() * (3 if task == "train" else 1)


def main(what: Pictures) -> None:
    """Measure and print a table for each task."""
    prefer_fast_float32()
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    for task in what.tasks:
        tasks: dict[str, Callable[[], object]] = {}
        dtypes: dict[str, torch.dtype] = {}
        for precision in what.precisions:
            dtype = getattr(torch, precision)
            people = {"muse": Ours} | ({what.versus: Diffusers} if what.versus == "diffusers" else {})
            for name, kind in people.items():
                tasks[f"{name} {precision}"] = task_of(kind(what), task, what, dtype)
                dtypes[f"{name} {precision}"] = dtype
        ours = dict.fromkeys((name for name in tasks if name.startswith("muse ")), operations(what, task))
        print_times(interleaved(tasks, what.rounds), dtypes, ours, task=task, pictures=what.batch)


if __name__ == "__main__":
    main(tyro.cli(Pictures))
