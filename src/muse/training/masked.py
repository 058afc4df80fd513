"""What the training of the base and of the super-resolution transformer have in common: fill in hidden tokens.
Muse, sections 2.6 and 2.7."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Any, ClassVar, Generic, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from muse.checkpoint import load_module
from muse.cuda_graph import GraphedStep, padded
from muse.data.batches import TokenBatch
from muse.masking import draw_hidden, draw_mask_ratio
from muse.models.layers import Texts, Words
from muse.models.superres import SuperResTransformer
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer, drop_captions
from muse.requests import check_choices
from muse.shapes import Hidden, Tokens
from muse.training.engine import MAY_CHANGE, Engine, EngineOptions, Metrics, average_of
from muse.training.losses import hidden_token_loss
from muse.training.optimizers import OptimizerName, optimizer_for

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MaskedTraining:
    """What the training of either transformer can be told; the defaults are Muse's, but where a field says what Muse
    has instead."""

    engine: EngineOptions
    caption_drop: float = 0.1
    """Share of the captions that is dropped, so that guidance has an unconditional model."""
    caption_mix: float = 0.0
    """Share of the captions that is mixed with another one, so that the network learns to draw one thing where a text
    may mean several, as words do that it never met (docs/log.md)."""
    optimizer: OptimizerName = "adamw"
    """AdamW; AdaFactor, of half the moments, with which Muse was trained, as its recipes say; or Muon, whose steps take
    a quarter longer on a small model and lead further (docs/log.md). Small models have memory for all moments."""
    weight_decay: float = 0.045
    """How strongly matrices and tables are drawn to 0, in shares of the learning rate a step."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all codes."""
    start_from: Path | None = None
    """The folder of a trained transformer whose weights the first step starts from: of the same shape, but for the size
    of its grid and its dropout."""
    model: Any
    """The shape of the transformer."""

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("caption_drop", "caption_mix", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a share from 0 to 1")


@dataclass(frozen=True)
class Draw:
    """What a step draws for samples: which tokens are hidden, and which samples keep their captions, the first ones."""

    is_hidden: Hidden
    has_text: Bool[Tensor, " batch"]
    num_hidden: int
    """Tokens hidden in the whole batch, of which these may be a part."""
    is_told: bool
    """Whether any sample of the whole batch keeps its caption."""
    more: tuple[Tensor, ...] = ()
    """What else a stage draws for each sample."""
    own_share: Float[Tensor, " batch"] | None = None
    """How much of each caption's states is its own and not the next one's; None if all of it."""

    def __getitem__(self, rows: slice) -> "Draw":
        more = tuple(each[rows] for each in self.more)
        own_share = self.own_share[rows] if self.own_share is not None else None
        return replace(
            self, is_hidden=self.is_hidden[rows], has_text=self.has_text[rows], more=more, own_share=own_share
        )


Network = TypeVar("Network", MaskedTransformer, SuperResTransformer)
IGNORED = -100
"""The target that torch's cross-entropy leaves out."""
GRID = ("height", "width", "low_height", "low_width")
"""The fields of a config that say how large grids of tokens are."""


def mixed(text: Texts, is_word: Words, own_share: Float[Tensor, " text"]) -> tuple[Texts, Words]:
    """Texts of which only a share is their own and the rest the next one's, word by word, as long as the shorter one;
    those that are all their own as they are."""
    is_mixed = own_share < 1
    weight = own_share[:, None, None]
    is_shared = is_word & (is_word.roll(-1, 0) | ~is_mixed[:, None])
    return torch.where(is_mixed[:, None, None], weight * text + (1 - weight) * text.roll(-1, 0), text), is_shared


def draw_own_share(num: int, caption_mix: float, generator: torch.Generator) -> Float[Tensor, " sample"]:
    """How much of a sample's caption is its own: all, or some in a share `caption_mix` of them. Of two that are mixed,
    either is then the picture's with the probability of its share, as the density of a share grows with it."""
    is_mixed = torch.rand(num, generator=generator) < caption_mix
    return torch.where(is_mixed, torch.rand(num, generator=generator).sqrt(), 1.0)


def at_grid(network: Network, config: Any) -> Network:
    """The same weights for another grid: the vectors of its rows and columns lie between those of the old one."""
    other = type(network)(config)
    wanted = other.state_dict()
    weights = {name: stretched(weight, len(wanted[name])) for name, weight in network.state_dict().items()}
    other.load_state_dict(weights)
    return other


def stretched(table: Tensor, length: int) -> Tensor:
    """A table of vectors [old length, dim] at another length, linearly in between; what has that length as it is."""
    if len(table) == length:
        return table
    return F.interpolate(table.T[None], size=length, mode="linear", align_corners=False)[0].T


class MaskedStage(ABC, Generic[Network]):
    """The network, optimizer and average of one run of either transformer."""

    name: ClassVar[str]
    """What a checkpoint and the exported folder call the network."""
    network_class: type[Network]
    config_class: ClassVar[type]

    def __init__(self, training: MaskedTraining, text_encoder: TextEncoder):
        self.training = training
        self.engine = Engine(training.engine)
        torch.manual_seed(training.engine.seed)
        with self.engine.building():
            self.network = self._first()
        self.average = average_of(self.network, training.engine.ema_decay)
        for network in (self.network, self.averaged()):
            self.engine.place(network, self.units(network), methods=("read",))
        self.average.n_averaged = self.average.n_averaged.to(self.engine.fabric.device)
        self.engine.recompute(self.network.layers)
        self.engine.compile(self.network.layers)
        self.engine.noted = {"text-encoder": text_encoder.fingerprint()}
        self.text_encoder = text_encoder.to(self.engine.fabric.device)
        self.has_told_of_cuts = False
        self.optimizer = optimizer_for(
            self.network,
            training.optimizer,
            training.engine.learning_rate,
            training.weight_decay,
            is_captured=training.engine.graph and self.engine.fabric.device.type == "cuda",
        )
        self.graphed = GraphedStep(self._captured, self.engine.fabric.device) if training.engine.graph else None

    def _first(self) -> Network:
        start, model = self.training.start_from, self.training.model
        network = self.network_class(model)
        if start is None or network.embed.weight.is_meta:
            return network
        network = load_module(self.network_class, self.config_class, start)
        free = {name: getattr(model, name) for name in (*GRID, *MAY_CHANGE) if hasattr(model, name)}
        if replace(network.config, **free) != model:
            raise ValueError(
                f"{start} holds {network.config} and the run trains {model}; start from one of its own shape, but for "
                "the grid"
            )
        return network if network.config == model else at_grid(network, model)

    def units(self, network: Network) -> list[nn.Module]:
        """The parts of a network whose weights are gathered one after the other where they are sharded.
        What reads the text is called before its layer, so it is a part of its own."""
        return [*(layer.attend_text.key_value for layer in network.layers), *network.layers]  # pyright: ignore

    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything a checkpoint holds."""
        return {self.name: self.network, "average": self.average, "optimizer": self.optimizer}

    def step(self, batch: TokenBatch, step: int) -> Metrics:
        """One optimizer step on this process's share of a batch: hide tokens, drop captions, predict what is hidden."""
        self.network.train()
        generator = torch.Generator().manual_seed(hash((self.training.engine.seed, step)))
        if self.graphed is not None:
            loss, norm = self.graphed(*self.inputs(batch, generator))
            return {"loss": loss, "gradient_norm": norm}
        ranks, losses = self.engine.ranks, []
        draw = self.draw(len(batch) * ranks.count, generator)[ranks.share]

        def parts() -> Iterator[Tensor]:
            for part, drawn in zip(self.engine.parts(batch), self.parts_of(draw), strict=True):
                # Gradients are means over processes, and every process has divided by the hidden tokens of all.
                loss = ranks.count * self.loss_of(self.network, part, drawn)
                losses.append(loss.detach())
                yield loss

        self.engine.update(parts(), self.optimizer, self.network)
        self.average.update_parameters(self.network)
        return {"loss": torch.stack(losses).sum()}

    @torch.no_grad()
    def inputs(self, batch: TokenBatch, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What a captured step takes: the learning rate, tokens, which are hidden, the texts, `padded`, which of their
        words are none, and what the network reads besides."""
        draw, drop = self.draw(len(batch), generator), self.training.caption_drop
        num_told = round(len(batch) * (1 - drop))
        if drop and num_told == len(batch):
            raise ValueError(
                f"graph drops the same number of captions in each step, and of {len(batch)} none is {drop:.0%}; give a "
                f"batch size of at least {math.ceil(0.5 / drop) + 1}, a caption drop of 0, or no graph"
            )
        with self.engine.fabric.autocast():
            text, is_word = self.text_of(batch[:num_told], draw)
            given = self.given(batch, draw)
        text, is_word = padded(text, is_word)
        rate = torch.tensor(self.engine.rate(), device=self.engine.fabric.device)
        return rate, self.targets(batch), draw.is_hidden, text, is_word, *given

    def _captured(
        self, rate: Tensor, tokens: Tokens, is_hidden: Hidden, text: Texts, is_word: Words, *given: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One optimizer step of which nothing depends on what the device has computed: every position gets its logits,
        and those that are not hidden do not count."""
        masked = tokens.masked_fill(is_hidden, self.training.model.mask_id)
        with self.engine.fabric.autocast():
            logits = self.predict(self.network, masked, (text, is_word), given, None)
        loss = hidden_token_loss(
            logits.flatten(0, 1), tokens.masked_fill(~is_hidden, IGNORED).flatten(), self.training.label_smoothing
        )
        norm = self.engine.update_unseen(loss, self.optimizer, self.network, rate)
        if self.graphed is not None and self.graphed.is_capturing:
            # update_parameters looks whether it is the first time; that was in a warm-up.
            averages, weights = (
                [parameter.detach() for parameter in each.parameters()] for each in (self.average.module, self.network)
            )
            assert self.average.multi_avg_fn is not None
            self.average.multi_avg_fn(averages, weights, self.average.n_averaged)
            self.average.n_averaged += 1
        else:
            self.average.update_parameters(self.network)
        return loss.detach(), norm

    def parts_of(self, draw: Draw) -> list[Draw]:
        """What is drawn for each part of a batch."""
        num = self.training.engine.accumulate
        return [draw[slice(i, None, num)] for i in range(num)]

    def draw(self, num: int, generator: torch.Generator) -> Draw:
        """What to draw for a whole batch; every process draws the same."""
        model, device = self.training.model, self.engine.fabric.device
        kept = drop_captions(num, self.training.caption_drop, generator)
        ratio = draw_mask_ratio(num, generator, device)
        is_hidden = draw_hidden(ratio, model.height * model.width, generator)
        more = self.draw_more(num, generator)
        mix = self.training.caption_mix
        own_share = draw_own_share(num, mix, generator) if mix else None
        return Draw(is_hidden, torch.arange(num) < kept, int(is_hidden.sum()), kept > 0, more, own_share)

    def draw_unmixed(self, num: int, generator: torch.Generator) -> Draw:
        """What to draw for a whole batch, but no caption is mixed."""
        return replace(self.draw(num, generator), own_share=None)

    def draw_more(self, num: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What else a stage draws for each sample of a whole batch; nothing, unless it says so."""
        return ()

    def loss(self, network: Network, batch: TokenBatch, generator: torch.Generator) -> Tensor:
        """The mean cross-entropy of a whole batch's hidden tokens, in nats; no caption is mixed."""
        return self.loss_of(network, batch, self.draw_unmixed(len(batch), generator))

    def loss_of(self, network: Network, batch: TokenBatch, draw: Draw) -> Tensor:
        """What a part of a batch adds to the mean cross-entropy of the whole batch's hidden tokens, in nats."""
        tokens = self.targets(batch)
        masked = tokens.masked_fill(draw.is_hidden, self.training.model.mask_id)
        with self.engine.fabric.autocast():
            text = self.text_of(batch[: int(draw.has_text.sum())], draw) if draw.is_told else None
            logits = self.predict(network, masked, text, self.given(batch, draw), draw.is_hidden)
        return hidden_token_loss(logits, tokens[draw.is_hidden], self.training.label_smoothing, draw.num_hidden)

    def text_of(self, batch: TokenBatch, draw: Draw) -> tuple[Texts, Words]:
        """States of the captions, mixed as was drawn."""
        text, is_word = self.read(batch)
        if draw.own_share is None:
            return text, is_word
        return mixed(text, is_word, draw.own_share[: len(text)].to(text.device))

    def read(self, batch: TokenBatch) -> tuple[Texts, Words]:
        """States of the captions, read anew unless the batch brings them; also of none, as all processes must gather
        the same weights."""
        if batch.text is not None and batch.is_word is not None:
            return batch.text.float(), batch.is_word
        if batch.captions:
            captions = self.text_encoder.cut_to_fit(batch.captions)
            cut = [caption for caption, whole in zip(captions, batch.captions, strict=True) if caption != whole]
            if cut and not self.has_told_of_cuts:
                self.has_told_of_cuts = True
                log.warning(
                    "captions are cut to what the text encoder reads; one of them begins %r", shorten(cut[0], 60)
                )
            return self.text_encoder(captions)
        device = self.engine.fabric.device
        nothing = torch.zeros(0, 1, self.training.model.text_dim, device=device)
        return nothing, torch.zeros(0, 1, dtype=torch.bool, device=device)

    @abstractmethod
    def targets(self, batch: TokenBatch) -> Tokens:
        """The tokens of a batch that the network learns to predict."""

    def given(self, batch: TokenBatch, draw: Draw) -> tuple[Tensor, ...]:
        """What else the network reads of each sample; nothing, unless a stage says so."""
        return ()

    @abstractmethod
    def predict(
        self,
        network: Network,
        masked: Tokens,
        text: tuple[Texts, Words] | None,
        given: tuple[Tensor, ...],
        at: Hidden | None,
    ) -> Float[Tensor, "*position code"]:
        """Logits `at` the hidden tokens, or of all, given the texts of the first samples and what else is read."""

    @torch.no_grad()
    def validate(self, batches: Sequence[TokenBatch]) -> float:
        """The averaged network's mean cross-entropy of all hidden tokens of fixed batches with fixed masks, in nats;
        every process finds the same."""
        network, device = self.averaged(), self.engine.fabric.device
        draws = [self.draw_unmixed(len(batch), torch.Generator().manual_seed(i)) for i, batch in enumerate(batches)]
        num_hidden = sum(draw.num_hidden for draw in draws)
        losses = [
            self.loss_of(network, batch.to(device), replace(draw, num_hidden=num_hidden))
            for batch, draw in zip(batches, draws, strict=True)
        ]
        return float(torch.stack(losses).sum())

    def averaged(self) -> Network:
        """The averaged network."""
        module = self.average.module
        assert isinstance(module, self.network_class)
        return module.eval()

    def run(
        self,
        batch_at: Callable[[int], TokenBatch],
        validation: Sequence[TokenBatch],
        watch: Callable[[Network, int], None] | None,
    ) -> Path:
        """Train to the end; returns the folder of the averaged network.

        At every checkpoint the loss on the `validation` batches is reported, and `watch` is called with the averaged
        network, to draw with it; in every process, as each may have but a shard."""
        folder = self.training.engine.folder / self.name

        def after_save(step: int) -> Metrics:
            network = self.averaged()
            self.engine.export(network, folder)
            if watch is not None:
                watch(network, step)
            return {"validation_loss": torch.tensor(self.validate(validation))} if validation else {}

        def keep(kept: Path) -> None:
            self.engine.export(self.network, kept / self.name)

        self.engine.run(self.state(), batch_at, self.step, after_save, keep)
        return folder
