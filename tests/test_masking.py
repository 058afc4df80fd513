"""How many tokens are hidden, and which."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, kstest

from muse.masking import cosine_schedule, draw_mask_ratio, halton_order, hidden_counts, hide, lowest

MASK_ID = 100


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def paper_cdf(ratio):
    """The integral of (2/pi)(1-r^2)^(-1/2)."""
    return 2 / math.pi * torch.as_tensor(ratio).arcsin().numpy()


# The ratio in training


def test_mask_ratios_follow_the_density_of_the_paper():
    ratios = draw_mask_ratio(20_000, seeded(), "cpu")
    assert kstest(ratios.double().numpy(), paper_cdf).pvalue > 0.01


def test_the_arccosine_that_others_draw_does_not_follow_the_density_of_the_paper():
    arccosine = torch.rand(20_000, generator=seeded()).double().arccos() * 2 / math.pi
    assert kstest(arccosine.numpy(), paper_cdf).pvalue < 1e-9


def test_mask_ratios_have_the_mean_and_the_heavy_end_of_the_paper():
    ratios = draw_mask_ratio(200_000, seeded(), "cpu")
    assert ratios.mean().item() == pytest.approx(0.64, abs=0.005)
    assert (ratios > 0.9).double().mean().item() == pytest.approx(0.287, abs=0.005)
    assert ratios.min() >= 0
    assert ratios.max() <= 1


def test_training_and_sampling_share_one_cosine():  # Meissonic conditions on two different scales
    progress = torch.rand(1000, generator=seeded(3))
    assert draw_mask_ratio(1000, seeded(3), "cpu").equal(cosine_schedule(progress))
    shares = cosine_schedule(torch.arange(1, 9) / 8) * 256
    assert hidden_counts(torch.tensor([256]), 8)[:, 0].tolist() == shares.floor().long().tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_cosine_goes_from_everything_to_nothing_and_never_below(dtype):
    shares = cosine_schedule(torch.linspace(0, 1, 1001, dtype=dtype))
    assert shares[0] == 1
    assert 0 <= shares[-1] < 1e-15
    assert (shares.diff() <= 0).all()


# Hiding tokens in training


@given(
    ratios=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6),
    positions=st.integers(1, 70),
    seed=st.integers(0, 99),
)
def test_each_sample_hides_its_own_rounded_share_and_at_least_one(ratios, positions, seed):  # aMUSEd: one for all
    tokens = torch.randint(MASK_ID, (len(ratios), positions), generator=seeded(seed))
    ratio = torch.tensor(ratios)
    _, is_hidden = hide(tokens, ratio, MASK_ID, seeded(seed))
    assert is_hidden.sum(1).tolist() == [max(1, round(each)) for each in (ratio * positions).tolist()]


def test_true_means_hidden_and_only_hidden_tokens_are_replaced():  # MaskGIT-pytorch: inverted mask
    tokens = torch.randint(MASK_ID, (8, 64), generator=seeded())
    before = tokens.clone()
    masked, is_hidden = hide(tokens, torch.full((8,), 0.25), MASK_ID, seeded(1))
    assert is_hidden.sum().item() == 8 * 16
    assert (masked == MASK_ID).equal(is_hidden)
    assert masked[~is_hidden].equal(tokens[~is_hidden])
    assert tokens.equal(before)


def test_every_position_is_hidden_equally_often():
    draws = 4000
    _, is_hidden = hide(torch.zeros(draws, 16, dtype=torch.long), torch.full((draws,), 0.25), MASK_ID, seeded())
    often = is_hidden.sum(0)
    low, high = binom.interval(1 - 1e-4, draws, 0.25)
    assert often.min() >= low
    assert often.max() <= high


def test_hiding_repeats_with_its_seed_and_leaves_the_global_generator_alone():  # Halton-MaskGIT: global generator
    tokens, ratio = torch.zeros(4, 64, dtype=torch.long), torch.full((4,), 0.5)
    state = torch.get_rng_state()
    first, again = hide(tokens, ratio, MASK_ID, seeded(5))[1], hide(tokens, ratio, MASK_ID, seeded(5))[1]
    other = hide(tokens, ratio, MASK_ID, seeded(6))[1]
    draw_mask_ratio(4, seeded(), "cpu")
    assert first.equal(again)
    assert not first.equal(other)
    assert torch.get_rng_state().equal(state)


def test_of_equal_scores_the_earlier_position_is_lower():
    is_lowest = lowest(torch.zeros(2, 5), torch.tensor([2, 0]))
    assert is_lowest.tolist() == [[True, True, False, False, False], [False] * 5]


# How many stay hidden in sampling


@given(num_steps=st.integers(1, 80), unknown=st.lists(st.integers(0, 5000), min_size=1, max_size=5))
def test_the_schedule_is_monotone_and_exact_for_every_number_of_steps_and_tokens(num_steps, unknown):
    counts = hidden_counts(torch.tensor(unknown), num_steps)
    assert counts.shape == (num_steps, len(unknown))
    for initial, column in zip(unknown, counts.T.tolist(), strict=True):
        before = [initial, *column[:-1]]
        assert all(now < last or now == last == 0 for last, now in zip(before, column, strict=True))
        assert column[-1] == 0
        for done, now in enumerate(column, start=1):
            cosine = math.floor(initial * math.cos(math.pi / 2 * done / num_steps) + 1e-9)
            assert now == min(cosine, max(initial - done, 0))


@given(num_steps=st.integers(1, 80), spare=st.integers(0, 5000))
def test_some_token_stays_hidden_until_the_last_step_if_there_are_enough(num_steps, spare):
    column = hidden_counts(torch.tensor([num_steps + spare]), num_steps)[:, 0]
    assert (column[:-1] >= 1).all()


@given(num_steps=st.integers(2, 80), data=st.data())
def test_with_fewer_tokens_than_steps_each_step_reveals_one_until_none_is_left(num_steps, data):
    unknown = data.draw(st.integers(0, num_steps - 1))
    column = hidden_counts(torch.tensor([unknown]), num_steps)[:, 0].tolist()
    assert column == [max(unknown - done, 0) for done in range(1, num_steps + 1)]


def test_the_schedule_of_one_sample_does_not_depend_on_the_others():  # aMUSEd, 1d-tokenizer: one count for all
    together = hidden_counts(torch.tensor([256, 10, 0]), 12)
    for sample, unknown in enumerate([256, 10, 0]):
        assert together[:, sample].equal(hidden_counts(torch.tensor([unknown]), 12)[:, 0])


def test_a_third_of_the_way_to_the_end_of_the_cosine_is_exactly_half():
    assert hidden_counts(torch.tensor([256, 4096]), 3)[1].tolist() == [128, 2048]


# Halton order


@given(height=st.integers(1, 33), width=st.integers(1, 33))
def test_halton_order_visits_every_position_of_a_grid_once(height, width):
    assert halton_order(height, width).sort().values.equal(torch.arange(height * width))


def test_halton_order_follows_the_sequence_in_base_two_and_three():
    # (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9), (5/8, 7/9) on 8 rows and 9 columns
    assert halton_order(8, 9)[:5].tolist() == [4 * 9 + 3, 2 * 9 + 6, 6 * 9 + 1, 1 * 9 + 4, 5 * 9 + 7]


def test_the_first_quarter_of_a_halton_order_covers_every_quarter_of_the_grid():
    first = halton_order(16, 16)[:64]
    quarter = first // 16 // 8 * 2 + first % 16 // 8
    assert all(12 <= count <= 20 for count in quarter.bincount().tolist())
