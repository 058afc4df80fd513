"""Layers that multiply in 8 bits."""

import copy

import pytest
import torch
from torch import nn

from muse.models.layers import FeedForward, Stack
from muse.models.narrow import LARGEST, NarrowLinear, narrow, narrowed

OFF = {torch.int8: 0.02, torch.float8_e4m3fn: 0.06}
"""How far products of random numbers may be off, in shares of their size."""
EACH = pytest.mark.parametrize("number", list(OFF))


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def linear(features=64, out=96):
    layer = nn.Linear(features, out, bias=False)
    layer.weight.data = random(out, features) * torch.logspace(-3, 1, out)[:, None]
    return layer


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_products_of_8_bits_are_close_however_large_a_position_and_an_output_are(number, dtype):
    layer, states = linear(), random(2, 24, 64) * torch.logspace(-4, 4, 24)[:, None]
    close = NarrowLinear(layer, number)(states.to(dtype))
    assert close.dtype == dtype
    usual = states.norm(dim=-1, keepdim=True) * layer.weight.norm(dim=1) / 8  # size of a product of random numbers
    error = (close.float() - layer(states)) / usual
    assert OFF[number] / 4 < error.square().mean().sqrt() < OFF[number]
    assert error.abs().max() < 5 * OFF[number]


@EACH
def test_small_rows_keep_their_scale_in_float16(number):
    rows = 1e-3 * random(2, 64)
    (_, scale), (_, whole) = narrowed(rows.half(), number), narrowed(rows.half().float(), number)
    torch.testing.assert_close(scale, whole)


@EACH
def test_a_position_is_rounded_by_itself(number):
    narrow_layer, states = NarrowLinear(linear(), number), random(1, 32, 64)
    beside_large = torch.cat([states, 1e6 * torch.ones(1, 32, 64)])
    torch.testing.assert_close(narrow_layer(beside_large)[:1], narrow_layer(states))


@EACH
def test_the_largest_number_of_a_row_is_the_largest_there_is_and_zeros_stay(number):
    rows = torch.stack([random(64), torch.zeros(64)])
    stored, scale = narrowed(rows, number)
    assert stored[0].float().abs().max() == LARGEST[number]
    assert stored[1].float().eq(0).all()
    assert scale.isfinite().all()
    assert NarrowLinear(linear(), number)(rows)[1].eq(0).all()


@EACH
@pytest.mark.parametrize("which", ["base", "superres"])
@torch.no_grad()
def test_the_layers_of_a_transformer_are_narrow_and_its_logits_close(number, which, request):
    muse = request.getfixturevalue("cascade")
    network = copy.deepcopy(getattr(muse, which))
    text, is_word = muse.text_encoder(["a red apple", "two blue dogs"])
    config = network.config
    tokens = torch.randint(config.num_codes, (2, config.height * config.width))
    given = (text, is_word) if which == "base" else (torch.randint(64, (2, 64)), text, is_word)
    exact = network(tokens, network.read(*given))
    narrow(network, number)
    close = network(tokens, network.read(*given))
    linears = [name for name, each in network.layers.named_modules() if isinstance(each, nn.Linear)]
    assert not linears
    assert isinstance(network.head[-1], nn.Linear)
    assert 0 < (close - exact).norm() / exact.norm() < 0.1


def test_layers_of_features_that_gpus_do_not_multiply_stay_as_they_are():
    stack = Stack([FeedForward(32, 64), FeedForward(32, 40)])
    narrow(stack, torch.int8)
    assert [type(each.widen) for each in stack] == [NarrowLinear, nn.Linear]


def test_a_layer_with_a_bias_is_refused():
    with pytest.raises(ValueError, match="has a bias"):
        NarrowLinear(nn.Linear(4, 4), torch.int8)
