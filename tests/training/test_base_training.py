"""Stage 2: the base transformer learns which picture a caption means."""

import dataclasses
import math
import re

import pytest
import torch

from muse.checkpoint import save_module
from muse.data.batches import TokenBatch
from muse.pipeline import guided_predict
from muse.sampling import SamplingOptions, decode
from muse.training.base import BaseStage, BaseTraining, train_base
from muse.training.masked import draw_own_share, mixed
from muse.training.optimizers import parameter_groups
from tests.training.tiny_runs import (
    BASE_CONFIG,
    CAPTIONS,
    FINGERPRINT,
    base_training,
    grids,
    options,
    text_encoder,
    tokens_at,
)

pytestmark = pytest.mark.xdist_group("base training")  # one worker sets up once what they share

CONFIG = dataclasses.replace(BASE_CONFIG, num_codes=32, dim=32, mlp_dim=64)


def stage_of(folder, config=CONFIG, steps=100, rate=3e-3, **changes):
    training = BaseTraining(engine=options(folder, steps=steps, learning_rate=rate), model=config, **changes)
    return BaseStage(training, text_encoder())


def batch(num_copies=1, config=CONFIG):
    return TokenBatch(grids(config).repeat(num_copies, 1), list(CAPTIONS) * num_copies)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory):
    stage = stage_of(tmp_path_factory.mktemp("overfitted"), steps=250)
    losses = []
    for step in range(250):
        stage.engine.step = step
        losses.append(stage.step(batch(4), step)["loss"].item())
    return stage, losses


def test_a_run_that_goes_on_with_another_text_encoder_says_so(tmp_path, caplog):
    """Of equal width and with as many words, so that no shape tells."""
    for steps, flip in ((2, False), (4, False), (6, True)):
        encoder = text_encoder()
        table = next(encoder.parameters())
        table.data = table.flip(0) if flip else table
        train_base(base_training(options(tmp_path, steps=steps)), encoder, FINGERPRINT, tokens_at, [tokens_at(99)])
        said = [record.getMessage() for record in caplog.records if "goes on with" in record.getMessage()]
        assert len(said) == flip
    assert re.search(
        r"was begun with text-encoder \w{12} and goes on with \w{12}: it has learned from the stat", said[0]
    )


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_a_model_that_has_learnt_four_captions_draws_each_of_their_pictures(overfitted, guidance):
    """From captions to tokens with the functions that `Muse.generate` calls: the text conditions."""
    stage, _ = overfitted
    base = stage.network.eval()
    greedy = SamplingOptions(steps=5, guidance=guidance, temperature=0.0, choice_noise=0.0)
    for order in ([0, 1, 2, 3], [3, 0, 2, 1]):
        with torch.no_grad():
            text, is_word = stage.text_encoder([CAPTIONS[i] for i in order])
            predict = guided_predict(base, text, is_word, 4, greedy)
            start = torch.full((4, 9), CONFIG.mask_id)
            tokens = decode(start, predict, greedy, seeded(), CONFIG.mask_id)
        assert tokens.equal(grids(CONFIG)[order])


def test_the_loss_starts_near_the_logarithm_of_the_number_of_codes_and_falls(overfitted):
    _, losses = overfitted
    assert losses[0] == pytest.approx(math.log(CONFIG.num_codes), abs=0.1)
    # Without a caption all four are possible, so a few captions dropped leave some loss.
    assert sum(losses[-20:]) / 20 < 0.4


def test_the_average_follows_and_is_validated(overfitted):
    stage, _ = overfitted
    again = stage.validate([batch(4)])
    assert again == stage.validate([batch(4)])
    assert not stage.averaged().training
    assert not any(p.requires_grad and p.grad is not None for p in stage.averaged().parameters())


