"""The mask-free loop and variations, with a fake network."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from muse.sampling import EditOptions, edit, generators_for, hide_share
from muse.shapes import Step

NUM_CODES = MASK_ID = 12
POSITIONS = 64
OPTIONS = EditOptions(iterations=10)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def some_tokens(batch=2, seed=3):
    return torch.randint(NUM_CODES, (batch, POSITIONS), generator=seeded(seed))


def network(tokens, is_hidden, step):
    """Logits that depend on a token and on its neighbours, and on no other sample."""
    table = 2 * torch.randn(MASK_ID + 1, NUM_CODES, generator=seeded(1))
    return table[tokens] + table[tokens].roll(1, dims=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_sampled_in_float32(dtype):  # aMUSEd: fp16 softmax and Gumbel give -inf
    num_codes = 8192
    logits = (4 * torch.randn(1, POSITIONS, num_codes, generator=seeded())).to(dtype)
    options = EditOptions(iterations=20, share=0.5, top_k=None)
    start = torch.zeros(1, POSITIONS, dtype=torch.long)
    drawn, expected = (
        edit(start, lambda *_, given=given: given, options, seeded(), num_codes) for given in (logits, logits.float())
    )
    assert drawn.equal(expected)


def wanting(code):
    def predict(tokens, is_hidden, step):
        return torch.zeros(*tokens.shape, NUM_CODES).index_fill(-1, torch.tensor([code]), 50.0)

    return predict


def reports_of(tokens, predict, options, seed=0):
    reports = []
    edit(tokens, predict, options, generators_for([seed + i for i in range(len(tokens))]), MASK_ID, reports.append)
    return reports


def test_the_defaults_are_those_of_the_paper():
    options = EditOptions()
    assert (options.iterations, options.share, options.top_k, options.guidance) == (100, 0.08, 3, 4.0)


@given(st.integers(0, 99), st.sampled_from([0.001, 0.08, 0.5, 1.0]), st.integers(1, 6))
@settings(deadline=None, max_examples=30)
def test_each_iteration_hides_and_draws_exactly_its_share_and_leaves_the_rest(seed, share, iterations):
    tokens = some_tokens(3, seed)
    before, seen = tokens.clone(), []

    def predict(given_tokens, is_hidden, step):
        seen.append((given_tokens.clone(), is_hidden.clone(), step))
        return network(given_tokens, is_hidden, step)

    options = EditOptions(iterations=iterations, share=share)
    reports = []
    edited = edit(tokens, predict, options, generators_for([seed, 1, 2]), MASK_ID, reports.append)
    assert tokens.equal(before)
    count = max(round(share * POSITIONS), 1)
    for (given_tokens, is_hidden, step), report in zip(seen, reports, strict=True):
        assert (is_hidden.sum(1) == count).all()
        assert (given_tokens == MASK_ID).equal(is_hidden)
        assert report.tokens[~is_hidden].equal(before[~is_hidden])
        assert report.step == step
        assert not report.is_hidden.any()
        before = report.tokens
    assert edited.equal(before)
    assert edited.max() < NUM_CODES
    assert [step for _, _, step in seen] == [Step(i, iterations) for i in range(iterations)]


def test_enough_iterations_reach_what_the_network_wants_and_fewer_keep_more():
    tokens = some_tokens()
    kept = [
        (edit(tokens, wanting(5), EditOptions(iterations=num), seeded(), MASK_ID) == tokens).float().mean().item()
        for num in (1, 10, 50, 200)
    ]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > 0.9
    assert edit(tokens, wanting(5), EditOptions(iterations=200), seeded(), MASK_ID).eq(5).all()


def test_stopping_early_is_asking_for_fewer_iterations():
    reports = reports_of(some_tokens(), network, OPTIONS)
    for num in (1, 4):
        assert reports_of(some_tokens(), network, replace(OPTIONS, iterations=num))[-1].tokens.equal(
            reports[num - 1].tokens
        )


def test_a_picture_that_has_changed_enough_stops_while_others_go_on():
    tokens = some_tokens()
    tokens[0] = 5  # has what is wanted, and never changes
    options = EditOptions(iterations=60, most_changed=0.25)
    reports = reports_of(tokens, wanting(5), options)
    changed = [(report.tokens != tokens).float().mean(1) for report in reports]
    assert len(reports) == 60
    assert 0.25 <= changed[-1][1] < 0.25 + options.share
    alone = reports_of(tokens[1:], wanting(5), options, seed=1)
    assert len(alone) < 60
    assert alone[-1].tokens[0].equal(reports[-1].tokens[1])


def test_a_sample_of_a_batch_is_the_sample_alone_and_another_seed_is_another_edit():
    tokens = some_tokens(4)
    together = edit(tokens, network, OPTIONS, generators_for([7, 8, 9, 10]), MASK_ID)
    for i in range(4):
        assert edit(tokens[i : i + 1], network, OPTIONS, seeded(7 + i), MASK_ID)[0].equal(together[i])
    assert not edit(tokens[:1], network, OPTIONS, seeded(8), MASK_ID)[0].equal(together[0])


@pytest.mark.parametrize("change", [{"share": 0.5}, {"iterations": 20}, {"top_k": 1}, {"temperature": 0.0}])
def test_every_option_is_seen_in_the_tokens(change):
    changed = edit(some_tokens(), network, replace(OPTIONS, **change), seeded(), MASK_ID)
    assert not changed.equal(edit(some_tokens(), network, OPTIONS, seeded(), MASK_ID))


def test_only_the_likeliest_codes_are_drawn():
    options = replace(OPTIONS, share=1.0, iterations=1)
    logits = network(torch.full((2, POSITIONS), MASK_ID), None, None)
    drawn = edit(some_tokens(), network, options, seeded(), MASK_ID)
    assert (drawn.unsqueeze(-1) == logits.topk(3).indices).any(-1).all()


def test_hidden_tokens_and_broken_networks_are_refused():
    tokens = some_tokens()
    tokens[0, 0] = MASK_ID
    with pytest.raises(ValueError, match="some of the tokens to edit are hidden; fill them first"):
        edit(tokens, network, OPTIONS, seeded(), MASK_ID)
    with pytest.raises(ValueError, match="start tokens hold 13"):
        edit(tokens + 1, network, OPTIONS, seeded(), MASK_ID)
    with pytest.raises(FloatingPointError, match=r"logits that are NaN or \+inf at step 0 of 10"):
        edit(some_tokens(), lambda *a: network(*a) * torch.nan, OPTIONS, seeded(), MASK_ID)


# -- variations -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 999), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None)
def test_strength_hides_its_share_and_what_it_hides_a_greater_one_hides_too(seed, one, other):
    weaker, stronger = sorted((one, other))
    # diffusers' img2img: strength 1.0 hides nothing, 0.9 hides 97%
    hidden = []
    for strength in (weaker, stronger):
        start = hide_share(some_tokens(), strength, MASK_ID, generators_for([seed, seed + 1]))
        is_hidden = start == MASK_ID
        assert (is_hidden.sum(1) == round(strength * POSITIONS)).all()
        assert start[~is_hidden].equal(some_tokens()[~is_hidden])
        hidden.append(is_hidden)
    assert (hidden[0] <= hidden[1]).all()


def test_strength_zero_hides_nothing_and_one_everything():
    assert hide_share(some_tokens(), 0, MASK_ID, seeded()).equal(some_tokens())
    assert (hide_share(some_tokens(), 1, MASK_ID, seeded()) == MASK_ID).all()


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), "half", True, None])
def test_a_strength_that_is_none_is_refused(strength, without_type_checks):
    with pytest.raises(ValueError, match="give a number from 0"):
        hide_share(some_tokens(), strength, MASK_ID, seeded())


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("iterations", value) for value in (0, -1, 1.5, True, 10_001)),
        *(("share", value) for value in (0, -0.1, 1.1, True, "8%", float("nan"))),
        *(("most_changed", value) for value in (0, 2.0, "all")),
        *((name, value) for name in ("guidance", "temperature") for value in (-1, float("inf"), None)),
        *(("top_k", value) for value in (0, 2.5, "3")),
        *(("refresh", value) for value in (0, 1.5, None)),
    ],
)
def test_a_wrong_value_is_refused_by_name(name, value, without_type_checks):
    with pytest.raises(ValueError, match=rf"^{name} is .*; give "):
        EditOptions(**{name: value})
