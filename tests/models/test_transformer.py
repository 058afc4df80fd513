"""The base transformer: its sizes, how the text reaches it, and what it does without text."""

import dataclasses
import inspect
import math

import pytest
import torch

from muse.models.layers import CrossAttention
from muse.models.transformer import PRESETS, MaskedTransformer, TransformerConfig, drop_captions

TINY = TransformerConfig(num_codes=20, height=3, width=4, dim=16, depth=2, heads=4, mlp_dim=32, text_dim=6)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def transformer_of(config=TINY, spread=0.2):
    """Weights larger than at the start, so that everything has an effect that shows."""
    torch.manual_seed(0)
    base = MaskedTransformer(config).eval()
    for parameter in base.parameters():
        parameter.data += spread * torch.randn_like(parameter)
    return base


def tokens_of(num=4, config=TINY):
    positions = config.height * config.width
    return torch.randint(config.num_codes + 1, (num, positions), generator=seeded())


def texts_of(num=4, words=5, config=TINY, seed=1):
    """States of texts of different lengths, and which words are real."""
    states = torch.randn(num, words, config.text_dim, generator=seeded(seed))
    is_word = torch.arange(words) < torch.tensor([words - i % words for i in range(num)])[:, None]
    return states, is_word


def cross_attentions(base):
    return [module for module in base.modules() if isinstance(module, CrossAttention)]


# -- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "in_layers", "rounded"),
    [("muse-632m", 657_148_672, 629_237_760, 629e6), ("muse-3b", 3_267_745_792, 3_221_520_384, 3.2e9)],
)
def test_presets_have_the_parameters_of_the_paper(name, parameters, in_layers, rounded):
    config = PRESETS[name]
    with torch.device("meta"):
        base = MaskedTransformer(config)
    layers = sum(p.numel() for p in base.layers.parameters())
    assert sum(p.numel() for p in base.parameters()) == parameters
    assert layers == in_layers
    # 4 dim^2 each for self- and cross-attention, 8 for the MLP that is four times as wide; 3 norms without a bias.
    assert layers == config.depth * (16 * config.dim**2 + 3 * config.dim)
    assert layers == pytest.approx(rounded, rel=0.01)
    assert (config.height, config.width, config.num_codes) == (16, 16, 8192)


def test_the_layouts_of_the_presets_are_those_of_the_paper():
    sizes = {name: (config.depth, config.dim, config.mlp_dim) for name, config in PRESETS.items()}
    assert sizes == {"muse-632m": (24, 1280, 5120), "muse-3b": (48, 2048, 8192)}


OTHER = {
    "num_codes": 24,
    "height": 5,
    "width": 2,
    "dim": 32,
    "depth": 3,
    "heads": 2,
    "mlp_dim": 16,
    "text_dim": 9,
    "dropout": 0.5,
    "vqgan_fingerprint": "0123456789ab",
}


def test_the_table_of_other_values_names_every_field():
    assert set(OTHER) == {field.name for field in dataclasses.fields(TransformerConfig)}


