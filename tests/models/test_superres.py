"""The super-resolution transformer: its sizes, how low-resolution tokens and text reach it, what attends to what."""

import dataclasses
import inspect
import math

import pytest
import torch

from muse.models.layers import CrossAttention, MultiAxisAttention, SelfAttention
from muse.models.superres import PRESETS, SuperResConfig, SuperResTransformer, Upsampling
from muse.models.vqgan import VQGAN, VQGANConfig

TINY = SuperResConfig(
    num_codes=20,
    low_num_codes=12,
    height=8,
    width=16,
    low_height=2,
    low_width=4,
    dim=16,
    depth=2,
    low_depth=2,
    heads=4,
    mlp_dim=32,
    text_dim=6,
    attention="multi-axis",
    block=4,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def transformer_of(config=TINY, spread=0.2):
    """Weights larger than at the start, so that everything has an effect that shows."""
    torch.manual_seed(0)
    superres = SuperResTransformer(config).eval()
    for parameter in superres.parameters():
        parameter.data += spread * torch.randn_like(parameter)
    return superres


def tokens_of(num=4, config=TINY, seed=0):
    return torch.randint(config.num_codes + 1, (num, config.height * config.width), generator=seeded(seed))


def low_of(num=4, config=TINY, seed=1):
    return torch.randint(config.low_num_codes, (num, config.low_height * config.low_width), generator=seeded(seed))


def texts_of(num=4, words=5, config=TINY, seed=2):
    """States of texts of different lengths, and which words are real."""
    states = torch.randn(num, words, config.text_dim, generator=seeded(seed))
    return states, torch.arange(words) < torch.tensor([words - i % words for i in range(num)])[:, None]


def latents_of(num=4, config=TINY, seed=3):
    """What `read` takes beside tokens and texts."""
    dim = config.upsampled_dim
    return torch.randn(num, config.height * config.width, dim, generator=seeded(seed)) if dim else None


# -- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "depths", "in_layers", "rounded"),
    [("superres-268m", (13, 4), 268_483_584, 268.4e6), ("superres-738m", (32, 16), 738_328_576, 738e6)],
)
def test_presets_have_the_parameters_of_the_paper(name, depths, in_layers, rounded):
    config = PRESETS[name]
    with torch.device("meta"):
        superres = SuperResTransformer(config)
    assert (config.depth, config.low_depth) == depths
    assert (config.dim, config.mlp_dim, config.height, config.width) == (1024, 4096, 64, 64)
    assert (config.low_height, config.low_width, config.num_codes, config.low_num_codes) == (16, 16, 8192, 8192)
    found = sum(p.numel() for stack in (superres.layers, superres.low_layers) for p in stack.parameters())
    # 4 dim^2 for each attention, 8 for the MLP that is four times as wide; norms without a bias.
    high, low = 16 * 1024**2 + 3 * 1024, 12 * 1024**2 + 2 * 1024
    assert found == in_layers == depths[0] * high + depths[1] * low
    assert found == pytest.approx(rounded, rel=0.001)


def test_the_preset_of_table_1_is_as_large_as_16_layers_of_its_width_with_cross_attention():
    config = PRESETS["superres-268m"]
    assert 16 * config.depth + 12 * config.low_depth == 16 * 16


OTHER = {
    "num_codes": 24,
    "low_num_codes": 15,
    "height": 4,
    "width": 8,
    "low_height": 3,
    "low_width": 1,
    "dim": 32,
    "depth": 3,
    "low_depth": 1,
    "heads": 2,
    "mlp_dim": 16,
    "text_dim": 9,
    "attention": "full",
    "block": 8,
    "aligned": True,
    "upsampled_dim": 7,
    "dropout": 0.5,
    "vqgan_fingerprint": "0123456789ab",
    "vqgan_low_fingerprint": "0123456789ab",
}


def test_the_table_of_other_values_names_every_field():
    assert set(OTHER) == {field.name for field in dataclasses.fields(SuperResConfig)}


