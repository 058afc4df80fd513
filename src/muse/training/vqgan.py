"""Stage 1: the VQGAN. Reconstruction, perceptual, commitment and adversarial losses (Muse, section 3 and appendix)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from muse.models.vqgan import VQGAN, VQGANConfig
from muse.shapes import Pictures
from muse.training.codebook import CodebookTracker
from muse.training.engine import Metrics
from muse.training.losses import commitment_loss
from muse.training.perceptual import PerceptualLoss
from muse.training.pictures import Latents, PictureStage, PictureTraining


@dataclass(frozen=True)
class VQGANTraining(PictureTraining):
    """What a VQGAN's training can be told; the weights of the losses are Muse's."""

    model: VQGANConfig = field(default_factory=VQGANConfig)
    commitment_weight: float = 0.25
    quantize_from: int = 500
    """The step from which the decoder sees codes; until then this is a plain autoencoder that only compares pixels.
    An untrained encoder under a codebook that follows it shrinks to one point, and the perceptual term keeps it from
    learning colours."""


class VQGANStage(PictureStage):
    """The networks, optimizers and averages of one VQGAN run."""

    training: VQGANTraining

    def __init__(self, training: VQGANTraining, perceptual: PerceptualLoss | None):
        torch.manual_seed(training.engine.seed)
        vqgan = VQGAN(training.model)
        vqgan.quantizer.requires_grad_(False)  # the tracker moves it
        self.tracker = CodebookTracker(training.model.num_codes, training.model.code_dim)
        super().__init__(training, vqgan, perceptual)
        self.tracker.to(self.engine.fabric.device)

    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {**super().state(), "tracker": self.tracker}

    def reconstruct(self, pictures: Pictures, step: int) -> tuple[Pictures, Metrics, Metrics]:
        with self.engine.fabric.autocast():
            latents = self.vqgan.latents(pictures).float()
        is_quantized = step >= self.training.quantize_from
        codes, losses, metrics = self._quantize(latents) if is_quantized else (latents, {}, {})
        decoded, compared = self.compare(codes, pictures, self.perceptual if is_quantized else None)
        return decoded, losses | compared, metrics

    def _quantize(self, latents: Latents) -> tuple[Latents, Metrics, Metrics]:
        quantizer = self.vqgan.quantizer
        revived = self.tracker.follow(quantizer, latents.detach(), quantizer.nearest(latents))
        quantized = quantizer.look_up(quantizer.nearest(latents))
        # The gradient of the picture passes the codebook as if it were not there.
        straight_through = latents + (quantized - latents).detach()
        losses = {"commitment": self.training.commitment_weight * commitment_loss(latents, quantized)}
        metrics = {
            "codebook_perplexity": self.tracker.perplexity(),
            "codebook_usage": self.tracker.usage(),
            "codes_revived": revived,
            "latent_spread": latents.detach().std(),
        }
        return straight_through, losses, metrics

    def update_average(self) -> None:
        super().update_average()
        # The tracker's codebook is an average already, and the one that the present latents fit.
        self.averaged().quantizer.codebook.data.copy_(self.vqgan.quantizer.codebook.data)


def train_vqgan(
    training: VQGANTraining,
    batch_at: Callable[[int], Pictures],
    watched: Pictures,
    perceptual: PerceptualLoss | None,
) -> Path:
    """Train on batches of pictures in [0, 1], `batch_at` a step; returns the folder of the averaged VQGAN.

    At every checkpoint the reconstructions of the `watched` pictures are drawn."""
    return VQGANStage(training, perceptual).run(batch_at, watched, torch.float16)
