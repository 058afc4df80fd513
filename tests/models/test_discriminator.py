"""The patch discriminator: a grid of scores, each picture for itself."""

import dataclasses

import pytest
import torch

from muse.models.discriminator import DiscriminatorConfig, PatchDiscriminator

TINY = DiscriminatorConfig(channels=8, layers=2, norm_groups=4)


def pictures(num=3, height=32, width=32):
    return torch.rand(num, 3, height, width, generator=torch.Generator().manual_seed(0))


def discriminator_of(config):
    torch.manual_seed(0)
    return PatchDiscriminator(config)


@torch.no_grad()
def test_scores_do_not_depend_on_the_other_pictures_of_the_batch():
    judge, given = discriminator_of(TINY).train(), pictures()
    torch.testing.assert_close(judge(given)[1:2], judge(given[1:2]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("layers", "side"), [(1, 30), (2, 14), (3, 6)])
@torch.no_grad()
def test_the_scores_form_a_grid_that_each_layer_halves(layers, side):
    scores = discriminator_of(dataclasses.replace(TINY, layers=layers))(pictures(2, 64, 64))
    assert scores.shape == (2, 1, side, side)


@torch.no_grad()
def test_it_judges_pictures_that_are_not_square():
    assert discriminator_of(TINY)(pictures(1, 32, 48)).shape == (1, 1, 6, 10)


@torch.no_grad()
def test_a_score_sees_its_patch_and_not_the_far_corner_before_normalisation():
    judge, given = discriminator_of(TINY), pictures(1, 64, 64)
    for i, layer in enumerate(judge.layers):
        if isinstance(layer, torch.nn.GroupNorm):
            judge.layers[i] = torch.nn.Identity()
    changed = given.clone()
    changed[..., :8, :8] = 0
    moved = (judge(given) != judge(changed))[0, 0]
    assert moved[0, 0]
    assert not moved[-1, -1]


def test_channels_double_with_each_layer_up_to_eight_times():
    widths = [m.out_channels for m in discriminator_of(DiscriminatorConfig(8, 5)).layers if hasattr(m, "out_channels")]
    assert widths == [8, 16, 32, 64, 64, 64, 1]


@torch.no_grad()
def test_norm_groups_change_the_scores_of_equal_weights():
    judge, other = discriminator_of(TINY), discriminator_of(dataclasses.replace(TINY, norm_groups=2))
    other.load_state_dict(judge.state_dict(), strict=True)
    assert not judge(pictures()).allclose(other(pictures()), atol=1e-4)
