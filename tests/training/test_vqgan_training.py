"""Stage 1: what each loss does to the VQGAN, and from which step."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from muse.checkpoint import CheckpointError, save_module
from muse.training.perceptual import PerceptualLoss, distance_of_directions
from muse.training.pictures import reconstructions
from muse.training.vqgan import VQGANStage, VQGANTraining, train_vqgan
from tests.training.tiny_runs import options, pictures_at, vqgan_training

NEVER = 10**6


def stage_of(folder, perceptual=None, **changes):
    return VQGANStage(vqgan_training(options(folder, steps=100), **changes), perceptual)


def perceptual_loss():
    torch.manual_seed(0)
    return PerceptualLoss()


def weights_of(module):
    return {name: weight.detach().clone() for name, weight in module.state_dict().items()}


def is_same(module, before):
    return all(weight.equal(before[name]) for name, weight in module.state_dict().items())


def test_the_reconstruction_gets_better(tmp_path):
    stage = stage_of(tmp_path, quantize_from=10, discriminator_from=NEVER, adversarial_from=NEVER)
    losses = [stage.step(pictures_at(step % 2), step)["reconstruction"].item() for step in range(60)]
    assert all(map(math.isfinite, losses))
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
    # With codes, not only as a plain autoencoder.
    assert sum(losses[-4:]) < 0.8 * sum(losses[10:14])


def test_no_codes_are_used_before_their_step(tmp_path):
    stage = stage_of(tmp_path, quantize_from=3, discriminator_from=NEVER, adversarial_from=NEVER)
    codes = stage.vqgan.quantizer.codebook.clone()
    for step in range(3):
        assert set(stage.step(pictures_at(step), step)) == {"reconstruction"}
        assert stage.vqgan.quantizer.codebook.equal(codes)
        assert not stage.tracker.counts.any()
    metrics = stage.step(pictures_at(3), 3)
    assert "commitment" in metrics
    assert not stage.vqgan.quantizer.codebook.equal(codes)


def test_the_seed_and_the_step_alone_draw_where_dead_codes_go(tmp_path):
    ends = []
    for i, (global_seed, step) in enumerate(((1, 7), (2, 7), (1, 8))):
        stage = stage_of(tmp_path / str(i), quantize_from=0, discriminator_from=NEVER, adversarial_from=NEVER)
        torch.manual_seed(global_seed)
        assert stage.step(pictures_at(0), step)["codes_revived"] > 0
        ends.append(stage.vqgan.quantizer.codebook.clone())
    assert ends[0].equal(ends[1])
    assert not ends[0].equal(ends[2])


def test_codebook_usage_and_perplexity_are_logged(tmp_path):
    stage = stage_of(tmp_path)
    metrics = [stage.step(pictures_at(step), step) for step in range(6)][-1]
    assert {"codebook_perplexity", "codebook_usage", "codes_revived", "latent_spread"} <= set(metrics)
    assert 1 <= metrics["codebook_perplexity"] <= 16
    assert 0 < metrics["codebook_usage"] <= 1
    assert not any(value.requires_grad for value in metrics.values())


def test_the_discriminator_is_not_trained_before_its_step(tmp_path):
    """Taming-transformers: the adversarial loss is switched on before the discriminator can judge."""
    stage = stage_of(tmp_path, discriminator_from=2, adversarial_from=4)
    before = weights_of(stage.discriminator)
    for step in range(2):
        assert "discriminator" not in stage.step(pictures_at(step), step)
        assert is_same(stage.discriminator, before)
    assert "discriminator" in stage.step(pictures_at(2), 2)
    assert not is_same(stage.discriminator, before)


def test_the_discriminator_is_not_felt_before_its_step(tmp_path):
    """Taming-transformers: the adversarial loss is switched on before the discriminator can judge."""
    stage, other = (stage_of(tmp_path, discriminator_from=0, adversarial_from=3) for _ in range(2))
    for parameter in other.discriminator.parameters():
        parameter.data += 0.3
    for step in range(4):
        metrics = []
        for each in (stage, other):
            torch.manual_seed(step)
            metrics.append(each.step(pictures_at(step), step))
        assert ["adversarial" in each for each in metrics] == [step >= 3] * 2
        assert is_same(stage.vqgan, weights_of(other.vqgan)) == (step < 3)


def test_an_adversarial_loss_before_its_discriminator_is_refused_with_one_sentence(tmp_path):
    sentence = r"^the adversarial loss starts at step 5, before its discriminator learns at 6; start it later$"
    with pytest.raises(ValueError, match=sentence):
        vqgan_training(options(tmp_path), discriminator_from=6, adversarial_from=5)


@pytest.mark.parametrize(("changes", "is_told"), [({}, True), ({"adversarial_weight": 0.0}, False)])
def test_a_run_that_ends_before_its_adversarial_loss_says_so(tmp_path, changes, is_told, caplog):
    training = vqgan_training(options(tmp_path, steps=2), adversarial_from=2, **changes)
    train_vqgan(training, pictures_at, pictures_at(9)[:2], None)
    said = [record.getMessage() for record in caplog.records if "adversarial" in record.getMessage()]
    start = "the adversarial loss would start at step 2, and the run has 2: it has none; give an earlier --adversarial"
    assert [each.startswith(start) for each in said] == [True] * is_told


@pytest.mark.parametrize("start", [6, 400])
def test_a_run_that_ends_before_it_has_codes_is_refused_with_one_sentence(tmp_path, start):
    sentence = rf"^quantize_from is {start} and engine.steps is 6, .*; give a quantize_from below 6, or more steps$"
    with pytest.raises(ValueError, match=sentence):
        vqgan_training(options(tmp_path, steps=6), quantize_from=start)
    assert vqgan_training(options(tmp_path, steps=6), quantize_from=5).quantize_from == 5


def test_by_default_the_discriminator_has_time_to_learn_first(tmp_path):
    defaults = VQGANTraining(options(tmp_path, steps=1000))
    assert defaults.adversarial_from - defaults.discriminator_from >= 1000


def test_the_weights_of_the_losses_are_those_of_the_paper(tmp_path):
    defaults = VQGANTraining(options(tmp_path, steps=1000))
    assert (defaults.perceptual_weight, defaults.adversarial_weight) == (0.05, 0.1)


@pytest.mark.parametrize("term", ["perceptual", "adversarial", "commitment"])
def test_each_weight_scales_its_own_loss(tmp_path, term):
    """Muse-maskgit-pytorch: options that no one had run."""
    losses = []
    for factor in (1.0, 3.0):
        stage = stage_of(
            tmp_path,
            perceptual_loss(),
            quantize_from=0,
            discriminator_from=0,
            adversarial_from=0,
            **{f"{term}_weight": 0.1 * factor},
        )
        torch.manual_seed(1)
        losses.append(stage.step(pictures(0), 0))
    assert set(losses[0]) >= {"reconstruction", "perceptual", "adversarial", "commitment"}
    torch.testing.assert_close(losses[1][term], 3 * losses[0][term])
    torch.testing.assert_close(losses[1]["reconstruction"], losses[0]["reconstruction"])


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("term", ["perceptual", "adversarial", "gradient", "commitment"])
def test_a_weight_that_would_train_away_from_its_loss_is_refused_with_one_sentence(tmp_path, term, weight):
    with pytest.raises(ValueError, match=rf"^{term}_weight is {weight}; give a finite number of at least 0$"):
        vqgan_training(options(tmp_path), **{f"{term}_weight": weight})


def test_the_encoder_learns_through_the_codes(tmp_path):
    stage = stage_of(tmp_path, quantize_from=0, commitment_weight=0.0, discriminator_from=NEVER, adversarial_from=NEVER)
    stage.step(pictures_at(0), 0)
    assert all(p.grad is not None and p.grad.any() for p in stage.vqgan.encoder.parameters())
    assert stage.vqgan.quantizer.codebook.grad is None  # the tracker moves it, no gradient


def test_the_average_has_the_present_codebook(tmp_path):
    stage = stage_of(tmp_path)
    for step in range(4):
        stage.step(pictures_at(step), step)
    averaged = stage.averaged()
    assert not averaged.training
    assert averaged.quantizer.codebook.equal(stage.vqgan.quantizer.codebook)
    assert not averaged.encoder.conv_in.weight.equal(stage.vqgan.encoder.conv_in.weight)


def test_reconstructions_show_each_picture_above_what_became_of_it(tmp_path):
    given, decoded = pictures_at(0)[:3], pictures_at(1)[:3]
    sheet = reconstructions(given, decoded)
    assert sheet.width > sheet.height
    for picture, place in ((given[0], (4, 4)), (decoded[0], (4, sheet.height // 2))):
        red, green, blue = (picture[:, 0, 0] * 255).round().int().tolist()
        assert sheet.getpixel(place) == (red, green, blue)


# -- the perceptual loss ------------------------------------------------------------------------------------------


def pictures(seed, side=48):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_the_perceptual_loss_is_zero_for_equal_pictures_and_positive_for_others():
    loss = perceptual_loss()
    assert loss(pictures(0), pictures(0)).abs() < 1e-5
    assert loss(pictures(0), pictures(1)) > 0.01
    torch.testing.assert_close(loss(pictures(0), pictures(1)), loss(pictures(1), pictures(0)))


def test_the_gradient_of_the_distance_is_that_of_its_formula():
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, 5, 3, 3, generator=generator) for _ in range(2)]
    weights = torch.randn(2, 3, 3, generator=generator)
    ours, plain = ([each.clone().requires_grad_() for each in pairs] for _ in range(2))
    (distance_of_directions(*ours) * weights).sum().backward()
    ((F.normalize(plain[0], dim=1) - F.normalize(plain[1], dim=1)).square().sum(1) * weights).sum().backward()
    for mine, wanted in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, wanted.grad)


def test_it_compares_directions_and_takes_a_place_without_features_as_it_is():
    features, others = torch.randn(2, 5, 3, 3), torch.randn(2, 5, 3, 3)
    features[0, :, 0, 0] = 0
    features[1, :, 1, 1] = others[1, :, 1, 1] = 0
    wanted = (F.normalize(features, dim=1) - F.normalize(others, dim=1)).square().sum(1)
    torch.testing.assert_close(distance_of_directions(features, others), wanted)


def test_the_perceptual_loss_is_frozen_and_differentiable():
    loss, decoded = perceptual_loss(), pictures(0).requires_grad_()
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    loss(decoded, pictures(1)).backward()
    assert decoded.grad is not None
    assert (decoded.grad.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_the_perceptual_loss_grows_with_the_damage():
    loss, picture = perceptual_loss(), pictures(0)
    noise = pictures(1) - 0.5
    distances = [loss((picture + share * noise).clamp(0, 1), picture).item() for share in (0.05, 0.2, 0.8)]
    assert distances == sorted(distances)


def test_the_perceptual_loss_is_loaded_strictly(tmp_path):
    loss = perceptual_loss()
    save_file(loss.state_dict(), tmp_path / "model.safetensors")
    loaded = PerceptualLoss.from_file(tmp_path / "model.safetensors")
    torch.testing.assert_close(loaded(pictures(0), pictures(1)), loss(pictures(0), pictures(1)))
    partial = {name: w for name, w in loss.state_dict().items() if not name.startswith("fires.7")}
    save_file(partial, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"holds the weights of another network than SqueezeNet 1.1: fires\.7"):
        PerceptualLoss.from_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="holds no weights"):
        PerceptualLoss.from_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["nowhere.safetensors", "nowhere.pth"])
def test_perceptual_weights_that_are_not_there_are_missed_as_such(tmp_path, name):
    sentence = rf"^there is no file {tmp_path / name}; give the one that holds the weights$"
    with pytest.raises(CheckpointError, match=sentence):
        PerceptualLoss.from_file(tmp_path / name)


def test_the_perceptual_loss_has_the_layout_of_squeezenet():
    assert sum(parameter.numel() for parameter in PerceptualLoss().parameters()) == 722_496
    sizes = [tuple(stage.shape[1:]) for stage in perceptual_loss().features(pictures(0, side=64))]
    assert sizes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_a_run_can_start_from_the_decoder_of_another(tmp_path):
    trained = stage_of(tmp_path / "first").vqgan
    torch.nn.init.normal_(trained.decoder.conv_in.weight)
    save_module(trained, tmp_path / "trained")
    stage = stage_of(tmp_path / "second", decoder_from=tmp_path / "trained")
    assert is_same(stage.vqgan.decoder, weights_of(trained.decoder))
    assert is_same(stage.averaged().decoder, weights_of(trained.decoder))


def test_a_decoder_of_another_shape_is_refused_with_one_sentence(tmp_path):
    trained = stage_of(tmp_path / "first").vqgan
    save_module(trained, tmp_path / "trained")
    other = dataclasses.replace(trained.config, decoder_blocks=trained.config.decoder_blocks + 1)
    training = vqgan_training(options(tmp_path / "second"), decoder_from=tmp_path / "trained")
    training = dataclasses.replace(training, model=other)
    with pytest.raises(ValueError, match="has another shape than the one to be trained; give a VQGAN with equal"):
        VQGANStage(training, None)
