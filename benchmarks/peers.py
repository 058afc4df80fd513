"""Other implementations, as a person installs them, brought to the same shapes. Only benchmarks import this.

    pip install --no-deps muse-maskgit-pytorch==0.3.5 memory-efficient-attention-pytorch==0.1.6

Its package imports torchvision and other packages for its trainers and its VQGAN, which are not measured here: where
they are missing, empty stand-ins take their place.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from muse.models.transformer import TransformerConfig
from muse.sampling import SamplingOptions

INSTALL = "pip install --no-deps muse-maskgit-pytorch==0.3.5 memory-efficient-attention-pytorch==0.1.6"
NOT_MEASURED = (
    "torchvision",
    "ema_pytorch",
    "vector_quantize_pytorch",
    "accelerate",
)
TEXT_ENCODER = "none"
"""The name under which the peer finds the size of the text states that it is given."""


class StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers imports of packages that are missing and not measured."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        is_ours = fullname.split(".")[0] in NOT_MEASURED
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if is_ours else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class StandIn(ModuleType):
    """A module of which every attribute is there and does nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock()


def import_muse_maskgit() -> ModuleType:
    """The peer's module.
    Raises ImportError, saying how to install it, if it is missing."""
    if importlib.util.find_spec("muse_maskgit_pytorch") is None:
        raise ImportError(f"the peer is missing; run `{INSTALL}`")
    finder = StandIns()
    sys.meta_path.append(finder)  # last: what is installed comes first
    try:
        return importlib.import_module("muse_maskgit_pytorch.muse_maskgit_pytorch")
    finally:
        sys.meta_path.remove(finder)


def in_precision(dtype: torch.dtype, device: str, work: Callable[[], Any]) -> Any:
    """What a peer's work gives, computed in bfloat16 by autocast if that is asked for."""
    with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
        return work()


def muse_maskgit(config: TransformerConfig, text: Tensor, dtype: torch.dtype = torch.float32) -> nn.Module:
    """muse-maskgit-pytorch's MaskGit at the same width, depth, grid and codes, given text states instead of a T5.
    For bfloat16 without its fused attention, which fails under autocast."""
    module = import_muse_maskgit()
    module.t5_encode_text.__globals__["T5_CONFIGS"][TEXT_ENCODER] = {"config": SimpleNamespace(d_model=config.text_dim)}
    transformer = module.MaskGitTransformer(
        num_tokens=config.num_codes,
        seq_len=config.height * config.width,
        dim=config.dim,
        depth=config.depth,
        dim_head=config.dim // config.heads,
        heads=config.heads,
        ff_mult=config.mlp_dim // config.dim,
        t5_name=TEXT_ENCODER,
        flash=dtype == torch.float32,
    )
    transformer.encode_text = lambda texts: text[: len(texts)]
    return module.MaskGit(
        image_size=config.height, transformer=transformer, vae=no_vae(module, config), cond_drop_prob=0.1
    )


def no_vae(module: ModuleType, config: TransformerConfig) -> nn.Module:
    """What the peer asks of its VQGAN when only tokens are drawn."""

    class NoVAE(module.VQGanVAE):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.codebook_size = config.num_codes

        def copy_for_eval(self) -> "NoVAE":
            return self

        def get_encoded_fmap_size(self, image_size: int) -> int:
            return config.height

        def decode_from_ids(self, ids: Tensor) -> Tensor:
            return ids

    return NoVAE()


def draws_with_muse_maskgit(
    config: TransformerConfig, text: Tensor, options: SamplingOptions, dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The peer, and a function that draws a grid of tokens for each text with its own defaults but for the steps."""
    peer = muse_maskgit(config, text, dtype).eval()
    prompts = ["a red apple"] * len(text)

    @torch.no_grad()
    def draw() -> Tensor:
        generate = partial(cast(Any, peer.generate), prompts, timesteps=options.steps)
        return in_precision(dtype, text.device.type, generate)

    return peer, draw
