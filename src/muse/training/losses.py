"""The losses of all stages."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from muse.shapes import Pictures

GRADIENT_SCALES = (1, 2, 4, 8)
"""Sides in pixels of the squares between whose means `gradient_loss` compares the steps."""


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


def gradient_loss(decoded: Pictures, pictures: Pictures) -> Float[Tensor, ""]:
    """How far the steps from one square to the next, across and down, are from those of the pictures: mean absolute
    differences, summed over squares of 1, 2, 4 and 8 pixels; 0 for equal pictures and for those of another plain tint.
    Stains in what is plain cost little in pixels and in features, and much here.
    After the multi-scale gradient matching of MegaDepth (arXiv:1804.00607, section 4), with colours in place of depths.
    Raises ValueError if a side has no two squares of 8 pixels."""
    if min(pictures.shape[-2:]) < 2 * max(GRADIENT_SCALES):
        height, width = pictures.shape[-2:]
        raise ValueError(
            f"pictures of {width} x {height} px have no steps to compare by the gradient loss; give "
            f"{2 * max(GRADIENT_SCALES)} px a side or more, or a gradient_weight of 0"
        )
    losses = []
    for side in GRADIENT_SCALES:
        ours, theirs = (F.avg_pool2d(each, side) for each in (decoded.float(), pictures.float()))
        losses += [F.l1_loss(ours.diff(dim=dim), theirs.diff(dim=dim)) for dim in (-2, -1)]
    return torch.stack(losses).sum() / 2