def test_one_caption_in_ten_is_dropped_over_many_batches(tmp_path):
    """Diffusers' aMUSEd training: with a data set, the drop is a no-op; without one it is inverted.
    Muse-maskgit-pytorch: drops 50%."""
    stage = stage_of(tmp_path)
    assert stage.training.caption_drop == 0.1
    num, many = 60, batch(8)
    with torch.no_grad():
        for step in range(num):
            stage.loss(stage.network, many, seeded(step))
    seen = stage.text_encoder.tokenizer.num_prompts / (num * len(many.captions))
    assert abs(seen - 0.9) < 4 * math.sqrt(0.1 * 0.9 / (num * len(many.captions)))


def wholes_of_unclear_texts(stage):
    """Of pictures drawn of texts halfway between two captions, how many are one of the two, and all its tokens."""
    base, num = stage.network.eval(), len(CAPTIONS)
    with torch.no_grad():
        text, is_word = stage.text_encoder(list(CAPTIONS))
        pairs = torch.combinations(torch.arange(num)).repeat(8, 1)
        first, second = pairs.T
        unclear, is_both = (text[first] + text[second]) / 2, is_word[first] & is_word[second]
        options = SamplingOptions(steps=9, guidance=0.0, choice_noise=1.0)
        predict = guided_predict(base, unclear, is_both, len(pairs), options)
        start = torch.full((len(pairs), 9), CONFIG.mask_id)
        tokens = decode(start, predict, options, seeded(), CONFIG.mask_id)
    wanted = grids(CONFIG)[pairs]
    return (tokens[:, None] == wanted).all(-1).any(1).float().mean().item()


def test_mixed_captions_teach_to_draw_one_thing_of_what_an_unclear_text_may_mean(overfitted, tmp_path):
    stage = stage_of(tmp_path, steps=250, caption_mix=0.5)
    for step in range(250):
        stage.engine.step = step
        stage.step(batch(4), step)
    assert wholes_of_unclear_texts(stage) > wholes_of_unclear_texts(overfitted[0]) + 0.2


@pytest.mark.parametrize("name", ["caption_drop", "caption_mix"])
@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_of_captions_that_is_none_is_refused(tmp_path, name, share):
    with pytest.raises(ValueError, match=rf"^{name} is .*; give a share from 0 to 1$"):
        stage_of(tmp_path, **{name: share})


def test_a_mixed_caption_is_as_long_as_the_shorter_one_and_another_stays_as_it_is():
    text = torch.tensor([[[1.0], [2.0], [3.0]], [[10.0], [20.0], [0.0]], [[100.0], [200.0], [300.0]]])
    is_word = torch.tensor([[True] * 3, [True, True, False], [True] * 3])
    states, words = mixed(text, is_word, torch.tensor([0.75, 1.0, 1.0]))
    assert states[0, :2, 0].tolist() == [3.25, 6.5]
    assert words.tolist() == [[True, True, False], [True, True, False], [True] * 3]
    assert states[1:].equal(text[1:])


def test_a_mixed_caption_is_the_pictures_with_the_probability_of_its_share():
    shares = draw_own_share(40_000, 0.25, seeded())
    is_mixed = shares < 1
    assert abs(is_mixed.float().mean() - 0.25) < 0.01
    # Where two captions have 0.3 and 0.7 in a batch, the first is the one with 0.3 in three of ten cases.
    near = [((shares - share).abs() < 0.05).sum().item() for share in (0.3, 0.7)]
    assert abs(near[0] / sum(near) - 0.3) < 0.03


def test_a_validation_mixes_no_captions(tmp_path):
    plain, mixing = stage_of(tmp_path / "plain"), stage_of(tmp_path / "mixing", caption_mix=1.0)
    assert mixing.validate([batch(4)]) == plain.validate([batch(4)])


