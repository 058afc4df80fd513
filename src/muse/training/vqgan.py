"""Stage 1: the VQGAN. Reconstruction, perceptual, commitment and adversarial losses (Muse, section 3 and appendix)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from muse.images import contact_sheet, to_images
from muse.models.discriminator import DiscriminatorConfig, PatchDiscriminator
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.shapes import Pictures
from muse.training.codebook import CodebookTracker
from muse.training.engine import Engine, EngineOptions, Metrics, average_of
from muse.training.losses import adversarial_loss, commitment_loss, discriminator_loss
from muse.training.perceptual import PerceptualLoss
from muse.training.ranks import Ranks

Latents = Float[Tensor, "batch dim h w"]


@dataclass(frozen=True)
class VQGANTraining:
    """What a VQGAN's training can be told; the weights of the losses are Muse's."""

    engine: EngineOptions
    model: VQGANConfig = field(default_factory=VQGANConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    perceptual_weight: float = 0.05
    adversarial_weight: float = 0.1
    commitment_weight: float = 0.25
    quantize_from: int = 500
    """The step from which the decoder sees codes; until then this is a plain autoencoder that only compares pixels.
    An untrained encoder under a codebook that follows it shrinks to one point, and the perceptual term keeps it from
    learning colours."""
    discriminator_from: int = 10_000
    """The step from which the discriminator learns."""
    adversarial_from: int = 12_000
    """The step from which the decoder feels it; later than `discriminator_from`, so that it can judge by then."""

    def __post_init__(self) -> None:
        if self.adversarial_from < self.discriminator_from:
            raise ValueError(
                f"the adversarial loss starts at step {self.adversarial_from}, before its discriminator learns at "
                f"{self.discriminator_from}; start it later"
            )


class VQGANStage:
    """The networks, optimizers and averages of one VQGAN run."""

    def __init__(self, training: VQGANTraining, perceptual: PerceptualLoss | None):
        if training.engine.strategy == "fsdp":
            raise ValueError("a VQGAN is small and its codebook is one for all processes; give --engine.strategy ddp")
        self.training = training
        self.engine = Engine(training.engine)
        torch.manual_seed(training.engine.seed)
        self.vqgan = VQGAN(training.model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.vqgan.quantizer.requires_grad_(False)  # the tracker moves it
        self.discriminator = PatchDiscriminator(training.discriminator)
        self.tracker = CodebookTracker(training.model.num_codes, training.model.code_dim)
        self.average = average_of(self.vqgan, training.engine.ema_decay)
        self.perceptual = perceptual
        rate = training.engine.learning_rate
        trained = [p for p in self.vqgan.parameters() if p.requires_grad]
        # The paper's Adam with weight decay 1e-4, decoupled.
        self.optimizer = torch.optim.AdamW(trained, lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
        self.optimizer_d = torch.optim.AdamW(
            self.discriminator.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4
        )
        self._move()

    def _move(self) -> None:
        for part in (self.vqgan, self.discriminator, self.tracker, self.average, self.perceptual):
            if part is not None:
                part.to(self.engine.fabric.device)

    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything a checkpoint holds."""
        return {
            "vqgan": self.vqgan,
            "discriminator": self.discriminator,
            "tracker": self.tracker,
            "average": self.average,
            "optimizer": self.optimizer,
            "optimizer_d": self.optimizer_d,
        }

    def step(self, pictures: Pictures, step: int) -> Metrics:
        """One step of the encoder and decoder, one of the codebook, one of the discriminator, on this process's share
        of a batch."""
        parts = [part.contiguous(memory_format=torch.channels_last) for part in self.engine.parts(pictures)]
        metrics, decoded = self._follow_all(parts, step), []
        sums: Metrics = {}

        def add(losses: Metrics) -> Tensor:
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach() / len(parts)
            return torch.stack(list(losses.values())).sum() / len(parts)

        def generator_losses() -> Iterator[Tensor]:
            for part in parts:
                picture, losses, told = self._reconstruct(part, step)
                metrics.update(told)
                if step >= self.training.adversarial_from:
                    losses["adversarial"] = self._adversarial(picture)
                decoded.append(picture.detach())
                yield add(losses)

        def discriminator_losses() -> Iterator[Tensor]:
            for part, picture in zip(parts, decoded, strict=True):
                yield add({"discriminator": self._discriminate(part, picture)})

        self.engine.update(generator_losses(), self.optimizer, self.vqgan)
        self._average()
        if step >= self.training.discriminator_from:
            self.engine.update(discriminator_losses(), self.optimizer_d, self.discriminator)
        return {**sums, **metrics}

    def _follow_all(self, parts: list[Pictures], step: int) -> Metrics:
        """Move the codebook before a batch that comes in several parts: it follows the whole, and never in between."""
        if len(parts) == 1 or step < self.training.quantize_from:
            return {}
        with torch.no_grad(), self.engine.fabric.autocast():
            latents = [self.vqgan.latents(part).float() for part in parts]
        return self._follow(torch.stack(latents, dim=1).flatten(0, 1))

    def _reconstruct(self, pictures: Pictures, step: int) -> tuple[Pictures, Metrics, Metrics]:
        with self.engine.fabric.autocast():
            latents = self.vqgan.latents(pictures).float()
        is_quantized = step >= self.training.quantize_from
        codes, losses, metrics = self._quantize(latents) if is_quantized else (latents, {}, {})
        with self.engine.fabric.autocast():
            decoded = self.vqgan.decoder(codes).float() / 2 + 0.5
            losses["reconstruction"] = (decoded - pictures).abs().mean()
            if self.perceptual is not None and is_quantized:
                losses["perceptual"] = self.training.perceptual_weight * self.perceptual(decoded, pictures)
        return decoded, losses, metrics

    def _quantize(self, latents: Latents) -> tuple[Latents, Metrics, Metrics]:
        metrics = self._follow(latents.detach()) if self.training.engine.accumulate == 1 else {}
        quantizer = self.vqgan.quantizer
        quantized = quantizer.look_up(quantizer.nearest(latents))
        # The gradient of the picture passes the codebook as if it were not there.
        straight_through = latents + (quantized - latents).detach()
        return straight_through, {"commitment": self._commitment(latents, quantized)}, metrics

    def _commitment(self, latents: Latents, quantized: Latents) -> Tensor:
        return self.training.commitment_weight * commitment_loss(latents, quantized)

    def _follow(self, latents: Latents) -> Metrics:
        quantizer = self.vqgan.quantizer
        revived = self.tracker.follow(quantizer, latents, quantizer.nearest(latents), self.engine.ranks)
        return {
            "codebook_perplexity": self.tracker.perplexity(),
            "codebook_usage": self.tracker.usage(),
            "codes_revived": revived,
            "latent_spread": spread(latents, self.engine.ranks),
        }

    def _adversarial(self, decoded: Pictures) -> Tensor:
        with self.engine.fabric.autocast():
            return self.training.adversarial_weight * adversarial_loss(self.discriminator(decoded))

    def _discriminate(self, pictures: Pictures, decoded: Pictures) -> Tensor:
        with self.engine.fabric.autocast():
            return discriminator_loss(self.discriminator(pictures), self.discriminator(decoded))

    def _average(self) -> None:
        self.average.update_parameters(self.vqgan)
        # The tracker's codebook is an average already, and the one that the present latents fit.
        self._average_module().quantizer.codebook.data.copy_(self.vqgan.quantizer.codebook.data)

    def _average_module(self) -> VQGAN:
        module = self.average.module
        assert isinstance(module, VQGAN)
        return module

    def averaged(self) -> VQGAN:
        """The averaged network; its codebook is the present one, which is an average already."""
        return self._average_module().eval()


