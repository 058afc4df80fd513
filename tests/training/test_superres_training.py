"""Stage 3: the super-resolution transformer learns which large grid a small one and a caption mean."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from muse.checkpoint import load_module, save_module
from muse.data.batches import TokenBatch
from muse.models.superres import SuperResConfig, SuperResTransformer, Upsampling
from muse.pipeline import superres_predict
from muse.sampling import SamplingOptions, decode
from muse.training.superres import SuperResStage, SuperResTraining, draw_corruption, train_superres
from tests.training.test_engine import state_of
from tests.training.tiny_runs import (
    CAPTIONS,
    FINGERPRINT,
    SUPERRES_CONFIG,
    grids,
    large_grids,
    options,
    pairs_at,
    superres_training,
    text_encoder,
)

pytestmark = pytest.mark.xdist_group("super-resolution training")  # one worker sets up once what they share

CONFIG = dataclasses.replace(SUPERRES_CONFIG, dim=32, mlp_dim=64)


def stage_of(folder, config=CONFIG, steps=150, rate=3e-3, **changes):
    training = SuperResTraining(engine=options(folder, steps=steps, learning_rate=rate), model=config, **changes)
    return SuperResStage(training, text_encoder())


def batch(num_copies=1):
    low, high = (each.repeat(num_copies, 1) for each in (grids(), large_grids()))
    return TokenBatch(low, list(CAPTIONS) * num_copies, high)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def spread(network):
    """Weights larger than at the start, so that everything has an effect that shows."""
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=seeded())
    return network


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory):
    """Trained with one caption for all, so that only the low-resolution tokens tell which grid is meant."""
    stage = stage_of(tmp_path_factory.mktemp("overfitted"))
    losses = []
    for step in range(150):
        stage.engine.step = step
        many = dataclasses.replace(batch(4), captions=[CAPTIONS[0]] * 16)
        losses.append(stage.step(many, step)["loss"].item())
    return stage, losses


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_a_model_that_has_learnt_four_pictures_enlarges_each_from_its_low_resolution_tokens_alone(overfitted, guidance):
    """Muse-maskgit-pytorch: trained unconditioned. With the functions that `Muse.generate` calls."""
    stage, _ = overfitted
    superres = stage.network.eval()
    greedy = SamplingOptions(steps=5, guidance=guidance, temperature=0.0, choice_noise=0.0)
    for order in ([0, 1, 2, 3], [3, 0, 2, 1]):
        with torch.no_grad():
            text, is_word = stage.text_encoder([CAPTIONS[0]] * 4)
            predict = superres_predict(superres, grids()[order], text, is_word, greedy)
            start = torch.full((4, 36), CONFIG.mask_id)
            tokens = decode(start, predict, greedy, seeded(), CONFIG.mask_id)
        assert (tokens == large_grids()[order]).float().mean() > 0.9


def test_the_loss_starts_near_the_logarithm_of_the_number_of_codes_and_falls(overfitted):
    _, losses = overfitted
    assert losses[0] == pytest.approx(math.log(CONFIG.num_codes), abs=0.1)
    assert sum(losses[-20:]) / 20 < 0.3


def test_the_average_follows_and_is_validated(overfitted):
    stage, _ = overfitted
    assert stage.validate([batch(4)]) == stage.validate([batch(4)])
    assert not stage.averaged().training


def test_shuffling_the_low_resolution_tokens_changes_the_loss_in_training(tmp_path):
    """Muse-maskgit-pytorch: the low-res tokens are computed and never used."""
    stage = stage_of(tmp_path)
    spread(stage.network)
    shuffled = dataclasses.replace(batch(), tokens=batch().tokens[:, torch.randperm(9, generator=seeded())])
    with torch.no_grad():
        losses = [stage.loss(stage.network, each, seeded()) for each in (batch(), shuffled)]
    assert not losses[0].allclose(losses[1], atol=1e-3)


@pytest.mark.parametrize(("caption_drop", "matters"), [(0.0, True), (1.0, False)])
def test_the_captions_matter_unless_they_are_dropped_and_the_low_resolution_tokens_always_do(
    tmp_path, caption_drop, matters
):
    stage = stage_of(tmp_path, caption_drop=caption_drop)
    spread(stage.network)
    swapped = dataclasses.replace(batch(), captions=list(CAPTIONS[::-1]))
    other = dataclasses.replace(batch(), tokens=batch().tokens.flip(0))
    with torch.no_grad():
        losses = [stage.loss(stage.network, each, seeded()) for each in (batch(), swapped, other)]
    assert losses[0].equal(losses[1]) != matters
    assert not losses[0].equal(losses[2])


def test_one_caption_in_ten_is_dropped_over_many_batches(tmp_path):
    stage, num, many = stage_of(tmp_path), 40, batch(8)
    with torch.no_grad():
        for step in range(num):
            stage.loss(stage.network, many, seeded(step))
    seen = stage.text_encoder.tokenizer.num_prompts / (num * len(many.captions))
    assert abs(seen - 0.9) < 4 * math.sqrt(0.1 * 0.9 / (num * len(many.captions)))


def test_only_high_resolution_tokens_are_hidden_and_only_hidden_ones_are_learnt(tmp_path):
    """MaskGIT-pytorch: the loss is on all tokens."""
    stage, seen = stage_of(tmp_path, low_corruption=0.0, caption_drop=0.0), []
    stage.network.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        loss = stage.loss(stage.network, batch(), seeded())
        logits = stage.network(seen[0], stage.network.read(grids(), *stage.text_encoder(CAPTIONS)))
    tokens, is_hidden = batch().high_tokens, seen[0] == CONFIG.mask_id
    assert is_hidden.any(1).all()
    assert seen[0][~is_hidden].equal(tokens[~is_hidden])
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[is_hidden], tokens[is_hidden]))


@pytest.mark.parametrize(("recompute", "times"), [(False, 1), (True, 2)])
def test_layers_over_both_grids_are_computed_again_where_memory_is_to_be_saved(tmp_path, recompute, times):
    stage = SuperResStage(superres_training(options(tmp_path, recompute=recompute)), text_encoder())
    seen = []
    for name in ("low_layers", "layers"):
        norm = getattr(stage.network, name)[0].norm_self
        norm.register_forward_hook(lambda *_, name=name: seen.append(name))
    stage.step(batch(), 0)
    assert sorted(seen) == ["layers"] * times + ["low_layers"] * times


# -- mistakes of the base -----------------------------------------------------------------------------------------


def corrupted(tokens, mean_share, num_codes, generator):
    is_wrong, drawn = draw_corruption(tuple(tokens.shape), mean_share, num_codes, generator)
    return torch.where(is_wrong, drawn, tokens)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_the_mean_share_of_the_low_resolution_tokens_is_drawn_anew_a_share_of_its_own_in_each_picture(share):
    many, num_codes = 4000, 1000
    tokens = torch.randint(num_codes, (many, 64), generator=seeded())
    wrong = (corrupted(tokens, share, num_codes, seeded(1)) != tokens).float().mean(1)
    # One in a thousand comes out as it was; uniform from 0 to twice the mean has the variance share^2 / 3.
    error = math.sqrt((share**2 / 3 + share / 64) / many)
    assert abs(wrong.mean() - share * 0.999) < 4 * error
    assert wrong.std() > 0.9 * share / math.sqrt(3)
    assert wrong.max() < 2 * share + 4 * math.sqrt(2 * share / 64) + 0.1


def test_what_is_drawn_anew_is_any_code_and_never_the_mask_id():
    drawn = corrupted(torch.zeros(500, 64, dtype=torch.long), 0.5, 8, seeded())
    counts = torch.bincount(drawn[drawn > 0], minlength=8)
    assert len(counts) == 8
    assert counts[1:].min() > 0.9 * counts[1:].max() - 100


def test_without_corruption_the_low_resolution_tokens_are_those_of_the_picture():
    tokens = grids()
    assert corrupted(tokens, 0.0, 8, seeded()).equal(tokens)


def test_training_reads_low_resolution_tokens_with_mistakes_and_the_seed_alone_decides_which(tmp_path, monkeypatch):
    seen = []
    read = SuperResTransformer.read
    monkeypatch.setattr(
        SuperResTransformer, "read", lambda self, low, *text: seen.append(low) or read(self, low, *text)
    )
    stage = stage_of(tmp_path, low_corruption=0.4)
    with torch.no_grad():
        for world, seed in ((1, 3), (2, 3), (1, 4)):
            torch.manual_seed(world)
            stage.loss(stage.network, batch(4), seeded(seed))
    assert seen[0].equal(seen[1])
    assert not seen[0].equal(seen[2])
    assert 0.1 < (seen[0] != batch(4).tokens).float().mean() < 0.7


def test_training_upsamples_the_picture_of_the_tokens_with_their_mistakes(tmp_path, monkeypatch):
    """As in sampling, where picture and tokens are both what the base has drawn."""
    seen, read = [], SuperResTransformer.read

    def spy(self, low, text, is_word, upsampled):
        seen.append((low, upsampled))
        return read(self, low, text, is_word, upsampled)

    monkeypatch.setattr(SuperResTransformer, "read", spy)
    config = dataclasses.replace(CONFIG, upsampled_dim=1)
    training = SuperResTraining(engine=options(tmp_path), model=config, low_corruption=0.4)

    class OfTokens(Upsampling):
        """Latents that tell which tokens they are of."""

        def __init__(self):
            pass

        def to(self, device):
            return self

        def __call__(self, low):
            return low.float().repeat_interleave(4, 1)[..., None]

    stage = SuperResStage(training, text_encoder(), OfTokens())
    spread(stage.network)
    losses = [stage.loss(stage.network, batch(4), seeded(seed)) for seed in (3, 3)]
    losses[0].backward()
    assert losses[0].equal(losses[1])
    low, upsampled = seen[0]
    assert 0.1 < (low != batch(4).tokens).float().mean() < 0.7
    assert upsampled.equal(OfTokens()(low))
    project = stage.network.project_upsampled
    assert project is not None
    assert project.weight.grad is not None
    assert project.weight.grad.abs().amax() > 0


@pytest.mark.parametrize("share", [-0.1, 0.6])
def test_a_share_of_mistakes_that_cannot_be_is_refused_with_one_sentence(tmp_path, share):
    with pytest.raises(ValueError, match=rf"^low_corruption is {share}; give a mean share from 0 to 0.5$"):
        superres_training(options(tmp_path), low_corruption=share)


# -- runs ---------------------------------------------------------------------------------------------------------


def test_it_trains_from_a_token_cache(tmp_path):
    """Muse-maskgit-pytorch, super-res trainer: refuses pre-tokenised ids; takes only float32 as pictures."""
    for name, tokens in (("high", large_grids()), ("low", grids())):
        np.save(tmp_path / f"{name}.npy", tokens.numpy().astype(np.uint16))
    high, low = (np.load(tmp_path / f"{name}.npy") for name in ("high", "low"))

    def batch_at(step):
        rows = np.random.default_rng(step).permutation(len(CAPTIONS))
        small, large = (torch.from_numpy(each[rows].astype(np.int64)) for each in (low, high))
        return TokenBatch(small, [CAPTIONS[row] for row in rows], large)

    training = superres_training(options(tmp_path / "run", steps=3))
    folder = train_superres(training, text_encoder(), FINGERPRINT, FINGERPRINT, batch_at, [batch_at(9)])
    assert load_module(SuperResTransformer, SuperResConfig, folder).config.height == 6


def test_what_a_run_leaves_is_the_averaged_transformer_stamped_with_both_vqgans(tmp_path):
    seen = []
    training = superres_training(options(tmp_path, steps=4, save_every=2))
    folder = train_superres(
        training,
        text_encoder(),
        FINGERPRINT,
        FINGERPRINT[::-1],
        pairs_at,
        [pairs_at(99)],
        lambda superres, step: seen.append((type(superres), superres.training, step)),
    )
    superres = load_module(SuperResTransformer, SuperResConfig, folder)
    assert superres.config.vqgan_fingerprint == FINGERPRINT
    assert superres.config.vqgan_low_fingerprint == FINGERPRINT[::-1]
    average = state_of(tmp_path)["average"]
    assert all(weight.equal(average[f"module.{name}"]) for name, weight in superres.state_dict().items())
    assert seen == [(SuperResTransformer, False, 2), (SuperResTransformer, False, 4)]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["validation_loss"] < 5 for line in lines if line["step"] % 2 == 0)


def test_a_run_can_start_from_a_trained_transformer_of_the_same_shape(tmp_path, overfitted):
    trained, _ = overfitted
    save_module(trained.network, tmp_path / "trained")
    stage = stage_of(tmp_path / "run", start_from=tmp_path / "trained")
    assert all(stage.network.state_dict()[name].equal(w) for name, w in trained.network.state_dict().items())
    with pytest.raises(ValueError, match="start from one of its own shape"):
        stage_of(tmp_path / "run", config=dataclasses.replace(CONFIG, depth=1), start_from=tmp_path / "trained")


def test_a_batch_moves_to_a_device_with_both_grids():
    moved = pairs_at(0).to("meta")
    assert (moved.tokens.device.type, moved.high_tokens.device.type) == ("meta", "meta")
    assert moved.captions == pairs_at(0).captions