@torch.no_grad()
def test_in_a_validation_each_hidden_token_counts_as_much_as_any_other(tmp_path):
    stage = stage_of(tmp_path)
    for parameter in stage.averaged().parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded()))
    parts = [batch()[:1], batch(4)[1:]]
    losses = [stage.loss(stage.averaged(), part, seeded(i)).item() for i, part in enumerate(parts)]
    counts = [stage.draw(len(part), seeded(i)).num_hidden for i, part in enumerate(parts)]
    mean = sum(loss * num for loss, num in zip(losses, counts, strict=True)) / sum(counts)
    assert abs(mean - sum(losses) / 2) > 1e-2, "the test could not fail"
    assert stage.validate(parts) == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize(("caption_drop", "matters"), [(0.0, True), (1.0, False)])
def test_the_captions_matter_unless_they_are_dropped(tmp_path, caption_drop, matters):
    stage = stage_of(tmp_path, caption_drop=caption_drop)
    for parameter in stage.network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=seeded())
    swapped = TokenBatch(batch().tokens, list(CAPTIONS[::-1]))
    num_read = stage.text_encoder.tokenizer.num_prompts
    with torch.no_grad():
        losses = [stage.loss(stage.network, each, seeded()) for each in (batch(), swapped)]
    assert losses[0].equal(losses[1]) != matters
    assert (stage.text_encoder.tokenizer.num_prompts > num_read) == matters


def test_each_picture_is_masked_by_its_own_ratio(tmp_path):
    """1d-tokenizer: one sample's mask count is used for all."""
    stage, seen = stage_of(tmp_path, caption_drop=1.0), []
    stage.network.register_forward_pre_hook(lambda module, given: seen.append((given[0] == CONFIG.mask_id).sum(1)))
    with torch.no_grad():
        stage.loss(stage.network, batch(8), seeded())
    assert len(seen[0].unique()) > 3
    assert seen[0].min() >= 1


def test_the_draws_of_a_step_come_from_its_seed_alone(tmp_path):
    """Halton-MaskGIT: noise from a global generator."""
    stage, losses = stage_of(tmp_path, caption_mix=0.5), []
    for parameter in stage.network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=seeded())
    for world in range(6):
        torch.manual_seed(world)
        with torch.no_grad():
            losses.append(stage.loss_of(stage.network.eval(), batch(), stage.draw(len(batch()), seeded(3))))
    assert len(set(map(float, losses))) == 1


def test_each_step_masks_otherwise(tmp_path):
    stage, seen = stage_of(tmp_path), []
    stage.network.register_forward_pre_hook(lambda module, given: seen.append(given[0].clone()))
    for step in range(3):
        stage.step(batch(), step)
    assert not seen[0].equal(seen[1])
    assert not seen[1].equal(seen[2])


def test_label_smoothing_changes_the_loss(tmp_path):
    losses = []
    for smoothing in (0.0, 0.2):
        stage = stage_of(tmp_path, label_smoothing=smoothing)
        with torch.no_grad():
            dict(stage.network.named_parameters())["head.3.bias"].add_(torch.arange(32.0))  # an opinion
            losses.append(stage.loss(stage.network, batch(), seeded()).item())
    assert abs(losses[0] - losses[1]) > 1e-3


def test_the_text_encoder_is_not_trained(tmp_path):
    stage = stage_of(tmp_path)
    before = stage.text_encoder(CAPTIONS)[0]
    stage.step(batch(), 0)
    assert stage.text_encoder(CAPTIONS)[0].equal(before)
    assert not any("text_encoder" in name for name in stage.state())


def test_matrices_decay_and_what_scales_or_shifts_does_not(tmp_path):
    base = stage_of(tmp_path).network
    decaying, others = parameter_groups(base, 0.045)
    assert isinstance(decaying["params"], list)
    assert isinstance(others["params"], list)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.045, 0.0)
    names = {id(parameter): name for name, parameter in base.named_parameters()}
    groups = [{names[id(p)] for p in parameters} for parameters in (decaying["params"], others["params"])]
    assert groups[0] | groups[1] == set(names.values())
    assert not groups[0] & groups[1]
    assert all("norm" in name or name.endswith("bias") or name == "head.2.weight" for name in groups[1])
    assert not any("norm" in name or name.endswith("bias") for name in groups[0])


