"""Seconds of one training step of the base transformer, ours and a peer's in turns, at equal width, depth and batch.

    python -m benchmarks.train_step
    python -m benchmarks.train_step --versus muse-maskgit-pytorch

A step is: hide tokens, forward, backward, clip, AdamW; text states are given, and nothing is averaged. Ours is the
fused AdamW of our training, a peer's torch's default, as it comes without one of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
import tyro
from torch import nn

from benchmarks import flops
from benchmarks.generate import Generate, print_times
from benchmarks.measure import interleaved
from muse.masking import draw_mask_ratio, hide
from muse.models.transformer import MaskedTransformer, TransformerConfig, drop_captions
from muse.precision import prefer_fast_float32
from muse.training.losses import hidden_token_loss
from muse.training.optimizers import optimizer_for

Autocast = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class TrainStep:
    """What is trained, and how often a step is measured."""

    shape: Generate = field(default_factory=lambda: Generate(batch=8))
    """The transformer and the batch; its steps and its guidance mean nothing here."""
    precisions: tuple[Autocast, ...] = ("float32", "bfloat16")
    """Arithmetic of our networks: bfloat16 is autocast over float32 weights."""
    rounds: int = 5
    """Times each is measured, in turns."""
    versus: Literal["nobody", "muse-maskgit-pytorch"] = "nobody"
    """A peer that is measured in the same turns, in float32."""


def step_of(
    network: nn.Module, loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer
) -> Callable[[], None]:
    """A function that takes one optimizer step down a loss."""

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    return step


def training_step(
    config: TransformerConfig, tokens: torch.Tensor, text: torch.Tensor, precision: Autocast
) -> Callable[[], None]:
    """A step as `muse.training.base` takes it, on tokens and text states that are given."""
    with torch.device(text.device):
        base = MaskedTransformer(config).train()
    generator = torch.Generator().manual_seed(0)
    is_word = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)

    def loss() -> torch.Tensor:
        kept = drop_captions(len(tokens), flops.CAPTION_DROP, generator)
        ratio = draw_mask_ratio(len(tokens), generator, text.device)
        masked, is_hidden = hide(tokens, ratio, config.mask_id, generator)
        with torch.autocast(text.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = base(masked, base.read(text[:kept], is_word[:kept]) if kept else None, is_hidden)
        return hidden_token_loss(logits, tokens[is_hidden])

    return step_of(base, loss, optimizer_for(base, "adamw", 1e-4, 0.045))


def main(what: TrainStep) -> None:
    """Measure and print."""
    prefer_fast_float32()
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    shape, device = what.shape, "cuda" if torch.cuda.is_available() else "cpu"
    text = torch.randn(shape.batch, shape.words, shape.text_dim, device=device)
    tokens = torch.randint(shape.num_codes, (shape.batch, shape.side**2), device=device)
    tasks: dict[str, Callable[[], None]] = {
        f"muse {precision}": training_step(shape.config, tokens, text, precision) for precision in what.precisions
    }
    dtypes = {f"muse {precision}": getattr(torch, precision) for precision in what.precisions}
    if what.versus == "muse-maskgit-pytorch":
        from benchmarks.peers import in_precision, muse_maskgit

        for precision in what.precisions:
            name, dtype = f"{what.versus} {precision}", getattr(torch, precision)
            peer = muse_maskgit(shape.config, text, dtype).to(device).train()
            loss = partial(in_precision, dtype, device, partial(peer, tokens, text_embeds=text))
            tasks[name] = step_of(peer, loss, torch.optim.AdamW(peer.parameters(), lr=1e-4))
            dtypes[name] = dtype
    operations = flops.of_training_step(shape.config, shape.words, shape.batch)
    ours = dict.fromkeys((name for name in tasks if name.startswith("muse ")), operations)
    print_times(interleaved(tasks, what.rounds), dtypes, ours)


if __name__ == "__main__":
    main(tyro.cli(TrainStep))
