"""Stage 3: the super-resolution transformer, trained to fill in hidden high-resolution tokens given the low-resolution
ones of the same picture and its caption.
Muse, section 2.4."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from muse.data.batches import TokenBatch
from muse.models.layers import Texts, Words
from muse.models.superres import SuperResConfig, SuperResTransformer, Upsampling
from muse.models.text_encoder import TextEncoder
from muse.shapes import Hidden, Tokens
from muse.training.masked import Draw, MaskedStage, MaskedTraining


@dataclass(frozen=True, kw_only=True)
class SuperResTraining(MaskedTraining):
    """What the super-resolution transformer's training can be told; the defaults are Muse's, but where a field says
    what Muse has instead."""

    model: SuperResConfig = field(default_factory=SuperResConfig)
    low_corruption: float = 0.1
    """Mean share of the low-resolution tokens that are drawn anew, any code as likely as another: in sampling they come
    from the base, which makes mistakes. Each picture's own share is drawn, from 0 to twice the mean. Muse names none,
    and so its recipe has 0; the default is our guard against those mistakes, which cost more than it gave in the one
    short run that was also made without (docs/log.md)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.low_corruption <= 0.5:
            raise ValueError(f"low_corruption is {self.low_corruption}; give a mean share from 0 to 0.5")


class SuperResStage(MaskedStage[SuperResTransformer]):
    """The network, optimizer and average of one run of the super-resolution transformer."""

    name, network_class, config_class = "superres", SuperResTransformer, SuperResConfig
    training: SuperResTraining

    def __init__(self, training: SuperResTraining, text_encoder: TextEncoder, upsampling: Upsampling | None = None):
        super().__init__(training, text_encoder)
        self.engine.recompute(self.network.low_layers)
        self.upsampling = upsampling and upsampling.to(self.engine.fabric.device)

    def units(self, network: SuperResTransformer) -> list[nn.Module]:
        return [*network.low_layers, *super().units(network)]

    def targets(self, batch: TokenBatch) -> Tokens:
        return batch.high_tokens

    def draw_more(self, num: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        model = self.training.model
        shape = (num, model.low_height * model.low_width)
        return draw_corruption(shape, self.training.low_corruption, model.low_num_codes, generator)

    def given(self, batch: TokenBatch, draw: Draw) -> tuple[Tensor, ...]:
        """The low-resolution tokens, some of them wrong, and the latents of their picture, if the network reads any."""
        is_wrong, instead = draw.more
        low = torch.where(is_wrong.to(batch.tokens.device), instead.to(batch.tokens), batch.tokens)
        return (low,) if self.upsampling is None else (low, self.upsampling(low))

    def predict(
        self,
        network: SuperResTransformer,
        masked: Tokens,
        text: tuple[Texts, Words] | None,
        given: tuple[Tensor, ...],
        at: Hidden | None,
    ) -> Float[Tensor, "*position code"]:
        low, *upsampled = given
        return network(masked, network.read(low, *(text or (None, None)), *upsampled), at)


def draw_corruption(
    shape: tuple[int, int], mean_share: float, num_codes: int, generator: torch.Generator
) -> tuple[Bool[Tensor, "batch low"], Int[Tensor, "batch low"]]:
    """Which low-resolution tokens are to be wrong, and what they are to be, uniformly of all codes: in each sample a
    share of its own, uniform from 0 to twice the mean. Drawn where the generator lives."""
    shares = 2 * mean_share * torch.rand(shape[0], 1, generator=generator, device=generator.device)
    is_wrong = torch.rand(shape, generator=generator, device=generator.device) < shares
    return is_wrong, torch.randint(num_codes, shape, generator=generator, device=generator.device)


def train_superres(
    training: SuperResTraining,
    text_encoder: TextEncoder,
    vqgan_fingerprint: str,
    vqgan_low_fingerprint: str,
    batch_at: Callable[[int], TokenBatch],
    validation: Sequence[TokenBatch],
    watch: Callable[[SuperResTransformer, int], None] | None = None,
    upsampling: Upsampling | None = None,
) -> Path:
    """Train on pairs of token grids and captions, `batch_at` a step; returns the folder of the averaged transformer.
    A config with `upsampled_dim` takes an `upsampling`.

    At every checkpoint the loss on the `validation` batches is reported, and `watch` is called with the averaged
    network, to draw with it; in every process, as each may have but a shard."""
    fingerprints = {"vqgan_fingerprint": vqgan_fingerprint, "vqgan_low_fingerprint": vqgan_low_fingerprint}
    training = replace(training, model=replace(training.model, **fingerprints))
    return SuperResStage(training, text_encoder, upsampling).run(batch_at, validation, watch)
