"""What the training of a VQGAN and of a larger decoder have in common: decode pictures, and compare."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from muse.checkpoint import fingerprint_of
from muse.images import contact_sheet, to_images
from muse.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from muse.models.vqgan import VQGAN
from muse.requests import check_choices, keep_whole
from muse.shapes import Pictures
from muse.training.engine import LOSSES, Engine, EngineOptions, Metrics, average_of
from muse.training.losses import adversarial_loss, discriminator_loss, gradient_loss
from muse.training.perceptual import PerceptualLoss

log = logging.getLogger(__name__)
Latents = Float[Tensor, "batch dim h w"]


@dataclass(frozen=True)
class PictureTraining:
    """What any training of a decoder can be told; the weights of the losses are Muse's."""

    engine: EngineOptions
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    perceptual_weight: float = 0.05
    adversarial_weight: float = 0.1
    gradient_weight: float = 0.0
    """Weight of the steps between neighbouring places (`losses.gradient_loss`), which keep plain areas plain. Muse has
    no such loss."""
    discriminator_from: int = 10_000
    """The step from which the discriminator learns."""
    adversarial_from: int = 12_000
    """The step from which the decoder feels it; later than `discriminator_from`, so that it can judge by then."""

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("discriminator_from", "adversarial_from"):
            keep_whole(self, name, least=0)
        check_weights(
            perceptual_weight=self.perceptual_weight,
            adversarial_weight=self.adversarial_weight,
            gradient_weight=self.gradient_weight,
        )
        if self.adversarial_from < self.discriminator_from:
            raise ValueError(
                f"the adversarial loss starts at step {self.adversarial_from}, before its discriminator learns at "
                f"{self.discriminator_from}; start it later"
            )


def check_weights(**weights: float) -> None:
    """Raises ValueError for a weight of a loss that is negative, which would train away from it, or not finite."""
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise ValueError(f"{name} is {weight}; give a finite number of at least 0")


def losses_of(training: PictureTraining, perceptual: PerceptualLoss | None) -> dict[str, Any]:
    """What the losses of a run are made of, by the names in LOSSES."""
    options = {name.replace("_", "-"): value for name, value in vars(training).items()}
    found = {"perceptual": None if perceptual is None else fingerprint_of([perceptual], torch.bfloat16), **options}
    return {name: found[name] for name in LOSSES if name in found}


