"""What a run will take, counted on networks without memory: parameters, arithmetic, and bytes on each device."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from muse.models.discriminator import PatchDiscriminator
from muse.models.superres import SuperResTransformer
from muse.models.transformer import MaskedTransformer
from muse.models.vqgan import VQGAN
from muse.training.decoder import larger_config
from muse.training.engine import EngineOptions
from muse.training.recipes import BaseRecipe, DecoderRecipe, SuperResRecipe, VQGANRecipe

WORDS = 64
"""Sub-words of a caption, for the count."""
GIB = 2**30


@dataclass(frozen=True)
class Estimate:
    """What one run takes."""

    parameters: int
    """Trained parameters."""
    flops: int
    """Floating point operations of a step, forward and backward."""
    state_bytes: int
    """Weights, gradients, average and the moments of the optimizer; sharded by fsdp."""
    gathered_bytes: int
    """The largest two layers in the arithmetic of the step, which fsdp gathers at a time."""
    sample_bytes: int
    """What one sample keeps from the way forward for the way back."""
    batch_size: int

    def memory(self, devices: int, engine: EngineOptions) -> int:
        """Bytes on each of so many devices, without what the libraries take for themselves (about 1 GiB)."""
        samples = -(-self.batch_size // devices // engine.accumulate)
        state = self.state_bytes
        if engine.strategy == "fsdp" and devices > 1:
            state = -(-state // devices) + self.gathered_bytes
        return state + samples * self.sample_bytes


def estimate_base(recipe: BaseRecipe) -> Estimate:
    """What training the base transformer takes, its text encoder left out.
    Activations are counted in bfloat16; with `recompute` one layer's, and the states between layers."""
    config = recipe.training.model
    with torch.device("meta"):
        base = MaskedTransformer(config).bfloat16()
        tokens = torch.zeros(1, config.height * config.width, dtype=torch.long)
        text = torch.zeros(1, WORDS, config.text_dim, dtype=torch.bfloat16)
        is_word = torch.ones(1, WORDS, dtype=torch.bool)

    def loss() -> Tensor:
        logits = base(tokens, base.read(text, is_word))
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())

    return of_transformer(recipe, base, loss)


def estimate_superres(recipe: SuperResRecipe) -> Estimate:
    """What training the super-resolution transformer takes, its text encoder left out; counted as the base is."""
    config = recipe.training.model
    with torch.device("meta"):
        network = SuperResTransformer(config).bfloat16()
        tokens = torch.zeros(1, config.height * config.width, dtype=torch.long)
        low = torch.zeros(1, config.low_height * config.low_width, dtype=torch.long)
        text = torch.zeros(1, WORDS, config.text_dim, dtype=torch.bfloat16)
        is_word = torch.ones(1, WORDS, dtype=torch.bool)
        latents = torch.zeros(1, config.height * config.width, config.upsampled_dim, dtype=torch.bfloat16)

    def loss() -> Tensor:
        logits = network(tokens, network.read(low, text, is_word, latents if config.upsampled_dim else None))
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())

    return of_transformer(recipe, network, loss)


def of_transformer(
    recipe: BaseRecipe | SuperResRecipe, network: MaskedTransformer | SuperResTransformer, loss: Callable[[], Tensor]
) -> Estimate:
    """What training a transformer takes whose loss on one sample is given."""
    config = recipe.training.model
    flops, kept = count(loss, network)
    layer = sum(p.numel() for p in network.layers[0].parameters())
    if recipe.training.engine.recompute:
        between = 2 * config.depth * config.height * config.width * config.dim
        kept, flops = between + kept // config.depth, flops * 4 // 3
    parameters = sum(p.numel() for p in network.parameters())
    # Weights, gradients, average, moments; Muon keeps one moment of what is in the layers.
    numbers = {"adamw": 5, "adafactor": 4, "muon": 4}[recipe.training.optimizer]
    return Estimate(
        parameters, flops * recipe.batch_size, 4 * numbers * parameters, 2 * 2 * layer, kept, recipe.batch_size
    )


def estimate_vqgan(recipe: VQGANRecipe) -> Estimate:
    """What training the VQGAN and its discriminator takes, the perceptual network left out. Counted in float32."""
    training = recipe.training
    with torch.device("meta"):
        vqgan, discriminator = VQGAN(training.model), PatchDiscriminator(training.discriminator)
        pictures = torch.zeros(1, 3, recipe.size, recipe.size)

    def loss() -> Tensor:
        decoded = vqgan.decoder(vqgan.latents(pictures))
        return (decoded - pictures).abs().mean() + discriminator(decoded).mean() + discriminator(pictures).mean()

    both = nn.ModuleList([vqgan, discriminator])
    flops, kept = count(loss, both)
    parameters = sum(p.numel() for p in both.parameters())
    return Estimate(parameters, flops * recipe.batch_size, 4 * 5 * parameters, 0, kept, recipe.batch_size)


def estimate_decoder(recipe: DecoderRecipe) -> Estimate:
    """What training a larger decoder for the VQGAN of the recipe and its discriminator takes, the perceptual network
    left out. Counted in float32; of the encoder and the codebook there are only the weights and their average.
    Raises ValueError if the decoder would have fewer blocks, or other resolutions, than the VQGAN's."""
    training, side = recipe.training, recipe.size // recipe.made_for.stride
    config = larger_config(
        recipe.made_for, training.decoder_channels, training.decoder_blocks, training.decoder_padding
    )
    with torch.device("meta"):
        vqgan, discriminator = VQGAN(config), PatchDiscriminator(training.discriminator)
        pictures = torch.zeros(1, 3, recipe.size, recipe.size)
        codes = torch.zeros(1, config.code_dim, side, side)

    def loss() -> Tensor:
        decoded = vqgan.decoder(codes)
        return (decoded - pictures).abs().mean() + discriminator(decoded).mean() + discriminator(pictures).mean()

    trained = nn.ModuleList([vqgan.decoder, discriminator])
    flops, kept = count(loss, trained)
    encoding, _ = count(lambda: vqgan.latents(pictures), vqgan)
    parameters = sum(p.numel() for p in trained.parameters())
    fixed = sum(p.numel() for part in (vqgan.encoder, vqgan.quantizer) for p in part.parameters())
    flops += encoding // 3  # which is not gone back through
    state_bytes = 4 * (5 * parameters + 2 * fixed)
    return Estimate(parameters, flops * recipe.batch_size, state_bytes, 0, kept, recipe.batch_size)


def count(loss: Callable[[], Tensor], module: nn.Module) -> tuple[int, int]:
    """Operations of a step on one sample, three times those of the way forward; and the bytes that are kept for the
    way back."""
    weights = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in weights:
            kept[storage] = tensor
        return tensor

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        loss()
    return 3 * counter.get_total_flops(), sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def describe(estimate: Estimate, engine: EngineOptions) -> list[str]:
    """An estimate in lines for a person."""
    memory = "  ".join(f"{n}: {estimate.memory(n, engine) / GIB:,.1f} GiB" for n in (1, 8, 64, 512))
    return [
        f"parameters         {estimate.parameters:,}",
        f"arithmetic a step  {estimate.flops / 1e12:,.2f} TFLOP",
        f"memory a device    {memory}  (devices: memory, {engine.strategy})",
    ]
