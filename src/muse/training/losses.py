"""The losses of all stages."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def hidden_token_loss(
    logits: Float[Tensor, "hidden code"],
    tokens: Int[Tensor, " hidden"],
    label_smoothing: float = 0.0,
    num_hidden: float | None = None,
) -> Float[Tensor, ""]:
    """Mean cross-entropy of hidden tokens, in nats and float32; networks give logits of no others in training.
    `num_hidden` divides the sum in place of their number, where these are of a part of a batch.
    Muse, section 2.6; MaskGIT (arXiv:2202.04200), equation 3."""
    if num_hidden is None:
        return F.cross_entropy(logits.float(), tokens, label_smoothing=label_smoothing)
    return F.cross_entropy(logits.float(), tokens, label_smoothing=label_smoothing, reduction="sum") / num_hidden


def commitment_loss(
    latents: Float[Tensor, "batch dim h w"], quantized: Float[Tensor, "batch dim h w"]
) -> Float[Tensor, ""]:
    """Mean squared distance of the latents to their codes; pulls the encoder, never the codebook.
    VQ-VAE (arXiv:1711.00937), equation 3, third term."""
    return F.mse_loss(latents.float(), quantized.detach().float())


def discriminator_loss(real: Float[Tensor, "batch 1 h w"], decoded: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, ""]:
    """Hinge loss: scores of real patches above 1, of decoded ones below -1.
    Geometric GAN (arXiv:1705.02894)."""
    return (F.relu(1 - real.float()).mean() + F.relu(1 + decoded.float()).mean()) / 2


def adversarial_loss(decoded: Float[Tensor, "batch 1 h w"]) -> Float[Tensor, ""]:
    """What the decoder minimises: the negative score of its pictures."""
    return -decoded.float().mean()


def perplexity(usage: Float[Tensor, " code"]) -> Float[Tensor, ""]:
    """How many codes would be in use, were all used equally often; between 1 and num_codes."""
    share = usage / usage.sum()
    return torch.exp(-torch.special.xlogy(share, share).sum())
