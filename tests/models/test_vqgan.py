"""The VQGAN: equal to diffusers' with equal weights, fully convolutional, every field of its config with an effect."""

import dataclasses
import re

import pytest
import torch
from jaxtyping import TypeCheckError

from muse.models.vqgan import VQGAN, ResNetBlock, VQGANConfig, to_unit_range

TINY = VQGANConfig(
    channels=(8, 8, 16), blocks=1, decoder_blocks=1, num_codes=32, code_dim=4, attention=False, norm_groups=4
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(num=2, height=16, width=16, seed=0):
    return torch.rand(num, 3, height, width, generator=seeded(seed))


def vqgan_of(config, seed=0):
    """A VQGAN whose codebook lies where its latents do, so that tokens differ."""
    torch.manual_seed(seed)
    vqgan = VQGAN(config).eval()
    rows = vqgan.latents(pictures(8, 32, 32)).detach().movedim(1, -1).reshape(-1, config.code_dim)
    picks = torch.randint(len(rows), (config.num_codes,), generator=seeded(seed))
    vqgan.quantizer.codebook.data = rows[picks] + 0.02 * torch.randn(config.num_codes, config.code_dim)
    return vqgan


# -- the same as diffusers ----------------------------------------------------------------------------------------

TOP = {
    "encoder.conv_norm_out": "encoder.norm_out",
    "decoder.conv_norm_out": "decoder.norm_out",
    "quant_conv": "encoder.to_code",
    "post_quant_conv": "decoder.from_code",
    "quantize.embedding": "quantizer.codebook",
}
ATTENTION = {"group_norm": "norm", "to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "out"}


def our_name(theirs, encoder_blocks):
    """The name that a weight of diffusers' `VQModel` has in ours."""
    module, kind = theirs.rsplit(".", 1)
    if module in TOP:
        return TOP[module] if module == "quantize.embedding" else f"{TOP[module]}.{kind}"
    blocks = {"encoder": encoder_blocks, "decoder": encoder_blocks + 1}[module.split(".")[0]]
    name = theirs.replace("conv_shortcut", "shortcut")
    name = re.sub(r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)", r"levels.\2.\3", name)
    name = re.sub(r"(down|up)_blocks\.(\d+)\.(down|up)samplers\.0", rf"levels.\2.{blocks}", name)
    name = re.sub(
        r"mid_block\.attentions\.0\.(.*)\.(weight|bias)", lambda m: f"middle.1.{ATTENTION[m[1]]}.{m[2]}", name
    )
    # With attention between them, the second of the two blocks comes third.
    return re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"middle.{'0' if m[1] == '0' else 'last'}", name)


def ours_and_theirs(channels, blocks, groups, attention):
    from diffusers import VQModel

    torch.manual_seed(0)
    theirs = VQModel(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=blocks,
        latent_channels=6,
        vq_embed_dim=6,
        num_vq_embeddings=48,
        norm_num_groups=groups,
        mid_block_add_attention=attention,
    ).eval()
    for parameter in theirs.parameters():
        if parameter.ndim == 1:  # norms that are all ones could be swapped unseen
            parameter.data += 0.3 * torch.rand_like(parameter)
    latents = theirs.encode(pictures(4, 64, 64) * 2 - 1).latents.detach()
    rows = latents.movedim(1, -1).reshape(-1, 6)
    theirs.quantize.embedding.weight.data = rows[torch.randperm(len(rows))[:48]] + 0.02 * torch.randn(48, 6)
    config = VQGANConfig(
        channels=channels,
        blocks=blocks,
        decoder_blocks=blocks + 1,
        num_codes=48,
        code_dim=6,
        attention=attention,
        norm_groups=groups,
    )
    ours = VQGAN(config).eval()
    last = "2" if attention else "1"
    named = {our_name(name, blocks): weight for name, weight in theirs.state_dict().items()}
    weights = {name.replace("middle.last", f"middle.{last}"): weight for name, weight in named.items()}
    ours.load_state_dict(weights, strict=True)
    return ours, theirs


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize(
    ("channels", "blocks", "groups"), [((8, 16), 2, 4), ((16, 8, 24), 1, 8), ((32,), 1, 32), ((8, 8, 16, 16), 2, 2)]
)
@torch.no_grad()
def test_with_equal_weights_it_equals_the_vqmodel_of_diffusers(channels, blocks, groups, attention):
    ours, theirs = ours_and_theirs(channels, blocks, groups, attention)
    given = pictures(2, 32, 48, seed=1)
    latents = theirs.encode(given * 2 - 1).latents
    torch.testing.assert_close(ours.latents(given), latents, atol=1e-5, rtol=0)

    codes, _, (_, _, tokens) = theirs.quantize(latents)
    assert ours.encode(given).flatten().equal(tokens)
    assert len(tokens.unique()) > 5
    torch.testing.assert_close(ours.quantizer.look_up(ours.quantizer.nearest(latents)), codes, atol=1e-5, rtol=0)

    # Diffusers passes z + (code - z) on, which is not quite the code; so the second time it gets the very code.
    torch.testing.assert_close(ours.decoder(codes), theirs.decode(latents, return_dict=False)[0], atol=1e-5, rtol=0)
    ours_decoded = ours.decode(tokens.reshape(2, -1), height=32 // ours.config.stride)
    exact = theirs.quantize.embedding(tokens.reshape(latents[:, 0].shape)).movedim(-1, 1)
    decoded = theirs.decode(exact, force_not_quantize=True, return_dict=False)[0]
    torch.testing.assert_close(ours_decoded, (decoded / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=0)


# -- fully convolutional ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 24), (36, 20), (4, 64)])
@torch.no_grad()
def test_it_runs_on_any_multiple_of_its_stride(height, width):
    vqgan = vqgan_of(TINY)
    tokens = vqgan.encode(pictures(1, height, width))
    assert tokens.shape == (1, (height // 4) * (width // 4))
    decoded = vqgan.decode(tokens, height // 4)
    assert decoded.shape == (1, 3, height, width)
    assert 0 <= decoded.min() <= decoded.max() <= 1


@pytest.mark.parametrize(("height", "width", "side", "fitting"), [(18, 16, 18, 16), (16, 3, 3, 4), (0, 8, 0, 4)])
def test_it_refuses_other_sizes_with_one_sentence(height, width, side, fitting):
    with pytest.raises(ValueError, match=rf"^size {side} is not a multiple of 4; try {fitting}$"):
        VQGAN(TINY).encode(torch.zeros(1, 3, height, width))


def test_it_refuses_what_is_no_rgb_picture():
    with pytest.raises(TypeCheckError):
        VQGAN(TINY).encode(torch.zeros(1, 1, 16, 16))


def test_it_trains_on_crops_and_then_draws_larger_pictures():
    torch.manual_seed(0)
    vqgan = VQGAN(TINY)
    optimizer = torch.optim.Adam([*vqgan.encoder.parameters(), *vqgan.decoder.parameters()], 1e-2)
    whole, losses = pictures(1, 32, 48), []
    for _ in range(8):
        crop = whole[..., 8:24, 16:32]
        loss = (vqgan.decoder(vqgan.latents(crop)) / 2 + 0.5 - crop).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and p.grad.any() for p in [*vqgan.encoder.parameters(), *vqgan.decoder.parameters()])
    assert vqgan.decode(vqgan.encode(whole), height=8).shape == whole.shape


@torch.no_grad()
def test_tokens_are_written_row_by_row():
    vqgan = vqgan_of(TINY)
    given = pictures(1, 8, 16)
    grid = vqgan.quantizer.nearest(vqgan.latents(given))
    assert grid.shape == (1, 2, 4)
    assert vqgan.encode(given)[0].tolist() == [*grid[0, 0].tolist(), *grid[0, 1].tolist()]
    assert vqgan.decode(vqgan.encode(given), height=2).equal(vqgan.decode_grid(grid))
    assert vqgan.reconstruct(given).equal(vqgan.decode_grid(grid))


@torch.no_grad()
def test_a_picture_has_the_same_tokens_whoever_its_neighbours_are():
    vqgan, given = vqgan_of(TINY), pictures(4)
    assert vqgan.encode(given)[2:3].equal(vqgan.encode(given[2:3]))


def test_decoded_pictures_are_clamped_float32():
    network = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0], dtype=torch.bfloat16).reshape(1, 1, 1, 5).expand(1, 3, 1, 5)
    unit = to_unit_range(network)
    assert unit.dtype == torch.float32
    assert unit[0, 0, 0].tolist() == [0, 0, 0.5, 1, 1]


# -- the config ---------------------------------------------------------------------------------------------------

OTHER = {
    "channels": (8, 8, 8, 16),
    "blocks": 2,
    "decoder_channels": (16, 8, 8),
    "decoder_blocks": 3,
    "num_codes": 16,
    "code_dim": 8,
    "attention": True,
    "level_attention": True,
    "norm_groups": 2,
    "patch": 2,
    "encoder_kernels": (3, 1, 1),
    "encoder_norm": "place",
    "decoder_padding": "replicate",
}
DECODER_ONLY = ("decoder_channels", "decoder_blocks", "decoder_padding")


def test_the_table_of_other_values_names_every_field():
    assert set(OTHER) == {field.name for field in dataclasses.fields(VQGANConfig)}


@pytest.mark.parametrize("field", OTHER)
@torch.no_grad()
def test_every_field_of_the_config_runs_and_has_an_effect(field):
    """muse-maskgit-pytorch: its VQGAN crashes outside one configuration."""
    torch.manual_seed(0)
    changed = VQGAN(dataclasses.replace(TINY, **{field: OTHER[field]})).eval()
    torch.manual_seed(0)
    plain = VQGAN(TINY).eval()
    given, height = pictures(), 16 // changed.config.stride
    assert changed.decode(changed.encode(given), height).shape == given.shape
    if field in ("norm_groups", "encoder_norm"):  # no weight knows of it, the latents do
        assert not changed.latents(given).allclose(plain.latents(given), atol=1e-3)
    elif field == "decoder_padding":  # nor of this, the pictures do
        tokens = plain.encode(given)
        assert not changed.decode(tokens, height).allclose(plain.decode(tokens, height), atol=1e-3)
    else:
        assert [w.shape for w in changed.state_dict().values()] != [w.shape for w in plain.state_dict().values()]


@torch.no_grad()
def test_a_plain_grid_of_tokens_is_a_plain_picture_where_the_decoder_sees_its_edge_again():
    """Else what is beyond the edge leaves specks in the corners."""
    tokens = torch.full((1, 64), 3)
    specks = {}
    for padding in ("zeros", "replicate"):
        vqgan = vqgan_of(dataclasses.replace(TINY, decoder_padding=padding))
        patches = vqgan.decode(tokens, 8).unfold(2, 4, 4).unfold(3, 4, 4)  # of one token each
        specks[padding] = (patches - patches[:, :, 4:5, 4:5]).abs().amax()
    assert specks["replicate"] < 1e-5
    assert specks["zeros"] > 1e-3


@pytest.mark.parametrize("field", DECODER_ONLY)
@torch.no_grad()
def test_another_decoder_changes_no_token(field):
    plain = vqgan_of(TINY)
    other = VQGAN(dataclasses.replace(TINY, **{field: OTHER[field]})).eval()
    other.encoder.load_state_dict(plain.encoder.state_dict(), strict=True)
    other.quantizer.load_state_dict(plain.quantizer.state_dict(), strict=True)
    tokens = plain.encode(pictures())
    assert other.encode(pictures()).equal(tokens)
    assert len(tokens.unique()) > 3
    assert not other.decode(tokens, 4).equal(plain.decode(tokens, 4))


@torch.no_grad()
def test_with_attention_every_place_sees_every_other():
    """Without it, the only thing that reaches across is the group normalisation."""
    given = pictures(1, 64, 64)
    for config in (TINY, dataclasses.replace(TINY, attention=True)):
        kinds = [type(part).__name__ for part in vqgan_of(config).encoder.middle]
        assert ("SpatialAttention" in kinds) == config.attention
    attend = vqgan_of(dataclasses.replace(TINY, attention=True)).encoder.middle[1]
    attend.norm = torch.nn.Identity()
    features = torch.rand(1, 16, 4, 4, generator=seeded())
    changed = features.clone()
    changed[..., 3, 3] += 10
    assert (attend(features)[..., 0, 0] - attend(changed)[..., 0, 0]).abs().max() > 1e-4
    assert vqgan_of(TINY).latents(given).shape == (1, 4, 16, 16)


@pytest.mark.parametrize(("channels", "stride"), [((8,), 1), ((8, 8), 2), ((8,) * 5, 16)])
def test_the_stride_doubles_with_each_further_resolution(channels, stride):
    config = dataclasses.replace(TINY, channels=channels)
    assert config.stride == stride
    assert VQGAN(config).latents(pictures(1, 16, 32)).shape == (1, 4, 16 // stride, 32 // stride)


def test_the_defaults_are_the_tokenizer_of_the_paper():
    config = VQGANConfig()
    assert (config.stride, config.num_codes, config.blocks, config.attention) == (16, 8192, 2, False)
    assert config.channels[0] == 128
    with torch.device("meta"):
        vqgan = VQGAN(config)
    for half in (vqgan.encoder, vqgan.decoder):
        assert sum(isinstance(each, ResNetBlock) for each in half.modules()) == 12


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"norm_groups": 3},
            r"(8|16) channels cannot be split into 3 norm groups; try (6|15) channels or fewer groups",
        ),
        *(
            ({name: 0}, rf"{name} is 0; give a whole number of at least 1")
            for name in ("blocks", "decoder_blocks", "code_dim", "norm_groups", "patch")
        ),
        ({"num_codes": 1}, r"num_codes is 1; give a whole number of at least 2"),
        ({"channels": (8, 0, 16)}, r"channels is 0; give a whole number of at least 1"),
        ({"norm_groups": 16}, r"8 channels cannot be split into 16 norm groups; try 16 channels or fewer groups"),
        ({"decoder_channels": (8, 8, 10)}, r"10 channels cannot be split into 4 norm groups; try 8 channels or .*"),
        ({"decoder_channels": (8, 8)}, r"the decoder has 2 resolutions and the encoder 3; give equally many"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused_with_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        dataclasses.replace(TINY, **changes)


# -- the fingerprint ----------------------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_the_encoder_and_the_codebook_and_not_with_the_decoder():
    vqgan = vqgan_of(TINY)
    first = vqgan.fingerprint()
    assert re.fullmatch(r"[0-9a-f]{12}", first)
    assert vqgan_of(TINY).fingerprint() == first

    vqgan.decoder.conv_out.weight.data += 1
    assert vqgan.fingerprint() == first
    vqgan.quantizer.codebook.data[3, 1] += 1e-3
    second = vqgan.fingerprint()
    vqgan.encoder.conv_in.weight.data[0, 0, 0, 0] += 1e-3
    assert len({first, second, vqgan.fingerprint()}) == 3


OTHERWISE = {
    "channels": (8, 16, 16),
    "blocks": 2,
    "decoder_channels": (16, 8, 16),
    "decoder_blocks": 2,
    "num_codes": 64,
    "code_dim": 8,
    "attention": True,
    "level_attention": True,
    "norm_groups": 2,
    "encoder_kernels": (3, 1, 1),
    "encoder_norm": "place",
    "decoder_padding": "replicate",
    "patch": 2,
}


BY_PLACE = dataclasses.replace(TINY, encoder_norm="place", attention=True)


@pytest.mark.parametrize(
    ("base", "name"), [*((TINY, field.name) for field in dataclasses.fields(VQGANConfig)), (BY_PLACE, "norm_groups")]
)
def test_whatever_of_the_config_makes_other_tokens_makes_another_fingerprint(base, name):
    """Also what no weight tells, as the groups that an import of a bare checkpoint has to guess; attention has some
    where all else is normalised at each place."""
    config = dataclasses.replace(base, **{name: OTHERWISE[name]})
    one, other = vqgan_of(base), vqgan_of(config)
    for part in ("encoder", "quantizer"):
        if {key: each.shape for key, each in getattr(one, part).state_dict().items()} == {
            key: each.shape for key, each in getattr(other, part).state_dict().items()
        }:
            getattr(other, part).load_state_dict(getattr(one, part).state_dict())
    given = pictures(num=4, height=32, width=32)
    is_same = one.config.stride == other.config.stride and one.encode(given).equal(other.encode(given))
    assert is_same == (one.fingerprint() == other.fingerprint())
    assert is_same == name.startswith("decoder_")


def test_the_fingerprint_is_that_of_the_values_not_of_their_layout():
    vqgan = vqgan_of(TINY)
    before = vqgan.fingerprint()
    assert vqgan.to(memory_format=torch.channels_last).fingerprint() == before  # pyright: ignore[reportCallIssue]


LOCAL = VQGANConfig(
    channels=(8, 8, 8),
    blocks=1,
    num_codes=16,
    code_dim=4,
    norm_groups=4,
    patch=4,
    encoder_kernels=(3, 1, 1),
    encoder_norm="place",
)


def changed_places(vqgan, where):
    """Which latents move when a part of a picture does."""
    picture = torch.full((1, 3, 128, 128), 0.9)
    other = picture.clone()
    other[..., where, where] = 0.2
    with torch.no_grad():
        return (vqgan.latents(picture) - vqgan.latents(other)).abs().amax((0, 1)) > 0


def test_with_local_kernels_and_place_norm_a_token_depends_on_its_surroundings_alone():
    torch.manual_seed(0)
    is_changed = changed_places(VQGAN(LOCAL), slice(48, 64))  # the fourth token of a row, and of a column
    assert is_changed[3, 3]
    assert not is_changed[:, 5:].any()
    assert not is_changed[5:].any()
    assert not is_changed[:, :1].any()
    assert not is_changed[:1].any()


def test_group_norm_lets_every_token_know_of_the_whole_picture():
    torch.manual_seed(0)
    assert changed_places(VQGAN(dataclasses.replace(LOCAL, encoder_norm="group")), slice(48, 64)).all()


@torch.no_grad()
def test_what_local_tokens_are_made_of_moves_with_what_they_show():
    torch.manual_seed(0)
    vqgan = VQGAN(LOCAL)
    picture = torch.ones(1, 3, 128, 128)
    picture[..., 32:64, 32:64] = torch.rand(3, 32, 32)
    grid, moved = vqgan.latents(picture), vqgan.latents(picture.roll((16, 16), (2, 3)))
    assert moved[..., 2:6, 2:6].allclose(grid[..., 1:5, 1:5], atol=1e-5)
    assert not moved[..., 1:5, 1:5].allclose(grid[..., 1:5, 1:5], atol=0.1)


@pytest.mark.parametrize("kernels", [(3, 1), (3, 1, 5), (3, 1, 1, 1)])
def test_kernels_that_fit_no_encoder_are_refused(kernels):
    with pytest.raises(ValueError, match="give 1 or 3 for each of them"):
        dataclasses.replace(LOCAL, encoder_kernels=kernels)
