"""The formulas: from features, logits or pictures to a number. No weights and no files here."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from muse.evaluation.intervals import CONFIDENCE_Z, Figure
from muse.shapes import Pictures

Features = Float[Tensor, "picture dim"]
"""One row for each picture, as a frozen network gives it."""
Others = Float[Tensor, "other dim"]
"""Features of as many pictures as there are on the other side."""
PerPicture = Float[Tensor, " picture"]

IS_SPLITS = 10
"""Parts over which the inception score is averaged, as its paper has it."""
ROWS = 1024
"""Rows of a distance matrix held at once."""


@dataclass(frozen=True)
class FrechetReference:
    """Mean and covariance of the features that others are compared with."""

    mean: Float[Tensor, " dim"]
    covariance: Float[Tensor, "dim dim"]

    @classmethod
    def of(cls, features: Features) -> "FrechetReference":
        return cls(features.double().mean(0), features.double().T.cov())

    def distance(self, features: Features) -> float:
        """Frechet distance of other features to these.
        Few samples make it larger: compare sets of one size only. FID (arXiv:1706.08500), equation 6."""
        samples = features.double()
        centred = (samples - samples.mean(0)) / (len(samples) - 1) ** 0.5
        # tr (S1 S2)^(1/2) by the eigenvalues of R S2 R', where S1 = R'R: exact for few samples too.
        root = torch.linalg.qr(centred, mode="r").R
        overlap = torch.linalg.eigvalsh(root @ self.covariance @ root.T).clamp(min=0).sqrt().sum()
        spread = centred.square().sum() + self.covariance.trace() - 2 * overlap
        return float((samples.mean(0) - self.mean).square().sum() + spread)


def is_in_manifold(points: Features, manifold: Others, neighbours: int, chunk: int = ROWS) -> Bool[Tensor, " picture"]:
    """Whether each point is at most as far from some point of the manifold as that one's k-th nearest neighbour.
    Precision is the share of drawn points in the manifold of real ones, recall the reverse.
    Kynkaanniemi et al. (arXiv:1904.06991), equation 1. Raises ValueError if the manifold has too few points."""
    if len(manifold) <= neighbours:
        raise ValueError(
            f"precision and recall with {neighbours} neighbours need at least {neighbours + 1} pictures on each side; "
            f"{len(manifold)} came"
        )
    # Exact differences: the fast form by matrix products is off by more than the distance between near points.
    radii = torch.cat(
        [exact_distances(rows, manifold).kthvalue(neighbours + 1, dim=1).values for rows in manifold.split(chunk)]
    )
    return torch.cat([(exact_distances(rows, manifold) <= radii).any(dim=1) for rows in points.split(chunk)])


def exact_distances(ones: Features, others: Others) -> Float[Tensor, "picture other"]:
    return torch.cdist(ones.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist")


def inception_score(logits: Float[Tensor, "picture label"], seed: int = 0) -> Figure:
    """exp of the mean KL divergence of each picture's labels from all labels, over IS_SPLITS random parts, and its
    interval from the spread of the parts. By torchmetrics. Salimans et al. (arXiv:1606.03498), section 4."""
    from torchmetrics.image.inception import InceptionScore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it keeps all features, which are here anyway
        score = InceptionScore(feature=nn.Identity(), splits=IS_SPLITS)
    score.update(logits)  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]):  # it shuffles by the global generator
        torch.manual_seed(seed)
        mean, spread = (float(part) for part in score.compute())
    reach = CONFIDENCE_Z * spread / IS_SPLITS**0.5
    return Figure(mean, max(0.0, mean - reach), mean + reach)


def psnr(pictures: Pictures, others: Pictures) -> PerPicture:
    """Peak signal-to-noise ratio of each picture, in dB, infinite for equal ones. By torchmetrics."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(pictures, others, data_range=1.0, reduction="none", dim=(1, 2, 3))


def ssim(pictures: Pictures, others: Pictures) -> PerPicture:
    """Structural similarity of each picture, 1 for equal ones. By torchmetrics."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    similarity = structural_similarity_index_measure(pictures, others, data_range=1.0, reduction="none")
    assert isinstance(similarity, Tensor), "the full image was not asked for"
    return similarity.reshape(len(pictures))


def as_array(values: PerPicture) -> Float[np.ndarray, " picture"]:
    return values.detach().double().cpu().numpy()