@torch.no_grad()
@pytest.mark.parametrize("field", OTHER)
def test_every_field_of_the_config_runs_and_has_an_effect(field):
    config = dataclasses.replace(TINY, **{field: OTHER[field]})
    superres, plain = transformer_of(config), transformer_of()
    tokens, low, text = tokens_of(2, config), low_of(2, config), texts_of(2, config=config)
    logits = superres(tokens, superres.read(low, *text, latents_of(2, config)))
    assert logits.shape == (2, config.height * config.width, config.num_codes)
    if field in ("heads", "attention", "block"):  # the same weights, used otherwise
        superres.load_state_dict(plain.state_dict(), strict=True)
        assert not superres(tokens, superres.read(low)).allclose(plain(tokens, plain.read(low)), atol=1e-4)
    elif field == "dropout":
        superres.train()
        assert not superres(tokens, superres.read(low, *text)).allclose(logits)
    elif "fingerprint" in field:  # a stamp; tests/test_cascade.py sees a wrong one refused
        assert getattr(superres.config, field) == OTHER[field]
    else:
        assert [w.shape for w in superres.state_dict().values()] != [w.shape for w in plain.state_dict().values()]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": 3}, r"dim 16 is not a multiple of 3 heads; try .* heads"),
        *(
            ({name: 0}, rf"{name} is 0; give a whole number of at least 1")
            for name in ("num_codes", "low_num_codes", "height", "low_width", "dim", "depth", "heads", "mlp_dim")
        ),
        ({"low_depth": -1}, r"low_depth is -1; give a whole number of at least 0"),
        ({"heads": 1}, r"1 heads cannot be halved for multi-axis attention; give an even number"),
        ({"dropout": 1.0}, r"dropout is 1.0; give a share from 0 up to, not including, 1"),
        ({"block": 3}, r"a grid of 8 x 16 cannot be cut into blocks of 3 x 3; give a block that divides both sides"),
        ({"block": 0}, r"a grid of 8 x 16 cannot be cut into blocks of 0 x 0; give a block that divides both sides"),
        (
            {"aligned": True, "low_height": 3},
            r"a grid of 8 x 16 cannot be aligned with one of 3 x 4; give multiples, or leave out aligned",
        ),
        ({"block": 2}, r"blocks of 2 x 2 leave parts of a grid of 8 x 16 that never see each other; give at least 4"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused_with_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        dataclasses.replace(TINY, **changes)


# -- the low-resolution tokens ------------------------------------------------------------------------------------


@torch.no_grad()
def test_shuffling_the_low_resolution_tokens_changes_the_logits():
    """Muse-maskgit-pytorch: they are computed and never used."""
    superres, tokens, low, text = transformer_of(), tokens_of(), low_of(), texts_of()
    shuffled = low[:, torch.randperm(8, generator=seeded(3))]
    plain, changed = (superres(tokens, superres.read(each, *text)) for each in (low, shuffled))
    assert ((plain - changed).abs().amax(dim=(1, 2)) > 1e-2).all()


@torch.no_grad()
def test_low_resolution_tokens_have_positions_and_a_table_of_their_own():
    """Muse-maskgit-pytorch: no positions, and the table of the high-resolution tokens."""
    superres, low = transformer_of(), low_of()
    assert superres.embed_low.num_embeddings == TINY.low_num_codes
    assert superres.low_positions().shape == (8, 16)
    before = superres(tokens_of(), superres.read(low))
    superres.embed_low.weight[low.unique()] *= -1
    assert not superres(tokens_of(), superres.read(low)).allclose(before, atol=1e-3)
    # Without positions the order would not matter.
    order = torch.randperm(8, generator=seeded(3))
    superres.low_positions.rows.zero_()
    superres.low_positions.columns.zero_()
    states = superres.encode_low(low)
    torch.testing.assert_close(superres.encode_low(low[:, order]), states[:, order], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        superres(tokens_of(), superres.read(low[:, order])),
        superres(tokens_of(), superres.read(low)),
        atol=1e-4,
        rtol=0,
    )


@torch.no_grad()
def test_every_low_resolution_token_is_encoded_with_all_the_others():
    superres, low = transformer_of(), low_of(1)
    changed = low.clone()
    changed[0, 0] = (low[0, 0] + 1) % TINY.low_num_codes
    assert ((superres.encode_low(low) - superres.encode_low(changed)).abs().amax(-1) > 1e-5).all()


@torch.no_grad()
def test_a_picture_is_conditioned_on_its_own_low_resolution_tokens_and_its_own_text_only():
    superres, tokens, low, text = transformer_of(), tokens_of(), low_of(), texts_of()
    plain = superres(tokens, superres.read(low, *text))
    other_low, other_text = low.clone(), (text[0].clone(), text[1])
    other_low[2] = low_of(1, seed=9)[0]
    other_text[0][1, 0] += 1
    for row, context in ((2, superres.read(other_low, *text)), (1, superres.read(low, *other_text))):
        moved = (plain - superres(tokens, context)).abs().amax(dim=(1, 2))
        assert moved[row] > 1e-2
        assert torch.cat([moved[:row], moved[row + 1 :]]).max() < 1e-5


# -- the text -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_dropped_caption_leaves_the_low_resolution_tokens_alone():
    superres, tokens, low, (states, is_word) = transformer_of(), tokens_of(), low_of(), texts_of()
    mixed = superres(tokens, superres.read(low, states[:2], is_word[:2]))
    untold = superres(tokens, superres.read(low))
    torch.testing.assert_close(mixed[2:], untold[2:], atol=1e-5, rtol=0)
    assert ((mixed[:2] - untold[:2]).abs().amax(dim=(1, 2)) > 1e-2).all()
    other = superres(tokens, superres.read(low.flip(1), states[:2], is_word[:2]))
    assert ((mixed[2:] - other[2:]).abs().amax(dim=(1, 2)) > 1e-2).all()


@torch.no_grad()
def test_aligned_each_token_begins_with_the_low_resolution_one_that_covers_it():
    superres, low = transformer_of(dataclasses.replace(TINY, aligned=True)), low_of()
    assert superres.project_low is not None
    start, states = superres.read(low).start, superres.project_low(superres.encode_low(low))
    assert start is not None
    for y, x in ((0, 0), (3, 3), (3, 4), (4, 15), (7, 8)):
        torch.testing.assert_close(start[:, y * 16 + x], states[:, y // 4 * 4 + x // 4])
    # It is sliced with the rest of what was read.
    context, tokens, text = superres.read(low, *texts_of()), tokens_of(), texts_of()
    logits = superres(tokens, context)
    torch.testing.assert_close(superres(tokens[:2], context.first(2)), logits[:2], atol=1e-5, rtol=0)
    without = superres.read(low, *text)
    without = dataclasses.replace(without, start=None)
    assert not superres(tokens, without).allclose(logits, atol=1e-2)


def test_aligned_starts_as_the_network_that_only_attends():
    torch.manual_seed(0)
    superres = SuperResTransformer(dataclasses.replace(TINY, aligned=True))
    start = superres.read(low_of()).start
    assert start is not None
    assert not start.any()


# -- the upsampled picture ---------------------------------------------------------------------------------------------


@torch.no_grad()
def test_each_token_begins_with_the_latent_of_the_upsampled_picture_at_its_place():
    config = dataclasses.replace(TINY, aligned=True, upsampled_dim=7)
    superres, low, text, latents = transformer_of(config), low_of(), texts_of(), latents_of(config=config)
    assert latents is not None
    changed = latents.clone()
    changed[1, 37] += 1
    before, after = superres.start(superres.encode_low(low), latents), superres.start(superres.encode_low(low), changed)
    assert before is not None
    assert after is not None
    assert (before != after).any(-1).nonzero().tolist() == [[1, 37]]
    # What the low-resolution tokens add stays.
    other = superres.read(low.flip(1), *text, latents).start
    assert other is not None
    assert (other - before).abs().amax() > 0.1
    tokens = tokens_of()
    logits = [superres(tokens, superres.read(low, *text, each)) for each in (latents, changed)]
    assert logits[0][[0, 2, 3]].allclose(logits[1][[0, 2, 3]], atol=1e-5)
    assert not logits[0][1].allclose(logits[1][1], atol=1e-2)


def test_the_upsampled_picture_is_ignored_at_the_start():
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, upsampled_dim=7)
    start = SuperResTransformer(config).read(low_of(), upsampled=latents_of(config=config)).start
    assert start is not None
    assert not start.any()


@pytest.mark.parametrize(
    ("dim", "given", "sentence"),
    [
        (0, 7, r"^latents of 7 numbers came for super-resolution that begins with 0; give what Upsampling makes"),
        (7, 0, r"^latents of 0 numbers came for super-resolution that begins with 7; give what Upsampling makes"),
        (7, 8, r"^latents of 8 numbers came for super-resolution that begins with 7; give what Upsampling makes"),
    ],
)
def test_latents_that_do_not_fit_are_refused_with_one_sentence(dim, given, sentence):
    superres = SuperResTransformer(dataclasses.replace(TINY, upsampled_dim=dim))
    with pytest.raises(ValueError, match=sentence):
        superres.read(low_of(), upsampled=latents_of(config=dataclasses.replace(TINY, upsampled_dim=given)))


def vqgan_of(channels, num_codes):
    torch.manual_seed(4)
    vqgan = VQGAN(VQGANConfig(channels=channels, num_codes=num_codes, code_dim=6, blocks=1, norm_groups=4)).eval()
    torch.nn.init.normal_(vqgan.quantizer.codebook)
    return vqgan


@torch.no_grad()
def test_upsampling_shows_the_high_resolution_vqgan_the_picture_of_the_low_resolution_tokens():
    """2 x 4 tokens of 4 pixels, upsampled 4 times as tall and wide, are 8 x 16 of 4 pixels."""
    low_vqgan, high_vqgan = vqgan_of((8, 8, 8), 12), vqgan_of((8, 8, 8), 20)
    upsampling, low = Upsampling(low_vqgan, high_vqgan, dataclasses.replace(TINY, upsampled_dim=6)), low_of()
    latents = upsampling(low)
    assert latents.shape == (4, 128, 6)
    # Of pictures without detail nothing can be lost on the way: they are the same picture at another size.
    pictures = torch.tensor([0.2, 0.7, 0.4, 0.9])[:, None, None, None].expand(-1, 3, 8, 16)
    low_vqgan.decode = lambda tokens, height: pictures
    large = high_vqgan.latents(pictures.repeat(1, 1, 4, 4))
    torch.testing.assert_close(upsampling(low), large.flatten(2).mT, atol=1e-5, rtol=0)
    # Left stays left, above stays above.
    dark = torch.ones(1, 3, 8, 16)
    dark[:, :, :2, 12:] = 0
    low_vqgan.decode = lambda tokens, height: dark.expand(4, -1, -1, -1)
    corner = torch.ones(4, 3, 32, 64)
    corner[:, :, :8, 48:] = 0
    seen = upsampling(low)
    wanted, *mirrored = (high_vqgan.latents(corner.flip(dims)).flatten(2).mT for dims in ((), (2,), (3,), (2, 3)))
    for wrong in mirrored:
        assert (seen - wanted).abs().mean() < 0.6 * (seen - wrong).abs().mean()


@torch.no_grad()
def test_padding_words_never_change_the_logits():
    superres, tokens, low, (states, is_word) = transformer_of(), tokens_of(), low_of(), texts_of()
    plain = superres(tokens, superres.read(low, states, is_word))
    rewritten = states.masked_fill(~is_word[..., None], 1000.0)
    torch.testing.assert_close(superres(tokens, superres.read(low, rewritten, is_word)), plain, atol=1e-5, rtol=0)
    everything = superres.read(low, rewritten, torch.ones_like(is_word))
    assert not superres(tokens, everything).allclose(plain, atol=1e-2)


@torch.no_grad()
def test_what_is_read_once_gives_the_logits_of_reading_each_time():
    superres, low, text, reads = transformer_of(), low_of(), texts_of(), []
    once = superres.read(low, *text)
    key_values = [module.key_value for module in superres.modules() if isinstance(module, CrossAttention)]
    assert len(key_values) == 2
    for module in (superres.project_text, superres.embed_low, *key_values):
        module.register_forward_hook(lambda *_: reads.append(1))
    for seed in range(3):
        tokens = tokens_of(seed=seed)
        logits = superres(tokens, once)
        assert reads == []
        assert logits.equal(superres(tokens, superres.read(low, *text)))
        reads.clear()


def test_nothing_but_the_tokens_and_what_was_read_conditions_the_network():
    parameters = list(inspect.signature(SuperResTransformer.forward).parameters)
    assert parameters == ["self", "tokens", "context", "at", "focus", "merge"]  # where, and of which branches
    assert list(inspect.signature(SuperResTransformer.read).parameters) == [
        "self",
        "low_tokens",
        "text",
        "is_word",
        "upsampled",
    ]


# -- multi-axis attention -----------------------------------------------------------------------------------------


def attention_of(height=8, width=8, block=4, heads=2, dim=8):
    torch.manual_seed(0)
    attention = MultiAxisAttention(dim, heads, height, width, block)
    for parameter in attention.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    return attention


def reached(attention, position, positions):
    """Which positions a position attends to: those that its output has a gradient of."""
    states = torch.randn(1, positions, 8, generator=seeded()).requires_grad_()
    (gradient,) = torch.autograd.grad(attention(states)[0, position].sum(), states)
    return set(gradient[0].abs().sum(-1).nonzero().flatten().tolist())


@pytest.mark.parametrize("position", [0, 13, 37, 63])
def test_multi_axis_attention_sees_its_block_and_an_even_spread_over_the_grid(position):
    row, column = divmod(position, 8)
    grid = [(i, j) for i in range(8) for j in range(8)]
    block = {i * 8 + j for i, j in grid if (i // 4, j // 4) == (row // 4, column // 4)}
    spread = {i * 8 + j for i, j in grid if (i % 2, j % 2) == (row % 2, column % 2)}
    assert (len(block), len(spread)) == (16, 16)
    assert reached(attention_of(), position, 64) == block | spread


def test_blocks_and_spreads_of_a_grid_that_is_no_square():
    assert reached(attention_of(height=4, width=8, block=2), 0, 32) == {0, 1, 8, 9} | {0, 4, 16, 20}


def test_two_layers_of_multi_axis_attention_see_everything():
    """Where the block is no smaller than the steps of the spread; the config refuses others."""
    first, second = attention_of(), attention_of()
    assert reached(lambda states: second(first(states)), 13, 64) == set(range(64))
    small = attention_of(block=2)  # 2 x 2 neighbours, and steps of 4
    assert len(reached(lambda states: small(small(small(states))), 13, 64)) == 16


@pytest.mark.parametrize("is_near", [True, False])
def test_half_of_the_heads_see_the_block_and_the_other_half_the_spread(is_near):
    attention = attention_of()
    with torch.no_grad():
        attention.out.weight[:, slice(4, 8) if is_near else slice(0, 4)] = 0
    block, spread = (
        {i * 8 + j for i in range(4) for j in range(4)},
        {i * 16 + j * 2 for i in range(4) for j in range(4)},
    )
    assert reached(attention, 0, 64) == (block if is_near else spread)


@torch.no_grad()
def test_multi_axis_attention_is_full_attention_where_the_block_covers_the_grid():
    multi, full = attention_of(height=4, width=4, block=4), SelfAttention(8, 2)
    full.load_state_dict(multi.state_dict(), strict=True)
    states = torch.randn(3, 16, 8, generator=seeded())
    torch.testing.assert_close(multi(states), full(states), atol=1e-5, rtol=0)
    smaller = attention_of(height=4, width=4, block=2)
    assert not smaller(states).allclose(full(states), atol=1e-2)


# -- the grids ----------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("attention", ["full", "multi-axis"])
def test_every_position_sees_every_other_visible_or_hidden(attention):
    superres, low = transformer_of(dataclasses.replace(TINY, attention=attention)), low_of(1)
    tokens = torch.full((1, 128), TINY.mask_id)
    changed = tokens.clone()
    changed[0, 127] = 3
    context = superres.read(low)
    moved = (superres(tokens, context) - superres(changed, context)).abs().amax(-1)
    assert (moved > 1e-6).all()


@torch.no_grad()
def test_the_mask_id_lies_outside_the_codebook_and_no_logit_stands_for_it():
    superres = transformer_of()
    assert TINY.mask_id == TINY.num_codes
    assert superres.embed.num_embeddings == TINY.num_codes + 1
    assert superres(torch.full((2, 128), TINY.mask_id), superres.read(low_of(2))).shape == (2, 128, TINY.num_codes)


def test_grids_of_another_size_are_refused_with_one_sentence():
    superres = transformer_of()
    with pytest.raises(ValueError, match=r"^127 tokens came; this transformer was made for a grid of 8 x 16 = 128$"):
        superres(torch.zeros(1, 127, dtype=torch.long), superres.read(low_of(1)))
    with pytest.raises(ValueError, match=r"^9 tokens came; this transformer was made for a grid of 2 x 4 = 8$"):
        superres.read(torch.zeros(1, 9, dtype=torch.long))


def test_other_numbers_of_texts_or_contexts_are_refused_with_one_sentence():
    superres = transformer_of()
    with pytest.raises(ValueError, match=r"^3 texts came for 2 low-resolution grids; give at most one for each$"):
        superres.read(low_of(2), *texts_of(3))
    with pytest.raises(ValueError, match=r"^2 contexts came for 3 grids of tokens; give one for each$"):
        superres(tokens_of(3), superres.read(low_of(2)))


# -- training -----------------------------------------------------------------------------------------------------


def test_gradients_reach_every_parameter():
    superres, low, tokens = transformer_of().train(), low_of(8), tokens_of(8)
    superres(tokens, superres.read(low, *texts_of(6))).log_softmax(-1)[..., 0].mean().backward()
    assert [name for name, p in superres.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_at_the_start_every_code_is_about_equally_likely():
    torch.manual_seed(0)
    superres = SuperResTransformer(TINY)
    log_probs = superres(tokens_of(), superres.read(low_of(), *texts_of())).log_softmax(-1)
    assert -log_probs.mean().item() == pytest.approx(math.log(TINY.num_codes), abs=0.05)


@torch.no_grad()
def test_what_ends_a_shortcut_starts_smaller_the_deeper_its_stack():
    superres = SuperResTransformer(dataclasses.replace(TINY, dim=64, depth=12, low_depth=4))
    for stack, ends in ((superres.layers, 36), (superres.low_layers, 8)):
        attentions = [module for module in stack.modules() if isinstance(module, SelfAttention)]
        last = torch.stack([attention.out.weight for attention in attentions])
        assert last.std() == pytest.approx(0.02 / math.sqrt(ends), rel=0.05)


@torch.no_grad()
def test_bfloat16_is_close_to_float32():
    superres, tokens, low, text = transformer_of(spread=0.1), tokens_of(), low_of(), texts_of()
    exact = superres(tokens, superres.read(low, *text))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = superres(tokens, superres.read(low, *text)).float()
    assert not mixed.equal(exact)
    assert (mixed - exact).std() < 0.03 * exact.std()
