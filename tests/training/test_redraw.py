"""Pictures that super-resolution draws anew, for a decoder that shall paint over its mistakes."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from muse.checkpoint import load_module
from muse.models.quantizer import as_grid
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import Muse
from muse.training.decoder import DecoderStage, train_decoder
from muse.training.redraw import Redraw, chosen, seeds_of
from tests.training.test_engine import metrics_of
from tests.training.tiny_runs import decoder_training, options, pictures_at, trained_vqgan


@pytest.fixture
def pictures():
    """Four pictures of 256 pixels, of squares that both VQGANs see."""
    squares = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return squares.repeat_interleave(32, 2).repeat_interleave(32, 3)


def test_pictures_are_drawn_from_their_own_small_tokens_without_a_text(cascade, pictures):
    """Without guidance too, even of a model that draws with it: there is nothing to be guided by."""
    guided = replace(cascade.superres_defaults, guidance=3.0, steps=4)
    muse = Muse(*cascade.modules, superres_defaults=guided)
    tokens = Redraw(muse, cascade.vqgan_superres, 256)(pictures, 3)
    small = F.interpolate(pictures, 128, mode="bicubic", antialias=True).clamp(0, 1)
    text, is_word = torch.zeros(0, 1, 32), torch.zeros(0, 1, dtype=torch.bool)
    low, seeds = cascade.vqgan.encode(small), seeds_of(pictures, 3)
    assert tokens.equal(cascade.draw_superres(low, text, is_word, seeds, replace(guided, guidance=0.0)))
    assert not tokens.equal(cascade.vqgan_superres.encode(pictures))


def test_what_becomes_of_a_picture_does_not_depend_on_those_beside_it(cascade, pictures):
    redraw = Redraw(cascade, cascade.vqgan_superres, 256)
    together = redraw(pictures, 5)
    assert together[2:].equal(redraw(pictures[2:], 5))
    assert together[[3, 0]].equal(redraw(pictures[[3, 0]], 5))
    assert not redraw(pictures[:1], 6).equal(together[:1])  # the next time it has other mistakes


def test_what_draws_has_a_fingerprint_of_its_weights_whatever_it_computes_in(cascade):
    def fingerprint():
        return Redraw(muse, muse.vqgan_superres, 256).fingerprint

    muse = deepcopy(cascade)
    before = fingerprint()
    muse.draw_in(torch.bfloat16)
    assert fingerprint() == before
    next(muse.superres.head.parameters()).data += 1
    assert fingerprint() != before


def test_a_share_is_chosen_by_the_pictures_and_the_step_alone():
    pictures = torch.rand(1000, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    rows = chosen(pictures, 0.3, 7)
    assert 250 < rows.sum() < 350
    assert chosen(pictures.flip(0), 0.3, 7).flip(0).equal(rows)
    assert not chosen(pictures, 0.0, 7).any()
    assert chosen(pictures, 1.0, 7).all()
    assert chosen(pictures, 0.6, 7)[rows].all()


def test_no_picture_is_drawn_always_or_never():
    pictures = torch.rand(20, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    times = torch.stack([chosen(pictures, 0.5, step) for step in range(100)]).float()
    assert ((times.mean(0) > 0.3) & (times.mean(0) < 0.7)).all()
    assert times.T.corrcoef().fill_diagonal_(0).abs().max() < 0.5  # nor always together with another


def test_a_model_of_other_tokens_or_of_another_size_is_refused_with_one_sentence(cascade, tiny_muse):
    ours, theirs = cascade.vqgan_superres.fingerprint(), cascade.vqgan.fingerprint()
    with pytest.raises(
        ValueError, match=f"^the model .* draws the tokens of the VQGAN {ours}, and this one is {theirs}; "
    ):
        Redraw(cascade, cascade.vqgan, 256)
    with pytest.raises(
        ValueError, match=r"draws 256 x 256 pixels and the pictures have 128 a side; give a size of 256$"
    ):
        Redraw(cascade, cascade.vqgan_superres, 128)
    sentence = (
        r"^the model runs/base/model has no super-resolution, which would draw the pictures anew; give one that has$"
    )
    with pytest.raises(ValueError, match=sentence):
        Redraw(tiny_muse, tiny_muse.vqgan, 128, "runs/base/model")


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_decoder_sees_drawn_tokens_of_its_share_and_own_ones_of_the_rest(tmp_path, share):
    seen, asked = [], []
    vqgan, pictures = trained_vqgan(), pictures_at(0)

    def drawn(given, step):
        assert step == 11
        asked.append(given)
        return torch.full((len(given), 16), 7)

    training = decoder_training(options(tmp_path, steps=100), drawn_share=share)
    stage = DecoderStage(training, vqgan, None, drawn)
    stage.vqgan.decoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    stage.step(pictures, 11)
    rows = chosen(pictures, share, 11)
    grid = as_grid(vqgan.encode(pictures), 4)
    grid[rows] = 7
    assert seen[0].equal(vqgan.quantizer.look_up(grid))
    assert sum(map(len, asked)) == rows.sum()
    assert not asked or asked[0].equal(pictures[rows])


def test_watched_pictures_are_compared_as_they_are_drawn_once(tmp_path):
    vqgan, watched, asked = trained_vqgan(), pictures_at(99), []

    def drawn(given, step):
        asked.append(given.equal(watched))
        return torch.full((len(given), 16), 7)

    training = decoder_training(options(tmp_path, steps=2, save_every=1), drawn_share=0.5)
    folder = train_decoder(training, vqgan, pictures_at, watched, None, drawn)
    assert asked.count(True) == 1
    with torch.no_grad():
        decoded = load_module(VQGAN, VQGANConfig, folder).decode(drawn(watched, 0), 4)
    difference = (decoded - watched).abs().mean().item()
    assert metrics_of(tmp_path)[2]["validation_reconstruction"] == pytest.approx(difference, rel=1e-4)


def test_without_anything_that_draws_the_share_changes_nothing(tmp_path):
    weights = []
    for share in (0.0, 1.0):
        stage = DecoderStage(
            decoder_training(options(tmp_path / str(share), steps=100), drawn_share=share), trained_vqgan(), None
        )
        stage.step(pictures_at(0), 0)
        weights.append(stage.vqgan.decoder.state_dict())
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_that_is_none_is_refused(tmp_path, share):
    with pytest.raises(ValueError, match=rf"^drawn_share is {share}; give a share from 0 to 1$"):
        decoder_training(options(tmp_path), drawn_share=share)


def test_a_decoder_learns_to_paint_over_what_is_always_drawn_wrong(tmp_path):
    """Each token is drawn as the next one: the decoder that is shown this learns the pictures all the same."""
    vqgan, pictures = trained_vqgan(), pictures_at(0)

    def wrong(given, step=0):
        return (vqgan.encode(given) + 1) % vqgan.config.num_codes

    def distance(trained: VQGAN):
        with torch.no_grad():
            return (trained.decode(wrong(pictures), 4) - pictures).abs().mean().item()

    after = {}
    for name, drawn in (("own", None), ("drawn", wrong)):
        training = decoder_training(options(tmp_path / name, steps=30), drawn_share=1.0)
        stage = DecoderStage(training, vqgan, None, drawn)
        for step in range(30):
            stage.step(pictures, step)
        after[name] = distance(stage.vqgan.eval())
    assert after["drawn"] < after["own"]