class PictureStage(ABC):
    """The networks, optimizers and averages of one run; what needs a gradient is trained."""

    def __init__(self, training: PictureTraining, vqgan: VQGAN, perceptual: PerceptualLoss | None):
        if training.engine.strategy == "fsdp":
            raise ValueError("a VQGAN is small and its codebook is one for all processes; give --engine.strategy ddp")
        if training.engine.recompute:
            raise ValueError(
                "recompute is for the layers of transformers and a VQGAN is trained; leave out --engine.recompute, or "
                "save memory by --engine.accumulate"
            )
        if training.engine.graph:
            raise ValueError("graph is for the steps of transformers and a VQGAN is trained; leave out --engine.graph")
        self.training = training
        self.engine = Engine(training.engine)
        steps, start = training.engine.steps, training.adversarial_from
        if training.adversarial_weight and start >= steps and self.engine.ranks.is_first:
            log.warning(
                "the adversarial loss would start at step %d, and the run has %d: it has none; give an earlier "
                "--adversarial-from, or --adversarial-weight 0 if none is wanted",
                *(start, steps),
            )
        self.engine.noted = losses_of(training, perceptual)
        self.vqgan = vqgan.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.discriminator = PatchDiscriminator(training.discriminator)
        self.average = average_of(self.vqgan, training.engine.ema_decay)
        self.perceptual = perceptual
        for part in (self.vqgan, self.discriminator, self.average, self.perceptual):
            if part is not None:
                part.to(self.engine.fabric.device)
        trained = [p for p in self.vqgan.parameters() if p.requires_grad]
        # The paper's Adam with weight decay 1e-4, decoupled.
        self.optimizer, self.optimizer_d = (
            torch.optim.AdamW(each, lr=training.engine.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
            for each in (trained, self.discriminator.parameters())
        )

    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything a checkpoint holds."""
        return {
            "vqgan": self.vqgan,
            "discriminator": self.discriminator,
            "average": self.average,
            "optimizer": self.optimizer,
            "optimizer_d": self.optimizer_d,
        }

    def step(self, pictures: Pictures, step: int) -> Metrics:
        """One step of what is trained of the VQGAN, one of the discriminator, on this process's share of a batch."""
        parts = [part.contiguous(memory_format=torch.channels_last) for part in self.engine.parts(pictures)]
        metrics, decoded = self.look_at_all(parts, step), []
        sums: Metrics = {}

        def add(losses: Metrics) -> Tensor:
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach() / len(parts)
            return torch.stack(list(losses.values())).sum() / len(parts)

        def generator_losses() -> Iterator[Tensor]:
            for part in parts:
                picture, losses, told = self.reconstruct(part, step)
                metrics.update(told)
                if step >= self.training.adversarial_from:
                    losses["adversarial"] = self._adversarial(picture)
                decoded.append(picture.detach())
                yield add(losses)

        def discriminator_losses() -> Iterator[Tensor]:
            for part, picture in zip(parts, decoded, strict=True):
                yield add({"discriminator": self._discriminate(part, picture)})

        self.engine.update(generator_losses(), self.optimizer, self.vqgan)
        self.update_average()
        if step >= self.training.discriminator_from:
            self.engine.update(discriminator_losses(), self.optimizer_d, self.discriminator)
        return {**sums, **metrics}

    def look_at_all(self, parts: list[Pictures], step: int) -> Metrics:
        """What is to be done with a whole batch before its parts are, and what there is to report of it; nothing,
        unless a stage says so."""
        return {}

    @abstractmethod
    def reconstruct(self, pictures: Pictures, step: int) -> tuple[Pictures, Metrics, Metrics]:
        """What the decoder makes of pictures, the losses of it, and what else there is to report."""

    def compare(
        self, codes: Latents, pictures: Pictures, perceptual: PerceptualLoss | None
    ) -> tuple[Pictures, Metrics]:
        """What the decoder makes of codes, and how far it is from the pictures."""
        with self.engine.fabric.autocast():
            decoded = self.vqgan.decoder(codes).float() / 2 + 0.5
            losses = {"reconstruction": (decoded - pictures).abs().mean()}
            if perceptual is not None:
                losses["perceptual"] = self.training.perceptual_weight * perceptual(decoded, pictures)
        if self.training.gradient_weight:
            losses["gradient"] = self.training.gradient_weight * gradient_loss(decoded, pictures)
        return decoded, losses

    def _adversarial(self, decoded: Pictures) -> Tensor:
        with self.engine.fabric.autocast():
            return self.training.adversarial_weight * adversarial_loss(self.discriminator(decoded))

    def _discriminate(self, pictures: Pictures, decoded: Pictures) -> Tensor:
        with self.engine.fabric.autocast():
            return discriminator_loss(self.discriminator(pictures), self.discriminator(decoded))

    def painted(self, vqgan: VQGAN, watched: Pictures) -> Pictures:
        """What a VQGAN makes of the pictures that are watched: their reconstructions, unless a stage says otherwise."""
        return vqgan.reconstruct(watched)

    def update_average(self) -> None:
        """Move the averaged network towards the present one."""
        self.average.update_parameters(self.vqgan)

    def averaged(self) -> VQGAN:
        """The averaged network."""
        module = self.average.module
        assert isinstance(module, VQGAN)
        return module.eval()

    def run(self, batch_at: Callable[[int], Pictures], watched: Pictures, dtype: torch.dtype | None = None) -> Path:
        """Train to the end; returns the folder of the averaged VQGAN, rounded to `dtype`.

        At every checkpoint the reconstructions of the `watched` pictures are drawn, and how far they are from them is
        reported."""
        folder = self.training.engine.folder / "vqgan"
        watched = watched.to(self.engine.fabric.device)

        def after_save(step: int) -> Metrics:
            vqgan = self.averaged()
            self.engine.export(vqgan, folder, dtype)
            if not len(watched):
                return {}
            with torch.no_grad():
                decoded = self.painted(vqgan, watched)
            if self.engine.ranks.is_first:
                reconstructions(watched, decoded).save(self.training.engine.folder / f"reconstructions-{step:06}.png")
            return self.validate(watched, decoded)

        def keep(kept: Path) -> None:
            self.engine.export(self.vqgan, kept / "vqgan")

        self.engine.run(self.state(), batch_at, self.step, after_save, keep)
        return folder

    @torch.no_grad()
    def validate(self, pictures: Pictures, decoded: Pictures) -> Metrics:
        """How far reconstructions are from their pictures, weighted as in training; every process finds the same."""
        metrics = {"validation_reconstruction": (decoded - pictures).abs().mean()}
        if self.perceptual is not None:
            metrics["validation_perceptual"] = self.training.perceptual_weight * self.perceptual(decoded, pictures)
        if self.training.gradient_weight:
            metrics["validation_gradient"] = self.training.gradient_weight * gradient_loss(decoded, pictures)
        return metrics


def reconstructions(pictures: Pictures, decoded: Pictures) -> Image.Image:
    """A sheet with each picture above what became of it."""
    return contact_sheet(to_images(torch.cat([pictures, decoded], dim=2)), columns=16)
