"""Attention by plain products on short sequences is the fused attention, and learns the same."""

import pytest
import torch
import torch.nn.functional as F

from muse.models import layers
from muse.models.layers import attend


def heads(words, seed, texts=3):
    return torch.randn(texts, 2, words, 8, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("longest_plain", [0, 512])
@pytest.mark.parametrize("has_padding", [False, True])
@pytest.mark.parametrize("has_amx", [False, True])
def test_short_and_long_sequences_attend_alike(longest_plain, has_padding, has_amx, monkeypatch):
    monkeypatch.setattr(layers, "LONGEST_PLAIN", longest_plain)
    monkeypatch.setattr(layers, "HAS_AMX", has_amx)
    query, key, value = heads(5, 0), heads(7, 1), heads(7, 2)
    is_visible = torch.arange(7) < torch.tensor([[7], [1], [4]]) if has_padding else None
    mask = None if is_visible is None else is_visible[:, None, None]
    wanted = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    given = attend(query, key, value, is_visible)
    assert torch.allclose(given, wanted, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(attend(query, key, value, is_visible), wanted, atol=1e-6)
    inputs = (query, key, value)
    weights = heads(5, 3)
    for a, b in zip(
        torch.autograd.grad((given * weights).sum(), inputs),
        torch.autograd.grad((wanted * weights).sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("has_amx", "dtype", "queries", "keys", "trains", "is_plain"),
    [
        (False, torch.float32, 1, 512, False, True),
        (False, torch.float32, 1, 513, False, False),
        (False, torch.float32, 4096, 256, False, False),
        (False, torch.float32, 4095, 256, False, True),
        (False, torch.bfloat16, 4096, 256, False, True),
        (False, torch.bfloat16, 1, 1024, False, True),
        (False, torch.bfloat16, 1, 1025, False, False),
        (True, torch.float32, 1, 64, False, False),
        (True, torch.float32, 4096, 512, True, True),
        (False, torch.bfloat16, 1, 513, True, False),
    ],
)
def test_plain_products_are_taken_where_they_were_measured_to_be_faster(
    has_amx, dtype, queries, keys, trains, is_plain, monkeypatch
):
    monkeypatch.setattr(layers, "HAS_AMX", has_amx)
    with torch.set_grad_enabled(trains):
        for batch in (1, 8):  # a sample is what it is alone
            assert layers.is_plain_faster(torch.zeros(batch, 1, queries, 1, dtype=dtype), keys) == is_plain
    assert not layers.is_plain_faster(torch.zeros(1, 1, 1, 1, device="meta"), keys)
