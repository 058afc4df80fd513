"""Stage 2: the base transformer, trained to fill in hidden tokens given the caption.
Muse, sections 2.4, 2.6 and 2.7."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from muse.checkpoint import load_module
from muse.data.batches import TokenBatch
from muse.masking import draw_hidden, draw_mask_ratio
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer, TextContext, TransformerConfig, drop_captions
from muse.shapes import Hidden
from muse.training.engine import Engine, EngineOptions, Metrics, average_of
from muse.training.losses import hidden_token_loss
from muse.training.optimizers import OptimizerName, optimizer_for


@dataclass(frozen=True)
class BaseTraining:
    """What the base transformer's training can be told; the defaults are Muse's."""

    engine: EngineOptions
    model: TransformerConfig = field(default_factory=TransformerConfig)
    caption_drop: float = 0.1
    """Share of the captions that is dropped, so that guidance has an unconditional model."""
    optimizer: OptimizerName = "adamw"
    """AdamW, or AdaFactor, whose moments take half of the memory; Muse was trained with the latter."""
    weight_decay: float = 0.045
    """How strongly matrices and tables are drawn to 0, in shares of the learning rate a step."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all codes."""
    start_from: Path | None = None
    """The folder of a trained transformer of the same shape whose weights the first step starts from."""


@dataclass(frozen=True)
class Draw:
    """What a step hides of samples: their tokens, and the captions of all but the first ones."""

    is_hidden: Hidden
    has_text: Bool[Tensor, " batch"]
    num_hidden: int
    """Tokens hidden in the whole batch, of which these may be a part."""
    is_told: bool
    """Whether any sample of the whole batch keeps its caption."""

    def __getitem__(self, rows: slice) -> "Draw":
        return replace(self, is_hidden=self.is_hidden[rows], has_text=self.has_text[rows])


class BaseStage:
    """The network, optimizer and average of one run of the base transformer."""

    def __init__(self, training: BaseTraining, text_encoder: TextEncoder):
        self.training = training
        self.engine = Engine(training.engine)
        torch.manual_seed(training.engine.seed)
        with self.engine.building():
            self.base = self._first()
        self.average = average_of(self.base, training.engine.ema_decay)
        for base in (self.base, self.averaged()):
            # A text is read before the layers are called, so what reads it is gathered on its own.
            readers = [layer.attend_text.key_value for layer in base.layers]  # pyright: ignore
            units = [*readers, *base.layers]
            self.engine.place(base, units, methods=("read",))  # pyright: ignore[reportArgumentType]
        self.average.n_averaged = self.average.n_averaged.to(self.engine.fabric.device)
        self.engine.recompute(self.base.layers)
        self.text_encoder = text_encoder.to(self.engine.fabric.device)
        rate = training.engine.learning_rate
        self.optimizer = optimizer_for(self.base, training.optimizer, rate, training.weight_decay)

    def _first(self) -> MaskedTransformer:
        start, model = self.training.start_from, self.training.model
        base = MaskedTransformer(model)
        if start is None or base.embed.weight.is_meta:
            return base
        base = load_module(MaskedTransformer, TransformerConfig, start)
        if base.config != model:
            raise ValueError(f"{start} holds {base.config} and the run trains {model}; start from one of its own shape")
        return base

    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything a checkpoint holds."""
        return {"base": self.base, "average": self.average, "optimizer": self.optimizer}

    def step(self, batch: TokenBatch, step: int) -> Metrics:
        """One optimizer step on this process's share of a batch: hide tokens, drop captions, predict what is hidden."""
        self.base.train()
        generator = torch.Generator().manual_seed(hash((self.training.engine.seed, step)))
        ranks, losses = self.engine.ranks, []
        draw = self.draw(len(batch) * ranks.count, generator)[ranks.share]

        def parts() -> Iterator[Tensor]:
            for part, drawn in zip(self.engine.parts(batch), self.parts_of(draw), strict=True):
                # Gradients are means over processes, and every process has divided by the hidden tokens of all.
                loss = ranks.count * self.loss_of(self.base, part, drawn)
                losses.append(loss.detach())
                yield loss

        self.engine.update(parts(), self.optimizer, self.base)
        self.average.update_parameters(self.base)
        return {"loss": torch.stack(losses).sum()}

    def parts_of(self, draw: Draw) -> list[Draw]:
        """What is drawn for each part of a batch."""
        num = self.training.engine.accumulate
        return [draw[slice(i, None, num)] for i in range(num)]

    def draw(self, num: int, generator: torch.Generator) -> Draw:
        """What to hide of a whole batch; every process draws the same."""
        model, device = self.training.model, self.engine.fabric.device
        kept = drop_captions(num, self.training.caption_drop, generator)
        ratio = draw_mask_ratio(num, generator, device)
        is_hidden = draw_hidden(ratio, model.height * model.width, generator)
        return Draw(is_hidden, torch.arange(num) < kept, int(is_hidden.sum()), kept > 0)

    def loss(self, base: MaskedTransformer, batch: TokenBatch, generator: torch.Generator) -> Tensor:
        """The mean cross-entropy of a whole batch's hidden tokens, in nats."""
        return self.loss_of(base, batch, self.draw(len(batch), generator))

    def loss_of(self, base: MaskedTransformer, batch: TokenBatch, draw: Draw) -> Tensor:
        """What a part of a batch adds to the mean cross-entropy of the whole batch's hidden tokens, in nats."""
        masked = batch.tokens.masked_fill(draw.is_hidden, self.training.model.mask_id)
        with self.engine.fabric.autocast():
            text = self.read(base, batch[: int(draw.has_text.sum())]) if draw.is_told else None
            logits = base(masked, text)
        smoothing = self.training.label_smoothing
        return hidden_token_loss(logits, batch.tokens, draw.is_hidden, smoothing, draw.num_hidden)

    def read(self, base: MaskedTransformer, batch: TokenBatch) -> TextContext:
        """What the layers need of the captions; also of none, as all processes must gather the same weights."""
        device = self.engine.fabric.device
        if batch.text is not None and batch.is_word is not None:
            return base.read(batch.text.float(), batch.is_word)
        if batch.captions:
            return base.read(*self.text_encoder(batch.captions))
        nothing = torch.zeros(0, 1, self.training.model.text_dim, device=device)
        return base.read(nothing, torch.zeros(0, 1, dtype=torch.bool, device=device))

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
    `watch` is called with the averaged network, to draw with it; in every process, as each may have but a shard."""
    training = replace(training, model=replace(training.model, vqgan_fingerprint=vqgan_fingerprint))
    stage = BaseStage(training, text_encoder)
    folder = training.engine.folder / "base"

    def after_save(step: int) -> Metrics:
        base = stage.averaged()
        stage.engine.export(base, folder)
        if watch is not None:
            watch(base, step)
        return {"validation_loss": torch.tensor(stage.validate(validation))} if validation else {}

    def keep(kept: Path) -> None:
        stage.engine.export(stage.base, kept / "base")

    stage.engine.run(stage.state(), batch_at, stage.step, after_save, keep)
    return folder
