"""Stage 3: the super-resolution transformer, trained to fill in hidden high-resolution tokens given the low-resolution
ones of the same picture and its caption.
Muse, section 2.4."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from muse.models.layers import Texts, Words
from muse.models.superres import SuperResConfig, SuperResTransformer
from muse.models.text_encoder import TextEncoder
from muse.shapes import Logits, Tokens
from muse.training.masked import MaskedStage, MaskedTraining, TokenBatch


@dataclass(frozen=True)
class TokenPairs(TokenBatch):
    """Low-resolution tokens of pictures, what the pictures show, and high-resolution tokens of the same pictures."""

    high: Int[Tensor, "batch high"]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenPairs":
        """The same batch on a device."""
        tokens, high = (each.to(device, non_blocking=non_blocking) for each in (self.tokens, self.high))
        return replace(self, tokens=tokens, high=high)


@dataclass(frozen=True, kw_only=True)
class SuperResTraining(MaskedTraining):
    """What the super-resolution transformer's training can be told; the defaults are Muse's."""

    model: SuperResConfig = field(default_factory=SuperResConfig)
    low_corruption: float = 0.1
    """Mean share of the low-resolution tokens that are drawn anew, any code as likely as another: in sampling they come
    from the base, which makes mistakes. Each picture's own share is drawn, from 0 to twice the mean."""

    def __post_init__(self) -> None:
        if not 0 <= self.low_corruption <= 0.5:
            raise ValueError(f"low_corruption is {self.low_corruption}; give a mean share from 0 to 0.5")


class SuperResStage(MaskedStage[SuperResTransformer, TokenPairs]):
    """The network, optimizer and average of one run of the super-resolution transformer."""

    name, network_class, config_class = "superres", SuperResTransformer, SuperResConfig
    training: SuperResTraining

    def targets(self, batch: TokenPairs) -> Tokens:
        return batch.high

    def predict(
        self,
        network: SuperResTransformer,
        masked: Tokens,
        text: tuple[Texts, Words] | None,
        batch: TokenPairs,
        generator: torch.Generator,
    ) -> Logits:
        low = corrupted(batch.tokens, self.training.low_corruption, self.training.model.low_num_codes, generator)
        return network(masked, network.read(low, *(text or ())))


def corrupted(tokens: Tokens, mean_share: float, num_codes: int, generator: torch.Generator) -> Tokens:
    """Tokens of which some are drawn anew, uniformly from all codes: in each sample a share of its own, uniform from 0
    to twice the mean. Drawn where the generator lives, so one seed gives the same on every device."""
    shares = 2 * mean_share * torch.rand(len(tokens), 1, generator=generator, device=generator.device)
    is_wrong = torch.rand(tokens.shape, generator=generator, device=generator.device) < shares
    drawn = torch.randint(num_codes, tokens.shape, generator=generator, device=generator.device)
    return torch.where(is_wrong.to(tokens.device), drawn.to(tokens), tokens)


def train_superres(
    training: SuperResTraining,
    text_encoder: TextEncoder,
    vqgan_fingerprint: str,
    vqgan_low_fingerprint: str,
    batch_at: Callable[[int], TokenPairs],
    validation: Sequence[TokenPairs],
    watch: Callable[[SuperResTransformer, int], None] | None = None,
) -> Path:
    """Train on pairs of token grids and captions, `batch_at` a step; returns the folder of the averaged transformer.

    At every checkpoint the loss on the `validation` batches is reported, and `watch` is called with the averaged
    network, to draw with it."""
    fingerprints = {"vqgan_fingerprint": vqgan_fingerprint, "vqgan_low_fingerprint": vqgan_low_fingerprint}
    training = replace(training, model=replace(training.model, **fingerprints))
    return SuperResStage(training, text_encoder).run(batch_at, validation, watch)
