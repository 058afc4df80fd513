"""Both token grids of the same scene, for the training of super-resolution."""

import dataclasses

import numpy as np
import pytest
import torch

from muse.models.superres import SuperResTransformer
from muse.models.vqgan import VQGAN, VQGANConfig
from projects.emoji import recipe, tokens
from projects.emoji.dataset import EmojiArt
from projects.emoji.train import COMMANDS, PairsOfStep, TokensOfStep, held_out_batch, held_out_pairs

OPTIONS = tokens.CacheOptions(singles_per_picture=2, compositions=12, background=0.5)
PICTURES = tuple(range(12))


def vqgan_of(seed):
    torch.manual_seed(seed)
    vqgan = VQGAN(
        VQGANConfig(channels=(4,), patch=8, blocks=1, decoder_blocks=1, num_codes=32, code_dim=4, norm_groups=2)
    )
    torch.nn.init.normal_(vqgan.quantizer.codebook, std=0.3)
    return vqgan.eval()


@pytest.fixture(scope="module")
def larger(art):
    """The same pictures twice as large."""
    return EmojiArt(art.records, art.pictures.repeat(2, 1).repeat(2, 2))


@pytest.fixture(scope="module")
def caches(art, larger, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    tokens.build(art, PICTURES, vqgan_of(0), OPTIONS, folder / "seen")
    tokens.build(art, PICTURES, vqgan_of(1), OPTIONS, folder / "seen-128", larger)
    return tokens.load(folder / "seen"), tokens.load(folder / "seen-128")


def test_both_caches_hold_the_same_scenes_row_by_row_each_in_its_own_size(caches):
    small, large = caches
    assert small.scenes == large.scenes
    assert (small.tokens.shape, large.tokens.shape) == ((36, 64), (36, 256))
    assert (small.vqgan_fingerprint, large.vqgan_fingerprint) == (vqgan_of(0).fingerprint(), vqgan_of(1).fingerprint())
    assert small.tokens.dtype == large.tokens.dtype == np.uint16


def test_a_scene_painted_larger_is_the_same_picture(art, larger):
    painted, large = (
        [scenes[i] for i in range(len(scenes))]
        for scenes in (tokens.PaintedScenes(art, PICTURES, OPTIONS, painter) for painter in (None, larger))
    )
    assert [scene for scene, _ in painted] == [scene for scene, _ in large]
    shrunk = np.stack([picture.reshape(64, 2, 64, 2, 3).mean((1, 3)) for _, picture in large])
    small = np.stack([picture for _, picture in painted]).astype(float)
    assert np.abs(shrunk - small).mean((1, 2, 3)).max() < 8
    assert np.abs(np.roll(shrunk, 1, axis=0) - small).mean() > 30  # the test could fail


def test_pairs_of_a_step_are_the_tokens_of_that_step_and_the_large_tokens_of_the_same_scenes(art, caches):
    small, large = caches
    pairs, alone = PairsOfStep(art, small, large, 8), TokensOfStep(art, small, 8)
    for step in (0, 1):
        batch = pairs(step)
        assert batch.tokens.equal(alone(step).tokens)
        assert batch.captions == alone(step).captions
        for low, high in zip(batch.tokens, batch.high_tokens, strict=True):
            rows = np.flatnonzero((small.tokens == low.numpy()).all(1))
            assert any((large.tokens[row] == high.numpy()).all() for row in rows)
    assert not pairs(0).high_tokens.equal(pairs(1).high_tokens)
    assert pairs(1).high_tokens.equal(pairs(1).high_tokens)


def test_held_out_pairs_have_plain_captions(art, caches):
    rows = np.array([0, 5, 30])
    small, large = caches
    pairs, alone = held_out_pairs(art, small, large, rows), held_out_batch(art, small, rows)
    assert pairs.captions == alone.captions
    assert pairs.tokens.equal(alone.tokens)
    assert pairs.high_tokens.tolist() == large.tokens[rows].tolist()


def test_caches_of_other_scenes_are_refused_with_one_sentence(art, caches):
    other = dataclasses.replace(caches[1], scenes=caches[1].scenes[::-1])
    for pair in (
        lambda: PairsOfStep(art, caches[0], other, 8),
        lambda: held_out_pairs(art, caches[0], other, np.array([0])),
    ):
        with pytest.raises(ValueError, match=r"^the two token caches hold other scenes; delete both folders"):
            pair()


def test_larger_pictures_that_are_others_are_refused_with_one_sentence(art, larger, tmp_path):
    others = EmojiArt(larger.records[1:], larger.pictures[1:])
    with pytest.raises(
        ValueError, match=r"^the pictures of 128 px are not those of 64 px; build both in the same way$"
    ):
        tokens.build(art, PICTURES, vqgan_of(1), OPTIONS, tmp_path, others)


def test_a_cache_that_is_there_is_not_built_again(art, larger, tmp_path, monkeypatch):
    tokens.build(art, PICTURES[:2], vqgan_of(1), OPTIONS, tmp_path, larger)
    monkeypatch.setattr(tokens, "PaintedScenes", lambda *a: pytest.fail("it was built again"))
    tokens.build(art, PICTURES[:2], vqgan_of(1), OPTIONS, tmp_path, larger)


@pytest.mark.parametrize("scale", recipe.SCALES)
def test_the_parts_of_the_recipe_fit_together(scale):
    places = recipe.Places(scale=scale)
    vqgan, base = recipe.vqgan(places).model, recipe.base(places).model
    large, superres, decoder = (
        recipe.vqgan_superres(places).model,
        recipe.superres(places).model,
        recipe.decoder(places),
    )
    assert (vqgan.num_codes, large.num_codes) == (superres.low_num_codes, superres.num_codes)
    assert (base.height, base.width, base.text_dim) == (superres.low_height, superres.low_width, superres.text_dim)
    assert (base.height * vqgan.stride, superres.height * large.stride) == (
        places.of_scale.size,
        places.of_scale.large_size,
    )
    with torch.device("meta"):
        larger = VQGAN(
            dataclasses.replace(large, decoder_channels=decoder.decoder_channels, decoder_blocks=decoder.decoder_blocks)
        )
        sizes = [sum(p.numel() for p in each.parameters()) for each in (VQGAN(large).decoder, larger.decoder)]
        millions = sum(p.numel() for p in SuperResTransformer(superres).parameters()) / 1e6
    assert sizes[1] > 1.4 * sizes[0]
    assert millions == pytest.approx(8.9, abs=0.05)


@pytest.mark.parametrize("scale", recipe.SCALES)
def test_every_part_is_a_command_and_has_a_place_of_its_own(scale):
    places = recipe.Places(scale=scale)
    assert set(COMMANDS) - {"tokens"} == {
        "vqgan",
        "base",
        "vqgan-superres",
        "superres",
        "decoder",
        "decoder-low",
        "decoder-drawn",
    }
    large = (recipe.vqgan_superres, recipe.superres, recipe.decoder, recipe.decoder_low, recipe.decoder_drawn)
    folders = [run(places).engine.folder for run in (recipe.vqgan, recipe.base, *large)]
    assert len(set(folders)) == 7
    large_networks = (places.vqgan_superres, places.superres, places.decoder, places.decoder_low, places.decoder_drawn)
    networks = (places.vqgan, places.base, *large_networks)
    assert [network.parent for network in networks] == folders


def test_the_transformers_of_the_scales_do_not_meet_and_their_vqgans_are_the_same():
    half, paper = (recipe.Places(scale=scale) for scale in ("half", "paper"))
    assert (half.vqgan, half.vqgan_superres) == (paper.vqgan, paper.vqgan_superres)
    for name in ("base", "superres", "decoder", "decoder_low", "decoder_drawn", "model"):
        assert getattr(half, name) != getattr(paper, name)
