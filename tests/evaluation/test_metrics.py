"""Formulas against closed forms and against other people's code."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from muse.evaluation.metrics import FrechetReference, inception_score, is_in_manifold, psnr, ssim


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_sets(num: int = 300, dim: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    one = torch.randn(num, dim, generator=seeded(1)) @ torch.randn(dim, dim, generator=seeded(2)) + 0.5
    return one, torch.randn(num + 50, dim, generator=seeded(3))


# -- Frechet distance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [8, 200])  # fewer samples than features, and more
def test_the_frechet_distance_of_a_set_to_itself_is_0(num):
    features = torch.randn(num, 16, generator=seeded())
    assert FrechetReference.of(features).distance(features) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("num", [5, 4000])
def test_the_frechet_distance_equals_that_by_scipys_matrix_root(num):
    one = torch.randn(num, 8, generator=seeded(1)) * torch.arange(1, 9) + 3
    other = torch.randn(500, 8, generator=seeded(2))
    first, second = one.double().T.cov().numpy(), other.double().T.cov().numpy()
    means = float((one.double().mean(0) - other.double().mean(0)).square().sum())
    closed = means + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    assert FrechetReference.of(other).distance(one) == pytest.approx(closed, rel=1e-5)


def test_the_frechet_distance_of_known_gaussians_is_the_closed_form():
    white = torch.randn(20_000, 2, generator=seeded(2))
    # |m|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) with m = (3, 0), S1 = I, S2 = 4 I: 9 + 2 (1 - 2)^2
    assert FrechetReference.of(white).distance(2 * white + torch.tensor([3.0, 0.0])) == pytest.approx(11, rel=0.02)
    assert not math.isnan(FrechetReference.of(white).distance(white[:2]))


def test_the_frechet_distance_equals_that_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    class AsTheyAre(nn.Module):
        num_features = 16

        def forward(self, features):
            return features

    theirs = FrechetInceptionDistance(feature=AsTheyAre()).set_dtype(torch.float64)
    one, other = two_sets()
    theirs.update(one.double(), real=False)
    theirs.update(other.double(), real=True)
    assert FrechetReference.of(other).distance(one) == pytest.approx(float(theirs.compute()), rel=1e-5)


def test_the_frechet_distance_equals_that_of_torch_fidelity(torch_fidelity):
    fidelity = torch_fidelity("metric_fid")
    one, other = two_sets()
    statistics = [fidelity.fid_features_to_statistics(features.double()) for features in (one, other)]
    theirs = fidelity.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert FrechetReference.of(other).distance(one) == pytest.approx(theirs, rel=1e-3)


# -- precision and recall ----------------------------------------------------------------------------------------------


def test_identical_sets_have_precision_and_recall_1():
    points = torch.randn(50, 4, generator=seeded())
    assert is_in_manifold(points, points, neighbours=3).all()


def test_the_manifold_is_balls_that_reach_to_the_kth_neighbour():
    manifold = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # radii at k = 1: 1, 1, 2 and 7
    points = torch.tensor([[-1.0], [-1.1], [2.0], [5.0], [17.0], [17.1]])
    # 5 is in the ball around 3 and in that around 10, which reaches down to 3
    assert is_in_manifold(points, manifold, neighbours=1).tolist() == [True, False, True, True, True, False]
    assert is_in_manifold(points, manifold, neighbours=1, chunk=2).tolist() == [True, False, True, True, True, False]


def test_one_mode_of_two_is_precise_and_recalls_half():
    real = torch.cat([torch.randn(100, 2, generator=seeded()), torch.randn(100, 2, generator=seeded(1)) + 100])
    drawn = torch.randn(100, 2, generator=seeded(2))
    assert is_in_manifold(drawn, real, 3).float().mean() > 0.9
    assert 0.4 < is_in_manifold(real, drawn, 3).float().mean() <= 0.5


def test_too_few_points_for_the_neighbours_are_refused_with_how_many_are_needed():
    with pytest.raises(ValueError, match=r"3 neighbours need at least 4 pictures .* 3 came"):
        is_in_manifold(torch.zeros(5, 2), torch.zeros(3, 2), neighbours=3)


# -- inception score, PSNR, SSIM ---------------------------------------------------------------------------------------


def test_the_inception_score_is_the_number_of_labels_that_are_told_apart_and_1_where_none_is():
    labels = torch.arange(4).repeat(250)
    sure = 50 * torch.eye(4)[labels]
    assert inception_score(sure).value == pytest.approx(4, rel=0.05)
    assert inception_score(torch.zeros(1000, 4)).value == pytest.approx(1)


def test_the_inception_score_leaves_the_global_generator_alone_and_is_the_same_twice():
    logits = torch.randn(200, 8, generator=seeded())
    before = torch.random.get_rng_state()
    assert inception_score(logits) == inception_score(logits)
    assert torch.random.get_rng_state().equal(before)


def test_psnr_is_ten_times_the_logarithm_of_one_over_the_squared_error_of_each_picture():
    pictures = torch.full((2, 3, 16, 16), 0.5)
    others = pictures + torch.tensor([0.1, 0.01]).reshape(2, 1, 1, 1)
    assert psnr(pictures, others).tolist() == pytest.approx([20, 40], rel=1e-4)


def test_ssim_is_1_for_equal_pictures_and_lower_for_others():
    pictures = torch.rand(3, 3, 32, 32, generator=seeded())
    assert ssim(pictures, pictures).tolist() == pytest.approx([1, 1, 1])
    assert (ssim(pictures, torch.rand(3, 3, 32, 32, generator=seeded(1))) < 0.5).all()
