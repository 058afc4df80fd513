"""Stage 4: a larger decoder learns, and no token of any picture changes."""

import dataclasses

import pytest
import torch

from muse.checkpoint import load_module
from muse.models.vqgan import VQGAN, SpatialAttention, VQGANConfig
from muse.training.decoder import DecoderStage, DecoderTraining, train_decoder, with_larger_decoder
from muse.training.losses import gradient_loss
from muse.training.perceptual import PerceptualLoss
from tests.training.test_engine import metrics_of
from tests.training.tiny_runs import VQGAN_CONFIG, decoder_training, options, pictures_at, run_decoder, trained_vqgan

NEVER = 10**6


def stage_of(folder, perceptual=None, vqgan=None, **changes):
    training = decoder_training(options(folder, steps=100), **changes)
    return DecoderStage(training, vqgan or trained_vqgan(), perceptual)


def weights_of(module):
    return {name: weight.detach().clone() for name, weight in module.state_dict().items()}


def is_same(module, before):
    return all(weight.equal(before[name]) for name, weight in module.state_dict().items())


def noise(seed, side=16):
    return torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a VQGAN whose decoder was trained."""
    return run_decoder(options(tmp_path_factory.mktemp("decoder"), steps=4))


def test_no_token_of_any_picture_changes(run):
    before, after = trained_vqgan(), load_module(VQGAN, VQGANConfig, run)
    for pictures in (pictures_at(0), noise(1), noise(2, side=32), torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 24)):
        assert after.encode(pictures).equal(before.encode(pictures))
    assert len(before.encode(noise(1)).unique()) > 4  # the test could fail


def test_the_fingerprint_stays_and_the_decoder_is_the_larger_one(run):
    before, after = trained_vqgan(), load_module(VQGAN, VQGANConfig, run)
    assert after.fingerprint() == before.fingerprint()
    assert after.config == dataclasses.replace(VQGAN_CONFIG, decoder_channels=(8, 12), decoder_blocks=2)
    assert sum(p.numel() for p in after.decoder.parameters()) > sum(p.numel() for p in before.decoder.parameters())


def test_a_zero_with_a_sign_keeps_the_fingerprint(tmp_path):
    """Weights that were rounded to float16 hold some, and an average of -0 with -0 is 0."""
    vqgan = trained_vqgan()
    vqgan.encoder.conv_in.weight.data[0] = -0.0
    stage = stage_of(tmp_path, vqgan=vqgan)
    for step in range(2):
        stage.step(pictures_at(step), step)
    assert stage.averaged().fingerprint() == vqgan.fingerprint()


def test_only_the_decoder_moves(tmp_path):
    stage = stage_of(tmp_path, perceptual_loss(), perceptual_weight=1.0)
    networks = stage.vqgan, stage.averaged()
    frozen = [(part, weights_of(part)) for vqgan in networks for part in (vqgan.encoder, vqgan.quantizer)]
    decoder, averaged = weights_of(stage.vqgan.decoder), weights_of(stage.averaged().decoder)
    metrics = [set(stage.step(large_pictures_at(step), step)) for step in range(4)]
    assert metrics[-1] == {"reconstruction", "perceptual", "adversarial", "discriminator"}
    assert all(is_same(part, before) for part, before in frozen)
    moved = {name for name, weight in stage.vqgan.decoder.state_dict().items() if not weight.equal(decoder[name])}
    assert moved == set(decoder)
    assert not is_same(stage.averaged().decoder, averaged)


def perceptual_loss():
    torch.manual_seed(0)
    return PerceptualLoss()


def large_pictures_at(step):
    """Large enough for the network that compares them."""
    return pictures_at(step).repeat(1, 1, 4, 4)


def test_the_reconstruction_gets_better(tmp_path):
    stage = stage_of(tmp_path, discriminator_from=NEVER, adversarial_from=NEVER)
    losses = [stage.step(pictures_at(step % 2), step)["reconstruction"].item() for step in range(60)]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_the_decoder_learns_on_the_tokens_that_the_vqgan_gives(tmp_path, monkeypatch):
    seen, stage = [], stage_of(tmp_path, decoder_blocks=1, decoder_channels=None)
    stage.vqgan.decoder.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    stage.step(pictures_at(0), 0)
    tokens = trained_vqgan().encode(pictures_at(0))
    height = pictures_at(0).shape[2] // VQGAN_CONFIG.stride
    assert seen[0].equal(stage.vqgan.quantizer.look_up(tokens.reshape(len(tokens), height, -1)))


@torch.no_grad()
@pytest.mark.parametrize(("blocks", "more"), [(1, 3), (2, 3), (2, 4), (3, 4)])
@pytest.mark.parametrize(("attention", "level_attention"), [(False, False), (True, False), (True, True)])
def test_a_decoder_that_only_has_more_blocks_starts_as_the_old_one(attention, level_attention, blocks, more):
    torch.manual_seed(0)
    shape = {"channels": (8, 8, 12), "attention": attention, "level_attention": level_attention}
    vqgan = VQGAN(dataclasses.replace(VQGAN_CONFIG, decoder_blocks=blocks, **shape))
    larger = with_larger_decoder(vqgan, None, more)
    tokens = vqgan.encode(noise(0))
    torch.testing.assert_close(larger.decode(tokens, 4), vqgan.decode(tokens, 4), atol=1e-5, rtol=0)
    assert sum(p.numel() for p in larger.parameters()) > sum(p.numel() for p in vqgan.parameters())


def test_attention_that_was_added_learns(tmp_path):
    torch.manual_seed(0)
    vqgan = VQGAN(dataclasses.replace(VQGAN_CONFIG, level_attention=True))
    stage = stage_of(tmp_path, vqgan=vqgan, decoder_channels=None)
    added = [part for part in stage.vqgan.decoder.levels[0].children() if isinstance(part, SpatialAttention)][-1]
    before = weights_of(added)
    assert not before["out.weight"].any()
    for step in range(3):
        stage.step(pictures_at(step), step)
    moved = {name for name, weight in added.state_dict().items() if not weight.equal(before[name])}
    assert moved == set(before)


@torch.no_grad()
def test_a_wider_decoder_takes_over_the_weights_whose_shapes_agree():
    vqgan = trained_vqgan()
    larger = with_larger_decoder(vqgan, (8, 16), 2)
    old, new = vqgan.decoder.state_dict(), larger.decoder.state_dict()
    assert new["from_code.weight"].equal(old["from_code.weight"])
    assert new["conv_out.weight"].equal(old["conv_out.weight"])
    assert new["conv_in.weight"].shape != old["conv_in.weight"].shape
    assert not larger.decode(vqgan.encode(noise(0)), 8).allclose(vqgan.decode(vqgan.encode(noise(0)), 8), atol=1e-3)


@torch.no_grad()
def test_another_padding_is_taken_with_the_old_weights():
    vqgan = trained_vqgan()
    other = with_larger_decoder(vqgan, None, vqgan.config.decoder_blocks, "replicate")
    assert other.config.decoder_padding == "replicate"
    assert other.fingerprint() == vqgan.fingerprint()
    assert all(weight.equal(vqgan.state_dict()[name]) for name, weight in other.state_dict().items())
    tokens = vqgan.encode(noise(0))
    assert not other.decode(tokens, 8).allclose(vqgan.decode(tokens, 8), atol=1e-4)


def test_fewer_blocks_or_other_resolutions_are_refused_with_one_sentence():
    vqgan = with_larger_decoder(trained_vqgan(), None, 2)
    with pytest.raises(ValueError, match=r"^decoder_blocks is 1 and the decoder has 2 already; give as many or more$"):
        with_larger_decoder(vqgan, None, 1)
    with pytest.raises(ValueError, match=r"^the decoder has 3 resolutions and the encoder 2; give equally many$"):
        with_larger_decoder(vqgan, (8, 8, 8), 2)


def test_the_vqgan_that_came_is_left_as_it_was(tmp_path):
    vqgan = trained_vqgan()
    before, wanted_grad = weights_of(vqgan), [p.requires_grad for p in vqgan.parameters()]
    stage = stage_of(tmp_path, vqgan=vqgan)
    stage.step(pictures_at(0), 0)
    assert is_same(vqgan, before)
    assert [p.requires_grad for p in vqgan.parameters()] == wanted_grad


def test_the_discriminator_is_felt_from_its_step_on(tmp_path):
    """Taming-transformers: the adversarial loss is switched on before the discriminator can judge."""
    stage = stage_of(tmp_path, discriminator_from=1, adversarial_from=2)
    seen = [set(stage.step(pictures_at(step), step)) for step in range(3)]
    assert seen == [
        {"reconstruction"},
        {"reconstruction", "discriminator"},
        {"reconstruction", "discriminator", "adversarial"},
    ]
    with pytest.raises(ValueError, match="the adversarial loss starts at step 1, before its discriminator learns at 2"):
        decoder_training(options(tmp_path), discriminator_from=2, adversarial_from=1)


def test_at_every_checkpoint_the_watched_pictures_are_compared_with_what_the_averaged_network_makes_of_them(tmp_path):
    watched, perceptual = large_pictures_at(99)[:2], perceptual_loss()
    training = decoder_training(options(tmp_path, steps=4, save_every=2), gradient_weight=0.5)
    folder = train_decoder(training, trained_vqgan(), large_pictures_at, watched, perceptual)
    lines = metrics_of(tmp_path)
    assert [step for step, line in lines.items() if "validation_reconstruction" in line] == [2, 4]
    with torch.no_grad():
        decoded = load_module(VQGAN, VQGANConfig, folder).reconstruct(watched)
        difference, distance = (decoded - watched).abs().mean().item(), perceptual(decoded, watched).item()
        steps = gradient_loss(decoded, watched).item()
    assert lines[4]["validation_reconstruction"] == pytest.approx(difference, rel=1e-4)
    assert lines[4]["validation_perceptual"] == pytest.approx(training.perceptual_weight * distance, rel=1e-4)
    assert lines[4]["validation_gradient"] == pytest.approx(0.5 * steps, rel=1e-4)


def test_steps_between_places_are_compared_if_they_have_a_weight(tmp_path):
    """With the weight doubled the term doubles, and the weights move another way than without it."""
    losses, moved = {}, {}
    for weight in (0.0, 1.0, 2.0):
        stage = stage_of(tmp_path / str(weight), gradient_weight=weight)
        losses[weight] = stage.step(large_pictures_at(0), 0)
        moved[weight] = weights_of(stage.vqgan.decoder)
    assert "gradient" not in losses[0.0]
    assert losses[2.0]["gradient"].item() == pytest.approx(2 * losses[1.0]["gradient"].item(), rel=1e-4)
    assert any(not moved[0.0][name].equal(moved[1.0][name]) for name in moved[0.0])


def test_without_watched_pictures_nothing_is_drawn_or_compared(tmp_path):
    training = decoder_training(options(tmp_path, steps=2))
    train_decoder(training, trained_vqgan(), pictures_at, pictures_at(99)[:0], perceptual=None)
    assert "validation_reconstruction" not in metrics_of(tmp_path)[2]
    assert not list(tmp_path.glob("reconstructions-*.png"))


def test_by_default_the_decoder_has_the_papers_blocks_and_the_weights_of_its_losses(tmp_path):
    defaults = DecoderTraining(options(tmp_path))
    assert (defaults.decoder_blocks, defaults.perceptual_weight, defaults.adversarial_weight) == (4, 0.05, 0.1)
    assert defaults.gradient_weight == 0


def test_a_run_does_not_go_on_with_another_vqgan(tmp_path):
    run_decoder(options(tmp_path, steps=2))
    other = trained_vqgan()
    with torch.no_grad():
        other.quantizer.codebook.add_(1)
    with pytest.raises(ValueError, match=r"was begun with the VQGAN \w+, and this one is \w+; give another folder$"):
        train_decoder(decoder_training(options(tmp_path)), other, pictures_at, pictures_at(99)[:2], perceptual=None)
