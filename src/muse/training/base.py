"""Stage 2: the base transformer, trained to fill in hidden tokens given the caption.
Muse, sections 2.4, 2.6 and 2.7."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from muse.checkpoint import load_module, save_module
from muse.masking import draw_mask_ratio, hide
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer, TransformerConfig, drop_captions
from muse.shapes import Tokens
from muse.training.engine import Engine, EngineOptions, Metrics, average_of
from muse.training.losses import hidden_token_loss


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of pictures and what the pictures show."""

    tokens: Tokens
    captions: Sequence[str]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenBatch":
        """The same batch on a device."""
        return replace(self, tokens=self.tokens.to(device, non_blocking=non_blocking))


@dataclass(frozen=True)
class BaseTraining:
    """What the base transformer's training can be told; the defaults are Muse's."""

    engine: EngineOptions
    model: TransformerConfig = field(default_factory=TransformerConfig)
    caption_drop: float = 0.1
    """Share of the captions that is dropped, so that guidance has an unconditional model."""
    weight_decay: float = 0.045
    label_smoothing: float = 0.0
    """Share of the target that is spread over all codes."""
    start_from: Path | None = None
    """The folder of a trained transformer of the same shape whose weights the first step starts from."""


class BaseStage:
    """The network, optimizer and average of one run of the base transformer."""

    def __init__(self, training: BaseTraining, text_encoder: TextEncoder):
        self.training = training
        self.engine = Engine(training.engine)
        torch.manual_seed(training.engine.seed)
        device = self.engine.fabric.device
        self.base = self._first().to(device)
        self.text_encoder = text_encoder.to(device)
        self.average = average_of(self.base, training.engine.ema_decay).to(device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.base, training.weight_decay), lr=training.engine.learning_rate, betas=(0.9, 0.96)
        )

    def _first(self) -> MaskedTransformer:
        start, model = self.training.start_from, self.training.model
        if start is None:
            return MaskedTransformer(model)
        base = load_module(MaskedTransformer, TransformerConfig, start)
        if base.config != model:
            raise ValueError(f"{start} holds {base.config} and the run trains {model}; start from one of its own shape")
        return base

    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything a checkpoint holds."""
        return {"base": self.base, "average": self.average, "optimizer": self.optimizer}

    def step(self, batch: TokenBatch, step: int) -> Metrics:
        """One optimizer step on a batch: hide tokens, drop captions, predict what is hidden."""
        self.base.train()
        generator = torch.Generator().manual_seed(hash((self.training.engine.seed, step)))
        loss = self.loss(self.base, batch, generator)
        self.engine.update(loss, self.optimizer, self.base)
        self.average.update_parameters(self.base)
        return {"loss": loss.detach()}

    def loss(self, base: MaskedTransformer, batch: TokenBatch, generator: torch.Generator) -> torch.Tensor:
        """The mean cross-entropy of a batch's hidden tokens, in nats."""
        training, device = self.training, self.engine.fabric.device
        kept = drop_captions(len(batch.captions), training.caption_drop, generator)
        ratio = draw_mask_ratio(len(batch.tokens), generator, device)
        masked, is_hidden = hide(batch.tokens, ratio, training.model.mask_id, generator)
        with self.engine.fabric.autocast():
            text = base.read(*self.text_encoder(batch.captions[:kept])) if kept else None
            logits = base(masked, text)
        return hidden_token_loss(logits, batch.tokens, is_hidden, training.label_smoothing)

    @torch.no_grad()
    def validate(self, batches: Sequence[TokenBatch]) -> float:
        """The averaged network's loss on fixed batches with fixed masks, in nats."""
        base, device = self.averaged(), self.engine.fabric.device
        losses = [
            self.loss(base, batch.to(device), torch.Generator().manual_seed(i)) for i, batch in enumerate(batches)
        ]
        return float(torch.stack(losses).mean())

    def averaged(self) -> MaskedTransformer:
        """The averaged network."""
        module = self.average.module
        assert isinstance(module, MaskedTransformer)
        return module.eval()


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices and tables decay; what scales or shifts does not."""
    matrices = [p for p in module.parameters() if p.ndim >= 2]
    others = [p for p in module.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def train_base(
    training: BaseTraining,
    text_encoder: TextEncoder,
    vqgan_fingerprint: str,
    batch_at: Callable[[int], TokenBatch],
    validation: Sequence[TokenBatch],
    watch: Callable[[MaskedTransformer, int], None] | None = None,
) -> Path:
    """Train on batches of tokens and captions; returns the folder of the averaged transformer.

    `batch_at` gives the batch of a step. At every checkpoint the loss on the `validation` batches is reported, and
    `watch` is called with the averaged network, to draw with it."""
    training = replace(training, model=replace(training.model, vqgan_fingerprint=vqgan_fingerprint))
    stage = BaseStage(training, text_encoder)
    folder = training.engine.folder / "base"

    def after_save(step: int) -> Metrics:
        base = stage.averaged()
        save_module(base, folder)
        if watch is not None:
            watch(base, step)
        return {"validation_loss": torch.tensor(stage.validate(validation))} if validation else {}

    stage.engine.run(stage.state(), batch_at, stage.step, after_save)
    return folder