def test_weight_decay_reaches_the_optimizer_and_the_paper_set_its_default(tmp_path):
    stage = stage_of(tmp_path)
    assert [group["weight_decay"] for group in stage.optimizer.param_groups] == [0.045, 0.0]
    assert [group["betas"] for group in stage.optimizer.param_groups] == [(0.9, 0.96)] * 2
    other = stage_of(tmp_path, weight_decay=0.3)
    assert other.optimizer.param_groups[0]["weight_decay"] == 0.3


def test_a_caption_that_is_too_long_is_cut_and_ends_no_run_and_that_is_said_once(tmp_path, caplog):
    stage = stage_of(tmp_path)
    most = stage.text_encoder.max_words
    long = TokenBatch(batch().tokens[:1], ["red " * 2 * most])
    states, is_word = stage.read(long)
    assert is_word.sum() == states.shape[1] == most
    assert stage.loss(stage.network, long, seeded()).isfinite()
    (said,) = (record.message for record in caplog.records)
    assert said.startswith("captions are cut to what the text encoder reads; one of them begins 'red red red")


def test_a_batch_moves_to_a_device_with_its_captions():
    moved = tokens_at(0).to("meta")
    assert moved.tokens.device.type == "meta"
    assert moved.captions == tokens_at(0).captions


def test_a_run_can_start_from_a_trained_transformer(tmp_path, overfitted):
    trained, _ = overfitted
    save_module(trained.network, tmp_path / "trained")
    stage = stage_of(tmp_path / "run", start_from=tmp_path / "trained")
    for name, weight in trained.network.state_dict().items():
        assert stage.network.state_dict()[name].equal(weight)
        assert stage.averaged().state_dict()[name].equal(weight)


def test_a_run_can_start_from_a_transformer_of_another_grid(tmp_path, overfitted):
    trained, _ = overfitted
    save_module(trained.network, tmp_path / "trained")
    larger = dataclasses.replace(CONFIG, height=2 * CONFIG.height, width=2 * CONFIG.width)
    found = stage_of(tmp_path / "run", config=larger, start_from=tmp_path / "trained").network.state_dict()
    for name, weight in trained.network.state_dict().items():
        if not name.startswith("positions."):
            assert found[name].equal(weight), name
            continue
        assert len(found[name]) == 2 * len(weight)
        # Two rows of the large grid lie where one of the small one lay, a quarter of it to either side of its middle.
        assert torch.allclose(found[name][2::2], 0.75 * weight[1:] + 0.25 * weight[:-1], atol=1e-6)
        assert torch.allclose(found[name][1:-1:2], 0.75 * weight[:-1] + 0.25 * weight[1:], atol=1e-6)


def test_a_run_refuses_to_start_from_another_shape(tmp_path, overfitted):
    trained, _ = overfitted
    save_module(trained.network, tmp_path / "trained")
    with pytest.raises(ValueError, match="start from one of its own shape"):
        stage_of(tmp_path / "run", config=dataclasses.replace(CONFIG, depth=1), start_from=tmp_path / "trained")


def test_only_hidden_tokens_are_learnt(tmp_path):
    """MaskGIT-pytorch: an inverted mask, and a loss on all tokens."""
    stage, seen = stage_of(tmp_path, caption_drop=0.0), []
    stage.network.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        loss = stage.loss(stage.network, batch(), seeded())
        logits = stage.network(seen[0], stage.network.read(*stage.text_encoder(CAPTIONS)))
    tokens, is_hidden = batch().tokens, seen[0] == CONFIG.mask_id
    assert is_hidden.any(1).all()
    assert seen[0][~is_hidden].equal(tokens[~is_hidden])
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits[is_hidden], tokens[is_hidden]))
