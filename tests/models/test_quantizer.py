"""The codebook: the nearest code exactly, and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muse.models import quantizer as quantizer_module
from muse.models.quantizer import VectorQuantizer, as_grid, as_sequence


def quantizer_of(num_codes, dim, scale=1.0, seed=0):
    quantizer = VectorQuantizer(num_codes, dim).requires_grad_(False)
    quantizer.codebook.copy_(scale * torch.randn(num_codes, dim, generator=torch.Generator().manual_seed(seed)))
    return quantizer


def latents_of(batch, dim, height, width, scale=1.0, seed=1):
    return scale * torch.randn(batch, dim, height, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4)),
    num_codes=st.integers(1, 20),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    seed=st.integers(0, 10_000),
)
def test_the_nearest_code_is_that_of_brute_force(shape, num_codes, scale, seed):
    batch, dim, height, width = shape
    quantizer, latents = quantizer_of(num_codes, dim, scale, seed), latents_of(*shape, scale=scale, seed=seed + 1)
    rows = latents.movedim(1, -1).reshape(-1, dim).double()
    distances = torch.cdist(rows, quantizer.codebook.double())
    tokens = quantizer.nearest(latents)
    assert tokens.shape == (batch, height, width)
    chosen = distances.gather(1, tokens.reshape(-1, 1)).squeeze(1)
    # A tie within float32 may fall to either side.
    torch.testing.assert_close(chosen, distances.min(1).values, atol=1e-4 * scale, rtol=1e-4)


def test_the_nearest_code_is_the_exact_argmin_where_nothing_ties():
    quantizer, latents = quantizer_of(64, 8), latents_of(4, 8, 6, 5)
    brute = torch.cdist(latents.movedim(1, -1).reshape(-1, 8).double(), quantizer.codebook.double()).argmin(1)
    assert quantizer.nearest(latents).flatten().equal(brute)
    assert len(brute.unique()) > 20


@settings(max_examples=20, deadline=None)
@given(num_codes=st.integers(2, 50), dim=st.integers(2, 8), seed=st.integers(0, 1000))
def test_looking_up_a_code_and_taking_the_nearest_gives_it_back(num_codes, dim, seed):
    quantizer = quantizer_of(num_codes, dim, seed=seed)
    tokens = torch.randint(num_codes, (2, 3, 4), generator=torch.Generator().manual_seed(seed))
    codes = quantizer.look_up(tokens)
    assert codes.shape == (2, dim, 3, 4)
    assert codes[1, :, 2, 3].equal(quantizer.codebook[tokens[1, 2, 3]])
    assert quantizer.nearest(codes).equal(tokens)


def test_the_choice_is_the_same_under_bfloat16_autocast():
    quantizer, latents = quantizer_of(512, 16), latents_of(2, 16, 8, 8)
    plain = quantizer.nearest(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert quantizer.nearest(latents).equal(plain)
    # The test could fail: in bfloat16 arithmetic other codes are nearest.
    rows = latents.movedim(1, -1).reshape(-1, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = (quantizer.codebook.square().sum(1) - 2 * rows @ quantizer.codebook.T).argmin(1)
    assert not rounded.equal(plain.flatten())


@pytest.mark.parametrize("at_once", [1, 1000, 64 * 50])
def test_a_few_latents_at_a_time_choose_the_same_codes(monkeypatch, at_once):
    quantizer, latents = quantizer_of(64, 8), latents_of(3, 8, 6, 5)
    whole = quantizer.nearest(latents)
    monkeypatch.setattr(quantizer_module, "AT_ONCE", at_once)
    assert quantizer.rows_at_once == max(at_once // 64, 1) < 90
    assert quantizer.nearest(latents).equal(whole)


def test_latents_in_half_precision_are_compared_in_float32():
    quantizer, latents = quantizer_of(256, 8), latents_of(1, 8, 8, 8).bfloat16()
    assert quantizer.nearest(latents).equal(quantizer.nearest(latents.float()))


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 3), height=st.integers(1, 6), width=st.integers(1, 6))
def test_a_grid_as_a_sequence_and_back_is_the_same_grid(batch, height, width):
    grid = torch.arange(batch * height * width).reshape(batch, height, width)
    sequence = as_sequence(grid)
    assert sequence.shape == (batch, height * width)
    assert as_grid(sequence, height).equal(grid)


def test_position_is_row_times_width_plus_column():
    grid = torch.tensor([[[0, 1, 2], [3, 4, 5]]])
    assert as_sequence(grid).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_a_sequence_that_is_no_such_grid_is_refused():
    with pytest.raises(Exception, match="7"):
        as_grid(torch.zeros(1, 7, dtype=torch.long), height=2)


def test_a_fresh_codebook_can_be_filled_again_after_building_on_meta():
    with torch.device("meta"):
        quantizer = VectorQuantizer(10, 3)
    quantizer.to_empty(device="cpu")
    quantizer.reset_parameters()
    assert quantizer.codebook.abs().max() <= 0.1
    assert len(quantizer.codebook.unique(dim=0)) == 10
