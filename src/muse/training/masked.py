"""What the training of the base and of the super-resolution transformer have in common: fill in hidden tokens.
Muse, sections 2.6 and 2.7."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn

from muse.checkpoint import load_module, save_module
from muse.masking import draw_mask_ratio, hide
from muse.models.layers import Texts, Words
from muse.models.superres import SuperResTransformer
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer, drop_captions
from muse.shapes import Logits, Tokens
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


@dataclass(frozen=True, kw_only=True)
class MaskedTraining:
    """What the training of either transformer can be told; the defaults are Muse's."""

    engine: EngineOptions
    caption_drop: float = 0.1
    """Share of the captions that is dropped, so that guidance has an unconditional model."""
    weight_decay: float = 0.045
    label_smoothing: float = 0.0
    """Share of the target that is spread over all codes."""
    start_from: Path | None = None
    """The folder of a trained transformer of the same shape whose weights the first step starts from."""
    model: Any
    """The shape of the transformer."""


Network = TypeVar("Network", MaskedTransformer, SuperResTransformer)
Batch = TypeVar("Batch", bound=TokenBatch)


class MaskedStage(ABC, Generic[Network, Batch]):
    """The network, optimizer and average of one run of either transformer."""

    name: ClassVar[str]
    """What a checkpoint and the exported folder call the network."""
    network_class: type[Network]
    config_class: ClassVar[type]

    def __init__(self, training: MaskedTraining, text_encoder: TextEncoder):
        self.training = training
        self.engine = Engine(training.engine)
        torch.manual_seed(training.engine.seed)
        device = self.engine.fabric.device
        self.network = self._first().to(device)
        self.text_encoder = text_encoder.to(device)
        self.average = average_of(self.network, training.engine.ema_decay).to(device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.network, training.weight_decay), lr=training.engine.learning_rate, betas=(0.9, 0.96)
        )

    def _first(self) -> Network:
        start, model = self.training.start_from, self.training.model
        if start is None:
            return self.network_class(model)
        network = load_module(self.network_class, self.config_class, start)
        if network.config != model:
            raise ValueError(
                f"{start} holds {network.config} and the run trains {model}; start from one of its own shape"
            )
        return network

    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything a checkpoint holds."""
        return {self.name: self.network, "average": self.average, "optimizer": self.optimizer}

    def step(self, batch: Batch, step: int) -> Metrics:
        """One optimizer step on a batch: hide tokens, drop captions, predict what is hidden."""
        self.network.train()
        generator = torch.Generator().manual_seed(hash((self.training.engine.seed, step)))
        loss = self.loss(self.network, batch, generator)
        self.engine.update(loss, self.optimizer, self.network)
        self.average.update_parameters(self.network)
        return {"loss": loss.detach()}

    def loss(self, network: Network, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """The mean cross-entropy of a batch's hidden tokens, in nats."""
        tokens = self.targets(batch)
        kept = drop_captions(len(batch.captions), self.training.caption_drop, generator)
        ratio = draw_mask_ratio(len(tokens), generator, self.engine.fabric.device)
        masked, is_hidden = hide(tokens, ratio, self.training.model.mask_id, generator)
        with self.engine.fabric.autocast():
            text = self.text_encoder(batch.captions[:kept]) if kept else None
            logits = self.predict(network, masked, text, batch, generator)
        return hidden_token_loss(logits, tokens, is_hidden, self.training.label_smoothing)

    @abstractmethod
    def targets(self, batch: Batch) -> Tokens:
        """The tokens of a batch that the network learns to predict."""

    @abstractmethod
    def predict(
        self,
        network: Network,
        masked: Tokens,
        text: tuple[Texts, Words] | None,
        batch: Batch,
        generator: torch.Generator,
    ) -> Logits:
        """Logits of partly hidden tokens, given the texts of the first samples and what else the network reads."""

    @torch.no_grad()
    def validate(self, batches: Sequence[Batch]) -> float:
        """The averaged network's loss on fixed batches with fixed masks, in nats."""
        network, device = self.averaged(), self.engine.fabric.device
        losses = [
            self.loss(network, batch.to(device), torch.Generator().manual_seed(i))  # pyright: ignore[reportArgumentType]
            for i, batch in enumerate(batches)
        ]
        return float(torch.stack(losses).mean())

    def averaged(self) -> Network:
        """The averaged network."""
        module = self.average.module
        assert isinstance(module, self.network_class)
        return module.eval()

    def run(
        self,
        batch_at: Callable[[int], Batch],
        validation: Sequence[Batch],
        watch: Callable[[Network, int], None] | None,
    ) -> Path:
        """Train to the end; returns the folder of the averaged network.

        At every checkpoint the loss on the `validation` batches is reported, and `watch` is called with the averaged
        network, to draw with it."""
        folder = self.training.engine.folder / self.name

        def after_save(step: int) -> Metrics:
            network = self.averaged()
            save_module(network, folder)
            if watch is not None:
                watch(network, step)
            return {"validation_loss": torch.tensor(self.validate(validation))} if validation else {}

        self.engine.run(self.state(), batch_at, self.step, after_save)
        return folder


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices and tables decay; what scales or shifts does not."""
    matrices = [p for p in module.parameters() if p.ndim >= 2]
    others = [p for p in module.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
