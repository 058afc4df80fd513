"""The token cache: scenes through the VQGAN, once for each VQGAN and each choice of scenes."""

import dataclasses

import numpy as np
import pytest
import torch

from muse.models.vqgan import VQGAN, VQGANConfig
from projects.emoji.scenes import paint
from projects.emoji.tokens import CacheOptions, PaintedScenes, build, load

OPTIONS = CacheOptions(singles_per_picture=2, compositions=3)


def list_of(painted):
    return [painted[i] for i in range(len(painted))]


@pytest.fixture
def vqgan():
    torch.manual_seed(0)
    return VQGAN(VQGANConfig((4, 4, 4), 1, None, 1, num_codes=16, code_dim=4, norm_groups=2)).eval()


def test_so_many_of_a_pictures_scenes_are_varied_and_the_others_are_centred(art):
    for varied in (0, 1, 2):
        options = dataclasses.replace(OPTIONS, varied=varied, compositions=0)
        painted = list_of(PaintedScenes(art, [0, 5], options))
        assert [scene.items for scene, _ in painted] == [(0,), (0,), (5,), (5,)]
        centred = [np.array_equal(picture, paint(scene, art)) for scene, picture in painted]
        assert centred == [i >= varied for i in range(2)] * 2


@pytest.mark.parametrize("plain", [False, True])
def test_compositions_vary_unless_everything_is_to_be_in_its_plain_place(art, plain):
    options = CacheOptions(singles_per_picture=0, compositions=8, plain_compositions=plain)
    painted = list_of(PaintedScenes(art, range(len(art.records)), options))
    in_place = [np.array_equal(picture, paint(scene, art)) for scene, picture in painted]
    assert all(in_place) if plain else not any(in_place)


def test_compositions_can_leave_out_the_older_styles(art, monkeypatch):
    monkeypatch.setattr("projects.emoji.tokens.OLDER_STYLES", ("noto", "twemoji"))
    for older in (False, True):
        options = CacheOptions(singles_per_picture=1, compositions=40, older_compositions=older)
        painted = list_of(PaintedScenes(art, range(len(art.records)), options))
        styles = {art.records[item].style for scene, _ in painted if scene.kind != "single" for item in scene.items}
        assert styles == {"fluent-3d", "fluent-flat"} | ({"noto", "twemoji"} if older else set())
        assert {art.records[scene.items[0]].style for scene, _ in painted} >= {"noto", "twemoji"}


def test_the_cache_holds_the_tokens_of_its_scenes(art, vqgan, tmp_path):
    build(art, [0, 5, 9], vqgan, OPTIONS, tmp_path)
    cache = load(tmp_path)
    painted = list_of(PaintedScenes(art, [0, 5, 9], OPTIONS))
    assert list(cache.scenes) == [scene for scene, _ in painted]
    pictures = torch.from_numpy(np.stack([picture for _, picture in painted])).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        assert cache.tokens.tolist() == vqgan.encode(pictures).tolist()
    assert cache.vqgan_fingerprint == vqgan.fingerprint()


def test_a_cache_is_made_again_for_another_vqgan_or_other_scenes_and_only_then(art, vqgan, tmp_path):
    def made_at():
        return (tmp_path / "cache.json").stat().st_mtime_ns

    build(art, [0], vqgan, OPTIONS, tmp_path)
    first = made_at()
    build(art, [0], vqgan, OPTIONS, tmp_path)
    assert made_at() == first
    build(art, [0], vqgan, dataclasses.replace(OPTIONS, varied=1), tmp_path)
    assert (second := made_at()) > first
    with torch.no_grad():
        vqgan.encoder.conv_in.weight.mul_(2)
    build(art, [0], vqgan, dataclasses.replace(OPTIONS, varied=1), tmp_path)
    assert made_at() > second
