"""Other implementations, as a person installs them, brought to the same shapes. Only benchmarks import this.

    pip install --no-deps muse-maskgit-pytorch==0.3.5 memory-efficient-attention-pytorch==0.1.6
    pip install diffusers

The first imports torchvision and other packages for its trainers and its VQGAN, which are not measured here: where they
are missing, empty stand-ins take their place.
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
    SystemExit, saying how to install it, if it is missing."""
    if importlib.util.find_spec("muse_maskgit_pytorch") is None:
        raise SystemExit(f"the peer is missing; run `{INSTALL}`")
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


def muse_maskgit(
    config: TransformerConfig, text: Tensor, dtype: torch.dtype = torch.float32, low_side: int | None = None
) -> nn.Module:
    """muse-maskgit-pytorch's MaskGit at the same width, depth, grid and codes, given text states instead of a T5; its
    super-resolution if there is a small grid. For bfloat16 without its fused attention, which fails under autocast."""
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
        image_size=config.height,
        transformer=transformer,
        vae=no_vae(module, config, low_side or 0),
        cond_image_size=low_side,
        cond_drop_prob=0.1,
    )


def no_vae(module: ModuleType, config: TransformerConfig, low_side: int) -> nn.Module:
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

        def encode(self, pictures: Tensor) -> tuple[None, Tensor, None]:
            return None, torch.zeros(len(pictures), low_side, low_side, dtype=torch.long, device=pictures.device), None

    return NoVAE()


def draws_with_muse_maskgit(
    config: TransformerConfig,
    text: Tensor,
    options: SamplingOptions,
    dtype: torch.dtype = torch.float32,
    low_side: int | None = None,
) -> tuple[nn.Module, Callable[[], Tensor]]:
    """The peer, and a function that draws a grid of tokens for each text, from a small grid if there is one, with its
    own defaults but for the steps."""
    peer = muse_maskgit(config, text, dtype, low_side).eval()
    prompts = ["a red apple"] * len(text)
    small = None if low_side is None else torch.zeros(len(text), 3, low_side, low_side, device=text.device)

    @torch.no_grad()
    def draw() -> Tensor:
        generate = partial(cast(Any, peer.generate), prompts, cond_images=small, timesteps=options.steps)
        return in_precision(dtype, text.device.type, generate)

    return peer, draw


def draws_with_amused(
    text_encoder: nn.Module, words: Tensor, steps: int, dtype: torch.dtype, *, compiled: bool
) -> tuple[int, Callable[[], object]]:
    """How many parameters diffusers' aMUSEd of 256 px has in its transformer, and a function that draws a picture of a
    prompt's sub-words, with its own defaults but for the steps. It reads an empty prompt too, as its pipeline does."""
    import diffusers

    transformer = cast(nn.Module, diffusers.UVit2DModel(sample_size=16))
    transformer.to(dtype).eval()
    num_parameters = sum(p.numel() for p in transformer.parameters())
    vqvae = diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        block_out_channels=(128, 256, 256, 512, 768),
        layers_per_block=2,
        latent_channels=64,
        num_vq_embeddings=8192,
        vq_embed_dim=64,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    )
    scheduler = diffusers.AmusedScheduler(mask_token_id=8255)
    pipeline = diffusers.AmusedPipeline(
        vqvae=cast(Any, cast(nn.Module, vqvae).to(dtype).eval()),
        tokenizer=cast(Any, None),
        text_encoder=cast(Any, text_encoder),
        transformer=cast(Any, transformer),
        scheduler=scheduler,
    )
    pipeline.set_progress_bar_config(disable=True)
    if compiled:
        transformer.compile()

    @torch.no_grad()
    def draw() -> object:
        states = []
        for each in (words, torch.zeros_like(words)):
            read = cast(Any, text_encoder)(each, output_hidden_states=True)
            states.append((read.text_embeds, read.hidden_states[-2]))
        (pooled, hidden), (negative_pooled, negative_hidden) = states
        return pipeline(
            prompt_embeds=pooled,
            encoder_hidden_states=hidden,
            negative_prompt_embeds=negative_pooled,
            negative_encoder_hidden_states=negative_hidden,
            num_inference_steps=steps,
        )

    return num_parameters, draw
