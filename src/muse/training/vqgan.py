"""Stage 1: the VQGAN. Reconstruction, perceptual, commitment and adversarial losses (Muse, section 3 and appendix)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from muse.checkpoint import load_module
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.requests import keep_whole
from muse.shapes import Pictures
from muse.training.codebook import CodebookTracker
from muse.training.engine import Metrics
from muse.training.losses import commitment_loss
from muse.training.perceptual import PerceptualLoss
from muse.training.pictures import Latents, PictureStage, PictureTraining, check_weights
from muse.training.ranks import Ranks


@dataclass(frozen=True)
class VQGANTraining(PictureTraining):
    """What a VQGAN's training can be told. The weights of the perceptual and the adversarial loss are Muse's, that of
    the commitment is VQ-VAE's (arXiv:1711.00937, section 3.2); when each phase begins is ours, as Muse does not say."""

    model: VQGANConfig = field(default_factory=VQGANConfig)
    decoder_from: Path | None = None
    """The folder of a trained VQGAN with a decoder of the same shape, from which the first step starts."""
    commitment_weight: float = 0.25
    quantize_from: int = 500
    """The step from which the decoder sees codes; until then this is a plain autoencoder that only compares pixels.
    An untrained encoder under a codebook that follows it shrinks to one point, and the perceptual term keeps it from
    learning colours."""

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_whole(self, "quantize_from", least=0)
        check_weights(commitment_weight=self.commitment_weight)
        if self.quantize_from >= self.engine.steps:
            raise ValueError(
                f"quantize_from is {self.quantize_from} and engine.steps is {self.engine.steps}, so that no code would "
                f"be learnt; give a quantize_from below {self.engine.steps}, or more steps"
            )


class VQGANStage(PictureStage):
    """The networks, optimizers and averages of one VQGAN run."""

    training: VQGANTraining

    def __init__(self, training: VQGANTraining, perceptual: PerceptualLoss | None):
        torch.manual_seed(training.engine.seed)
        vqgan = VQGAN(training.model)
        if training.decoder_from is not None:
            start_decoder(vqgan, training.decoder_from)
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
        codes, losses, metrics = self._quantize(latents, step) if is_quantized else (latents, {}, {})
        decoded, compared = self.compare(codes, pictures, self.perceptual if is_quantized else None)
        return decoded, losses | compared, metrics

    def look_at_all(self, parts: list[Pictures], step: int) -> Metrics:
        """Move the codebook before a batch that comes in several parts: it follows the whole, and never in between."""
        if len(parts) == 1 or step < self.training.quantize_from:
            return {}
        with torch.no_grad(), self.engine.fabric.autocast():
            latents = [self.vqgan.latents(part).float() for part in parts]
        return self._follow(torch.stack(latents, dim=1).flatten(0, 1), step)

    def _quantize(self, latents: Latents, step: int) -> tuple[Latents, Metrics, Metrics]:
        metrics = self._follow(latents.detach(), step) if self.training.engine.accumulate == 1 else {}
        quantizer = self.vqgan.quantizer
        quantized = quantizer.look_up(quantizer.nearest(latents))
        # The gradient of the picture passes the codebook as if it were not there.
        straight_through = latents + (quantized - latents).detach()
        losses = {"commitment": self.training.commitment_weight * commitment_loss(latents, quantized)}
        return straight_through, losses, metrics

    def _follow(self, latents: Latents, step: int) -> Metrics:
        quantizer, ranks = self.vqgan.quantizer, self.engine.ranks
        generator = torch.Generator(latents.device).manual_seed(hash((self.training.engine.seed, step)))
        revived = self.tracker.follow(quantizer, latents, quantizer.nearest(latents), generator, ranks)
        return {
            "codebook_perplexity": self.tracker.perplexity(),
            "codebook_usage": self.tracker.usage(),
            "codes_revived": revived,
            "latent_spread": spread(latents, ranks),
        }

    def update_average(self) -> None:
        super().update_average()
        # The tracker's codebook is an average already, and the one that the present latents fit.
        self.averaged().quantizer.codebook.data.copy_(self.vqgan.quantizer.codebook.data)


def start_decoder(vqgan: VQGAN, folder: Path) -> None:
    """Give a VQGAN the decoder of another one.
    Raises CheckpointError if the folder holds none, ValueError if its decoder has another shape."""
    try:
        vqgan.decoder.load_state_dict(load_module(VQGAN, VQGANConfig, folder).decoder.state_dict())
    except RuntimeError as error:
        raise ValueError(
            f"the decoder of {folder} has another shape than the one to be trained; give a VQGAN with equal "
            "decoder_channels, decoder_blocks, code_dim and patch"
        ) from error


def spread(latents: Latents, ranks: Ranks) -> Float[Tensor, ""]:
    """The standard deviation of the latents of all processes."""
    numbers = latents.double()
    sums = torch.stack([torch.full_like(numbers.sum(), numbers.numel()), numbers.sum(), numbers.square().sum()])
    num, total, squares = ranks.sum(sums)
    return ((squares - total.square() / num) / (num - 1)).sqrt()


def train_vqgan(
    training: VQGANTraining,
    batch_at: Callable[[int], Pictures],
    watched: Pictures,
    perceptual: PerceptualLoss | None,
) -> Path:
    """Train on batches of pictures in [0, 1], `batch_at` a step; returns the folder of the averaged VQGAN.

    At every checkpoint the reconstructions of the `watched` pictures are drawn, and how far they are from them is
    reported."""
    return VQGANStage(training, perceptual).run(batch_at, watched, torch.float16)