@pytest.mark.parametrize("field", OTHER)
def test_every_field_of_the_config_runs_and_has_an_effect(field):
    config = dataclasses.replace(TINY, **{field: OTHER[field]})
    base, plain = transformer_of(config), transformer_of()
    tokens = tokens_of(2, config)
    logits = base(tokens, base.read(*texts_of(2, config=config)))
    assert logits.shape == (2, config.height * config.width, config.num_codes)
    if field == "heads":  # the same weights, divided otherwise
        base.load_state_dict(plain.state_dict(), strict=True)
        assert not base(tokens, None).allclose(plain(tokens, None), atol=1e-4)
    elif field == "dropout":
        assert not base.train()(tokens, None).allclose(base(tokens, None))
    elif field == "vqgan_fingerprint":  # a stamp; tests/test_pipeline.py sees a wrong one refused
        assert base.config.vqgan_fingerprint == OTHER[field]
    else:
        assert [w.shape for w in base.state_dict().values()] != [w.shape for w in plain.state_dict().values()]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": 3}, r"dim 16 is not a multiple of 3 heads; try 1 heads"),
        ({"dim": 200, "heads": 7}, r"dim 200 is not a multiple of 7 heads; try 2 heads"),  # 3 would not divide it
        *(
            ({name: value}, rf"{name} is {value}; give a whole number of at least 1")
            for name in ("num_codes", "height", "width", "dim", "depth", "heads", "mlp_dim", "text_dim")
            for value in (0, -1)
        ),
        ({"dropout": 1.0}, r"dropout is 1.0; give a share from 0 up to, not including, 1"),
        ({"dropout": -0.1}, r"dropout is -0.1; give a share from 0 up to, not including, 1"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused_with_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        dataclasses.replace(TINY, **changes)


# -- the text -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_text_changes_the_logits_of_its_own_sample_only():
    base, tokens, (states, is_word) = transformer_of(), tokens_of(), texts_of()
    plain = base(tokens, base.read(states, is_word))
    states[2, 0] += 1
    changed = base(tokens, base.read(states, is_word))
    moved = (plain - changed).abs().amax(dim=(1, 2))
    assert moved[2] > 1e-2
    assert moved[[0, 1, 3]].max() < 1e-5


@torch.no_grad()
def test_padding_words_never_change_the_logits():
    base, tokens, (states, is_word) = transformer_of(), tokens_of(), texts_of()
    assert not is_word.all()
    plain = base(tokens, base.read(states, is_word))
    rewritten = states.masked_fill(~is_word[..., None], 1000.0)
    torch.testing.assert_close(base(tokens, base.read(rewritten, is_word)), plain, atol=1e-5, rtol=0)
    # The same words with more padding, as beside a longer prompt.
    longer = torch.cat([states, torch.randn(4, 7, 6, generator=seeded(9))], dim=1)
    is_longer_word = torch.cat([is_word, torch.zeros(4, 7, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(base(tokens, base.read(longer, is_longer_word)), plain, atol=1e-5, rtol=0)
    # The test could fail: without the mask the padding is read.
    assert not base(tokens, base.read(rewritten, torch.ones_like(is_word))).allclose(plain, atol=1e-2)


@torch.no_grad()
def test_a_dropped_caption_is_the_same_as_no_text_at_all():
    base, tokens, (states, is_word) = transformer_of(), tokens_of(), texts_of()
    mixed = base(tokens, base.read(states[:2], is_word[:2]))
    torch.testing.assert_close(mixed[2:], base(tokens[2:], None), atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed[:2], base(tokens[:2], base.read(states[:2], is_word[:2])), atol=1e-5, rtol=0)
    assert not mixed[:2].allclose(base(tokens[:2], None), atol=1e-2)


@torch.no_grad()
def test_cross_attention_is_not_run_for_samples_without_text():
    base, tokens, (states, is_word) = transformer_of(), tokens_of(), texts_of()
    rows = []
    for cross_attention in cross_attentions(base):
        cross_attention.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    base(tokens, None)
    assert rows == []
    base(tokens, base.read(states[:3], is_word[:3]))
    assert rows == [3, 3]


@torch.no_grad()
def test_keys_and_values_read_once_give_the_logits_of_reading_each_time():
    base, (states, is_word) = transformer_of(), texts_of()
    once, reads = base.read(states, is_word), []
    for cross_attention in cross_attentions(base):
        cross_attention.key_value.register_forward_hook(lambda *_: reads.append(1))
    for seed in range(3):
        tokens = torch.randint(21, (4, 12), generator=seeded(seed))
        logits = base(tokens, once)
        assert reads == []
        assert logits.equal(base(tokens, base.read(states, is_word)))
        reads.clear()


def test_more_texts_than_grids_are_refused():
    base = transformer_of()
    with pytest.raises(ValueError, match=r"^3 texts came for 2 grids of tokens; give at most one for each$"):
        base(tokens_of(2), base.read(*texts_of(3)))


def test_nothing_but_the_tokens_and_the_text_conditions_the_network():
    """Meissonic: conditions on mask ratio x1000 in training and on the step index in sampling."""
    parameters = list(inspect.signature(MaskedTransformer.forward).parameters)
    assert parameters == [
        "self",
        "tokens",
        "text",
        "at",
        "focus",
        "merge",
    ]  # the last three: where, and of which branches


@torch.no_grad()
def test_logits_at_some_positions_are_those_of_all_at_these_positions():
    base, tokens = transformer_of(), tokens_of()
    at = torch.rand(tokens.shape, generator=seeded(5)) < 0.4
    text = base.read(*texts_of())
    torch.testing.assert_close(base(tokens, text, at), base(tokens, text)[at])


# -- the grid -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_logits_know_where_a_token_stands():
    base, tokens = transformer_of(), tokens_of(1)
    order = torch.randperm(12, generator=seeded())
    there = base(tokens[:, order], None)
    assert not there.allclose(base(tokens, None)[:, order], atol=1e-2)
    # The test could fail: without positions the order does not matter.
    for table in (base.positions.rows, base.positions.columns):
        table.zero_()
    torch.testing.assert_close(base(tokens[:, order], None), base(tokens, None)[:, order], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_position_is_the_sum_of_its_row_and_its_column():
    positions = transformer_of().positions
    assert (len(positions.rows), len(positions.columns)) == (3, 4)
    table = positions()
    for row in range(3):
        for column in range(4):
            assert table[row * 4 + column].equal(positions.rows[row] + positions.columns[column])


@torch.no_grad()
def test_every_position_sees_every_other_visible_or_hidden():
    base = transformer_of()
    tokens = torch.full((1, 12), TINY.mask_id)
    changed = tokens.clone()
    changed[0, 11] = 3
    assert ((base(tokens, None) - base(changed, None)).abs().amax(-1) > 1e-5).all()


@torch.no_grad()
def test_the_mask_id_lies_outside_the_codebook_and_no_logit_stands_for_it():
    """MaskGIT-pytorch: the mask id is inside the codebook."""
    base = transformer_of()
    assert TINY.mask_id == TINY.num_codes
    assert base.embed.num_embeddings == TINY.num_codes + 1
    assert base(torch.full((2, 12), TINY.mask_id), None).shape == (2, 12, TINY.num_codes)
    assert TransformerConfig().mask_id == 8192
    row = base.embed.weight[TINY.mask_id]
    assert not (base.embed.weight[: TINY.num_codes] == row).all(1).any()


@pytest.mark.parametrize("positions", [11, 13, 16])
def test_a_grid_of_another_size_is_refused_with_one_sentence(positions):
    sentence = rf"^{positions} tokens came; this transformer was made for a grid of 3 x 4 = 12$"
    with pytest.raises(ValueError, match=sentence):
        transformer_of()(torch.zeros(1, positions, dtype=torch.long), None)


# -- training -----------------------------------------------------------------------------------------------------


def test_gradients_reach_every_parameter():
    base = transformer_of().train()
    tokens = torch.randint(21, (8, 12), generator=seeded())
    loss = base(tokens, base.read(*texts_of(6))).log_softmax(-1)[..., 0].mean()
    loss.backward()
    assert [name for name, p in base.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_at_the_start_every_code_is_about_equally_likely():
    torch.manual_seed(0)
    base = MaskedTransformer(TINY)
    log_probs = base(tokens_of(), base.read(*texts_of())).log_softmax(-1)
    assert -log_probs.mean().item() == pytest.approx(math.log(TINY.num_codes), abs=0.05)


@torch.no_grad()
def test_what_ends_a_shortcut_starts_smaller_the_deeper_the_network():
    deep = MaskedTransformer(dataclasses.replace(TINY, dim=64, depth=12))
    last = torch.stack([cross_attention.out.weight for cross_attention in cross_attentions(deep)])
    first = torch.stack([cross_attention.query.weight for cross_attention in cross_attentions(deep)])
    assert first.std() == pytest.approx(0.02, rel=0.05)
    assert last.std() == pytest.approx(0.02 / math.sqrt(36), rel=0.05)


@torch.no_grad()
def test_dropout_acts_in_training_only():
    base, tokens = transformer_of(dataclasses.replace(TINY, dropout=0.4)), tokens_of()
    assert base(tokens, None).equal(base(tokens, None))
    base.train()
    assert not base(tokens, None).equal(base(tokens, None))


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_captions_are_dropped_with_the_given_probability(probability):
    """Diffusers' aMUSEd training: the drop test is inverted, so that p = 0.1 drops 90% of the captions.
    Muse-maskgit-pytorch: drops 50%."""
    generator, draws, num = seeded(), 500, 64
    kept = torch.tensor([drop_captions(num, probability, generator) for _ in range(draws)])
    dropped = 1 - kept.sum().item() / (draws * num)
    error = math.sqrt(probability * (1 - probability) / (draws * num))
    assert abs(dropped - probability) < 4 * error
    # Each caption by itself, not all of a batch together.
    assert kept.float().var().item() == pytest.approx(num * probability * (1 - probability), rel=0.3)


@pytest.mark.parametrize(("probability", "kept"), [(0.0, 8), (1.0, 0)])
def test_captions_are_all_kept_or_all_dropped_at_the_ends(probability, kept):
    assert all(drop_captions(8, probability, seeded(i)) == kept for i in range(20))


def test_the_drop_comes_from_the_generator_alone():
    """Halton-MaskGIT: noise from a global generator."""
    draws = []
    for world in (1, 2):
        torch.manual_seed(world)
        generator = seeded(5)
        draws.append([drop_captions(16, 0.5, generator) for _ in range(10)])
    assert draws[0] == draws[1]


@torch.no_grad()
def test_bfloat16_is_close_to_float32():
    base, tokens, text = transformer_of(spread=0.1), tokens_of(), texts_of()
    exact = base(tokens, base.read(*text))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = base(tokens, base.read(*text)).float()
    half = base.bfloat16()
    low = half(tokens, half.read(text[0].bfloat16(), text[1])).float()
    for logits in (mixed, low):
        assert not logits.equal(exact)
        assert (logits - exact).std() < 0.03 * exact.std()
