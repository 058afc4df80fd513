"""Stage 2: the base transformer, trained to fill in hidden tokens given the caption.
Muse, sections 2.3, 2.6 and 2.7."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from muse.data.batches import TokenBatch
from muse.models.layers import Texts, Words
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.shapes import Hidden, Tokens
from muse.training.masked import MaskedStage, MaskedTraining


@dataclass(frozen=True, kw_only=True)
class BaseTraining(MaskedTraining):
    """What the base transformer's training can be told; the defaults are Muse's, but where a field says what Muse has
    instead."""

    model: TransformerConfig = field(default_factory=TransformerConfig)


class BaseStage(MaskedStage[MaskedTransformer]):
    """The network, optimizer and average of one run of the base transformer."""

    name, network_class, config_class = "base", MaskedTransformer, TransformerConfig

    def targets(self, batch: TokenBatch) -> Tokens:
        return batch.tokens

    def predict(
        self,
        network: MaskedTransformer,
        masked: Tokens,
        text: tuple[Texts, Words] | None,
        given: tuple[Tensor, ...],
        at: Hidden | None,
    ) -> Float[Tensor, "*position code"]:
        return network(masked, network.read(*text) if text is not None else None, at)


def train_base(
    training: BaseTraining,
    text_encoder: TextEncoder,
    vqgan_fingerprint: str,
    batch_at: Callable[[int], TokenBatch],
    validation: Sequence[TokenBatch],
    watch: Callable[[MaskedTransformer, int], None] | None = None,
) -> Path:
    """Train on batches of tokens and captions, `batch_at` a step; returns the folder of the averaged transformer.

    At every checkpoint the loss on the `validation` batches is reported, and `watch` is called with the averaged
    network, to draw with it; in every process, as each may have but a shard."""
    training = replace(training, model=replace(training.model, vqgan_fingerprint=vqgan_fingerprint))
    return BaseStage(training, text_encoder).run(batch_at, validation, watch)
