"""Our gradient of group normalisation is torch's, and takes its place where it is the faster one."""

import pytest
import torch
from torch import nn

from muse.models.group_norm import AT_ONCE, FEWEST, GroupNorm, is_ours_faster
from muse.models.vqgan import VQGAN, VQGANConfig

CHANNELS, GROUPS, SIDE = 48, 16, 140  # more than `FEWEST` numbers, in parts that are not all as long
assert max(FEWEST, AT_ONCE) <= CHANNELS * SIDE**2


def features(dtype=torch.float32, memory_format=torch.channels_last, samples=3):
    torch.manual_seed(0)
    # Far from the mean of 0: what sums would lose.
    maps = 3 + 2 * torch.randn(samples, CHANNELS, SIDE, SIDE) * torch.rand(CHANNELS, 1, 1)
    return maps.to(dtype).contiguous(memory_format=memory_format)


def layer_of(kind):
    layer = kind(GROUPS, CHANNELS, eps=1e-6)
    torch.manual_seed(1)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


def outcome(layer, given, dtype=torch.float32):
    """What a layer makes of features and a gradient: the features, and the gradients of them, weights and bias."""
    given = given.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    torch.manual_seed(2)
    normal = layer(given)
    # Rounded as the features are, so that every layer has the same.
    normal.backward(torch.randn(given.shape).to(torch.bfloat16).to(normal.dtype))
    return [each.detach().to(dtype) for each in (normal, given.grad, layer.weight.grad, layer.bias.grad)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_no_further_from_the_exact_gradient_than_torchs(dtype):
    given = features(dtype)
    assert is_ours_faster(given, GROUPS)
    exact = outcome(layer_of(nn.GroupNorm).double(), given.double(), torch.float64)
    ours, theirs = (outcome(layer_of(kind), given, torch.float64) for kind in (GroupNorm, nn.GroupNorm))
    for one, other, wanted in zip(ours, theirs, exact, strict=True):
        assert (one - wanted).norm() <= 1.01 * (other - wanted).norm() + 1e-6 * wanted.norm()
        assert (one - wanted).norm() <= 0.01 * wanted.norm()


def test_a_gradient_that_lies_otherwise_in_memory_is_the_same():
    given, layer = features().requires_grad_(), layer_of(GroupNorm)
    normal = layer(given)
    gradient = torch.randn(given.shape)
    one, other = (
        torch.autograd.grad(normal, given, each, retain_graph=True)[0]
        for each in (gradient, gradient.contiguous(memory_format=torch.channels_last))
    )
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (features(memory_format=torch.contiguous_format), "channel by channel"),
        (features()[:, :, :16, :16].contiguous(memory_format=torch.channels_last), "small"),
        (torch.empty(1, CHANNELS, SIDE, SIDE, device="meta").contiguous(memory_format=torch.channels_last), "device"),
    ],
)
def test_torchs_own_is_left_where_it_is_faster(given, why):
    assert not is_ours_faster(given, GROUPS), why
    assert not is_ours_faster(features(), 2), "wide groups"
    with torch.no_grad():
        assert not is_ours_faster(features(), GROUPS)


def test_compiled_it_is_torchs_own(monkeypatch):
    given = features()
    assert is_ours_faster(given, GROUPS)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not is_ours_faster(given, GROUPS)


def test_a_vqgan_trains_by_it_under_autocast():
    config = VQGANConfig(channels=(32, 32), blocks=1, decoder_blocks=1, code_dim=8, num_codes=16, norm_groups=8)
    torch.manual_seed(0)
    network = VQGAN(config).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    given = torch.rand(1, 3, 96, 96).contiguous(memory_format=torch.channels_last)
    ours = {type(each.grad_fn).__name__ for each in maps_of(network, given)}
    assert ours == {"PlaceByPlaceBackward"}


def maps_of(network, given):
    """What every group normalisation of a VQGAN gives at full size."""
    maps = []
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_hook(lambda _module, _given, out: maps.append(out) if out.shape[-1] == 96 else None)
    with torch.autocast("cpu", torch.bfloat16):
        network.decoder(network.latents(given))
    assert len(maps) >= 4
    assert {each.dtype for each in maps} == {torch.bfloat16}
    return maps