def spread(latents: Latents, ranks: Ranks) -> Float[Tensor, ""]:
    """The standard deviation of the latents of all processes."""
    numbers = latents.double()
    sums = torch.stack([torch.full_like(numbers.sum(), numbers.numel()), numbers.sum(), numbers.square().sum()])
    num, total, squares = ranks.sum(sums)
    return ((squares - total.square() / num) / (num - 1)).sqrt()


@torch.no_grad()
def reconstructions(vqgan: VQGAN, pictures: Pictures) -> Image.Image:
    """A sheet with each picture above what the VQGAN makes of it."""
    tokens = vqgan.encode(pictures)
    decoded = vqgan.decode(tokens, pictures.shape[-2] // vqgan.config.stride)
    pairs = torch.stack([pictures, decoded], dim=1).flatten(0, 1)
    return contact_sheet(to_images(pairs), columns=16)


def train_vqgan(
    training: VQGANTraining,
    batch_at: Callable[[int], Pictures],
    watched: Pictures,
    perceptual: PerceptualLoss | None,
) -> Path:
    """Train on batches of pictures in [0, 1]; returns the folder of the averaged VQGAN.

    `batch_at` gives the batch of a step. At every checkpoint the reconstructions of the `watched` pictures are drawn.
    """
    stage = VQGANStage(training, perceptual)
    folder = training.engine.folder / "vqgan"

    def after_save(step: int) -> Metrics:
        vqgan = stage.averaged()
        stage.engine.export(vqgan, folder, torch.float16)
        if stage.engine.ranks.is_first:
            reconstructions(vqgan, watched.to(stage.engine.fabric.device)).save(
                training.engine.folder / f"reconstructions-{step:06}.png"
            )
        return {}

    def keep(kept: Path) -> None:
        stage.engine.export(stage.vqgan, kept / "vqgan")

    stage.engine.run(stage.state(), batch_at, stage.step, after_save, keep)
    return folder
