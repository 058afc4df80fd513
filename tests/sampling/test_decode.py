"""Parallel decoding, with a fake network: none of it needs a real one."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from muse.guidance import guided
from muse.masking import halton_order, hidden_counts
from muse.sampling import SamplingOptions, decode, generators_for
from muse.sampling.decode import confidence, draw_codes, remasked
from muse.shapes import Step

NUM_CODES = 12
MASK_ID = NUM_CODES
HALTON = SamplingOptions(steps=6, sampler="halton")
CONFIDENCE = SamplingOptions(steps=6)
BOTH_SAMPLERS = pytest.mark.parametrize("options", [CONFIDENCE, HALTON], ids=lambda options: options.sampler)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nothing_known(batch: int = 2, positions: int = 64, mask_id: int = MASK_ID) -> torch.Tensor:
    return torch.full((batch, positions), mask_id)


def network(tokens, is_hidden, step):
    """Logits that depend on a token and on its neighbours, and on no other sample."""
    table = 2 * torch.randn(MASK_ID + 1, NUM_CODES, generator=seeded(1))
    place = torch.randn(tokens.shape[1], NUM_CODES, generator=seeded(2))
    return table[tokens] + table[tokens].roll(1, dims=1) + place


def always(*log_weights: float):
    """A network that says the same of every position, whatever is known."""

    def predict(tokens, is_hidden, step):
        return torch.tensor(log_weights).expand(*tokens.shape, -1)

    return predict


def places(positions: int, num_codes: int = NUM_CODES):
    """A network of which each position has logits of its own, whatever is known."""
    logits = 2 * torch.randn(positions, num_codes, generator=seeded(7))

    def predict(tokens, is_hidden, step):
        return logits.expand(tokens.shape[0], -1, -1)

    return predict


def reports_of(start, predict, options, seed=0, mask_id=MASK_ID):
    reports = []
    decode(start, predict, options, seeded(seed), mask_id, reports.append)
    return reports


# What decode promises whatever the options


@settings(deadline=None)
@given(
    seed=st.integers(0, 999),
    side=st.integers(1, 7),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=4),
    steps=st.integers(1, 12),
    sampler=st.sampled_from(["confidence", "halton"]),
    temperature=st.sampled_from([0.0, 1e-30, 0.5, 1.0, 3.0]),
    top_k=st.sampled_from([None, 1, 3, 99]),
    remask=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_decode_keeps_every_given_token_and_ends_with_none_hidden(
    seed, side, shares, steps, sampler, temperature, top_k, remask
):
    tokens = torch.randint(NUM_CODES, (len(shares), side * side), generator=seeded(seed))
    is_given = torch.rand(tokens.shape, generator=seeded(seed + 1)) >= torch.tensor(shares).unsqueeze(1)
    start = torch.where(is_given, tokens, MASK_ID)
    before = start.clone()
    options = SamplingOptions(steps=steps, sampler=sampler, temperature=temperature, top_k=top_k, remask=remask)
    counts = hidden_counts((~is_given).sum(1), steps)
    seen = []

    def look(report):
        seen.append(report)
        assert (report.tokens == MASK_ID).equal(report.is_hidden)
        assert report.tokens[is_given].equal(tokens[is_given])
        # Counts are each sample's own; aMUSEd and 1d-tokenizer use one for the whole batch.
        assert report.is_hidden.sum(1).equal(counts[report.step.index])

    drawn = decode(start, network, options, seeded(seed), MASK_ID, look)
    assert drawn[is_given].equal(tokens[is_given])
    assert drawn.min() >= 0
    assert drawn.max() < NUM_CODES
    assert start.equal(before)
    assert len(seen) == steps


@BOTH_SAMPLERS
def test_a_token_once_revealed_never_changes(options):
    reports = reports_of(nothing_known(), network, options)
    for before, after in pairwise(reports):
        is_known = ~before.is_hidden
        assert after.tokens[is_known].equal(before.tokens[is_known])


@BOTH_SAMPLERS
@pytest.mark.parametrize("steps", [1, 2, 7, 24])
def test_the_network_is_called_exactly_once_a_step(options, steps):
    called = []

    def predict(tokens, is_hidden, step):
        called.append(step)
        return network(tokens, is_hidden, step)

    decode(nothing_known(), predict, replace(options, steps=steps), seeded(), MASK_ID)
    assert called == [Step(index, steps) for index in range(steps)]


@BOTH_SAMPLERS
def test_the_network_sees_what_is_hidden_and_the_mask_id_there(options):
    def predict(tokens, is_hidden, step):
        assert (tokens == MASK_ID).equal(is_hidden)
        return network(tokens, is_hidden, step)

    decode(nothing_known(), predict, options, seeded(), MASK_ID)


@BOTH_SAMPLERS
def test_with_nothing_hidden_the_tokens_come_back(options):
    tokens = torch.randint(NUM_CODES, (2, 64), generator=seeded())
    assert decode(tokens, network, options, seeded(), MASK_ID).equal(tokens)


@BOTH_SAMPLERS
def test_a_callback_cannot_change_the_picture(options):
    def vandal(report):
        report.tokens.zero_()
        report.is_hidden.fill_(True)

    alone = decode(nothing_known(), network, options, seeded(), MASK_ID)
    assert decode(nothing_known(), network, options, seeded(), MASK_ID, vandal).equal(alone)


def test_the_last_report_is_the_result():
    reports = []
    drawn = decode(nothing_known(), network, CONFIDENCE, seeded(), MASK_ID, reports.append)
    assert reports[-1].tokens.equal(drawn)
    assert not reports[-1].is_hidden.any()


@pytest.mark.parametrize("remask", [0.0, 0.3])
def test_reports_say_how_likely_each_token_was_when_it_was_drawn(remask):
    predict, start = places(64), nothing_known()
    start[:, :10] = 3
    reports = reports_of(start, predict, replace(CONFIDENCE, temperature=2.0, remask=remask))
    drawn = reports[-1].tokens
    log_probs = predict(drawn, None, None).log_softmax(-1).gather(-1, drawn[..., None]).squeeze(-1)
    log_probs[:, :10] = 0
    assert torch.allclose(reports[-1].log_probs, log_probs)
    first = reports[0]
    assert torch.equal(first.log_probs, torch.where(first.is_hidden, 0, first.log_probs))
    assert (first.log_probs[:, 10:][~first.is_hidden[:, 10:]] < 0).all()


def test_decode_follows_the_guided_prediction():
    conditional, unconditional = always(0.0, 1.0, -9.0), always(0.0, 3.0, -9.0)

    def both(tokens, is_hidden, step, blend):
        return blend(conditional(tokens, is_hidden, step), unconditional(tokens, is_hidden, step))

    start, options = nothing_known(mask_id=3), SamplingOptions(steps=1, temperature=0.0)
    plain = decode(start, guided(conditional, both, 0.0, "linear"), options, seeded(), mask_id=3)
    pushed = decode(start, guided(conditional, both, 4.0, "linear"), options, seeded(), mask_id=3)
    assert (plain == 1).all()
    assert (pushed == 0).all()


# Seeds


def test_a_seed_counts_with_all_its_bits_and_short_ones_are_as_they_are():
    seeds = [1, 2**32 + 1, 2**33 + 1, 2**62 + 1, 2**63 - 1, 2**32 - 1]
    drawn = [torch.rand(4, generator=generator) for generator in generators_for(seeds)]
    assert drawn[0].equal(torch.rand(4, generator=seeded(1)))
    assert drawn[5].equal(torch.rand(4, generator=seeded(2**32 - 1)))
    assert not any(one.equal(other) for i, one in enumerate(drawn) for other in drawn[:i])


@BOTH_SAMPLERS
def test_the_same_seed_draws_the_same_tokens_and_another_seed_others(options):
    first, again, other = (decode(nothing_known(), network, options, seeded(seed), MASK_ID) for seed in (3, 3, 4))
    assert first.equal(again)
    assert not first.equal(other)


@BOTH_SAMPLERS
@pytest.mark.parametrize("extra", [{}, {"temperature": 0.0}, {"top_k": 3}, {"choice_noise": 0.0}])
def test_picture_i_of_a_batch_equals_the_same_picture_drawn_alone(options, extra):
    options = replace(options, **extra)
    start = nothing_known(batch=4)
    start[1, 10:50] = 5  # a sample with fewer hidden tokens must not disturb its neighbours
    seeds = [11, 12, 13, 14]
    together = decode(start, network, options, generators_for(seeds), MASK_ID)
    for index, seed in enumerate(seeds):
        alone = decode(start[index : index + 1], network, options, generators_for([seed]), MASK_ID)
        assert alone.equal(together[index : index + 1])


def test_one_generator_and_a_list_of_that_one_draw_the_same_picture():
    one = decode(nothing_known(batch=1), network, CONFIDENCE, seeded(9), MASK_ID)
    assert one.equal(decode(nothing_known(batch=1), network, CONFIDENCE, generators_for([9]), MASK_ID))


def test_one_generator_for_a_batch_draws_different_pictures():
    first, second = decode(nothing_known(), network, CONFIDENCE, seeded(), MASK_ID)
    assert not first.equal(second)


@BOTH_SAMPLERS
def test_the_global_generator_is_neither_read_nor_moved(options):  # Halton-MaskGIT: noise from a global generator
    torch.manual_seed(1)
    first = decode(nothing_known(), network, options, seeded(), MASK_ID)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert decode(nothing_known(), network, options, seeded(), MASK_ID).equal(first)
    assert torch.get_rng_state().equal(state)


# The draw of tokens


def test_codes_are_drawn_as_often_as_the_softmax_says():
    log_weights = [0.0, 1.0, -math.inf, 2.0, -1.0]
    options = SamplingOptions(steps=1)
    drawn = decode(nothing_known(64, 1024, mask_id=5), always(*log_weights), options, seeded(), mask_id=5)
    often = drawn.flatten().bincount(minlength=5)
    expected = torch.tensor(log_weights).double().softmax(0) * drawn.numel()
    assert often[2] == 0
    possible = expected > 0
    assert chisquare(often[possible], expected[possible]).pvalue > 0.001


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_is_the_same_at_every_step(temperature):  # open-muse, Show-o: compounds to 0 by the middle
    log_weights = (0.0, 1.0, 2.0)
    options = replace(HALTON, temperature=temperature, steps=8)  # Halton order chooses without looking at the codes
    expected = (torch.tensor(log_weights).double() / temperature).softmax(0)
    still_hidden = torch.ones(128, 256, dtype=torch.bool)
    for report in reports_of(nothing_known(128, 256, mask_id=3), always(*log_weights), options, mask_id=3):
        often = report.tokens[still_hidden & ~report.is_hidden].bincount(minlength=3)
        assert chisquare(often, expected * often.sum()).pvalue > 0.0005
        still_hidden = report.is_hidden


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 1e-12, 1e-5])
@BOTH_SAMPLERS
def test_temperature_zero_takes_the_likeliest_code(options, temperature):  # 1d-tokenizer: divides by zero
    predict = places(64)
    drawn = decode(nothing_known(), predict, replace(options, temperature=temperature), seeded(), MASK_ID)
    assert drawn.equal(predict(drawn, drawn == MASK_ID, Step(0, 1)).argmax(-1))


def test_a_low_temperature_is_still_a_temperature():
    log_probs = torch.tensor([0.0, -1e-4]).log_softmax(0).expand(1, 1000, 2)
    drawn = draw_codes(log_probs, torch.rand(1, 1000, generator=seeded()), 1e-4, None)
    assert drawn.float().mean().item() == pytest.approx(1 / (1 + math.e), abs=0.05)


@pytest.mark.parametrize("top_k", [1, 3, NUM_CODES])
@BOTH_SAMPLERS
def test_top_k_draws_from_exactly_that_many_codes(options, top_k):  # muse-maskgit: "top-k 0.9" keeps 10%
    predict = places(64)
    drawn = decode(nothing_known(400), predict, replace(options, top_k=top_k, temperature=9.0), seeded(), MASK_ID)
    allowed = predict(drawn[:1], drawn[:1] == MASK_ID, Step(0, 1))[0].topk(top_k).indices
    assert all(set(column.tolist()) == set(codes.tolist()) for column, codes in zip(drawn.T, allowed, strict=True))


def test_top_k_keeps_k_codes_even_where_all_are_equally_likely():
    drawn = decode(nothing_known(64), always(*[0.0] * NUM_CODES), replace(HALTON, top_k=2), seeded(), MASK_ID)
    assert len(drawn.unique()) == 2


def test_a_top_k_larger_than_the_codebook_keeps_all_codes():
    drawn = decode(nothing_known(), network, replace(HALTON, top_k=10**6), seeded(), MASK_ID)
    assert drawn.max() < NUM_CODES


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("num_codes", [3, 1000, 8192])
def test_a_uniform_at_either_end_draws_no_impossible_code(uniform, num_codes):
    logits = torch.randn(1, 500, num_codes, generator=seeded())
    logits[..., 0] = logits[..., -1] = -math.inf
    drawn = draw_codes(logits.log_softmax(-1), torch.full((1, 500), uniform), 1.0, None)
    assert drawn.min() > 0
    assert drawn.max() < num_codes - 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@BOTH_SAMPLERS
def test_half_precision_logits_are_sampled_in_float32(options, dtype):  # aMUSEd: fp16 softmax and Gumbel give -inf
    num_codes = 8192
    logits = (4 * torch.randn(1, 64, num_codes, generator=seeded())).to(dtype)
    logits[:, ::8, 7] = 3e4

    def half(tokens, is_hidden, step):
        return logits

    def single(tokens, is_hidden, step):
        return logits.float()

    start = torch.full((1, 64), num_codes)
    drawn = decode(start, half, options, seeded(), mask_id=num_codes)
    assert drawn.equal(decode(start, single, options, seeded(), mask_id=num_codes))


# The choice of positions


def test_without_noise_the_most_confident_tokens_are_revealed_first():
    predict = places(64)
    options = replace(CONFIDENCE, temperature=0.0, choice_noise=0.0)
    best = predict(nothing_known(), None, None).log_softmax(-1).amax(-1)
    for report in reports_of(nothing_known(), predict, options):
        for score, is_hidden in zip(best, report.is_hidden, strict=True):
            assert is_hidden.all() or not is_hidden.any() or score[~is_hidden].min() >= score[is_hidden].max()


def test_choice_noise_varies_the_order_with_the_seed():
    def first_revealed(choice_noise, seed):
        options = replace(CONFIDENCE, temperature=0.0, choice_noise=choice_noise)
        return reports_of(nothing_known(), places(64), options, seed)[0].is_hidden

    assert first_revealed(0.0, seed=1).equal(first_revealed(0.0, seed=2))
    assert not first_revealed(4.5, seed=1).equal(first_revealed(4.5, seed=2))


def test_choice_noise_is_a_pure_function_of_the_step_that_falls_to_zero():  # muse-maskgit: none; open-muse: compounds
    log_probs, uniforms = torch.zeros(1, 64), torch.rand(1, 64, generator=seeded())
    noise = [confidence(log_probs, uniforms, 4.5, Step(index, 4)) for index in range(4)]
    gumbel = -(-uniforms.log()).log()
    for index, strength in enumerate([0.75, 0.5, 0.25, 0.0]):
        torch.testing.assert_close(noise[index], 4.5 * strength * gumbel)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_choice_noise_is_finite_at_either_end_and_absent_at_the_last_step(uniform):
    log_probs, uniforms = torch.full((1, 1), -2.0), torch.full((1, 1), uniform)
    assert confidence(log_probs, uniforms, 4.5, Step(0, 2)).isfinite().all()
    assert confidence(log_probs, uniforms, 4.5, Step(1, 2)).equal(log_probs)


@BOTH_SAMPLERS
def test_confidence_does_not_see_a_constant_added_to_the_logits(options):  # 1d-tokenizer: unnormalised logits
    shift = torch.randint(-40, 40, (64, 1), generator=seeded(8)).float()

    def quantised(tokens, is_hidden, step):
        return (network(tokens, is_hidden, step) * 64).round() / 64  # so that adding is exact

    def shifted(tokens, is_hidden, step):
        return quantised(tokens, is_hidden, step) + shift

    drawn = decode(nothing_known(), quantised, options, seeded(), MASK_ID)
    assert drawn.equal(decode(nothing_known(), shifted, options, seeded(), MASK_ID))


def test_halton_reveals_each_samples_hidden_positions_in_halton_order():
    start = nothing_known(batch=2, positions=64)
    start[1, ::3] = 0
    order = halton_order(8, 8)
    for report in reports_of(start, network, HALTON):
        for known_at_start, is_hidden in zip(start != MASK_ID, report.is_hidden, strict=True):
            in_order = is_hidden[order][~known_at_start[order]]
            assert (in_order.int().diff() >= 0).all()  # the known ones first, then the hidden ones


def test_halton_draws_a_batch_of_one():  # Halton-MaskGIT breaks there
    assert decode(nothing_known(batch=1), network, HALTON, seeded(), MASK_ID).shape == (1, 64)


def test_the_samplers_choose_different_positions():
    by_confidence, by_halton = (reports_of(nothing_known(), network, each)[0] for each in (CONFIDENCE, HALTON))
    assert not by_confidence.is_hidden.equal(by_halton.is_hidden)


# Errors


def test_halton_order_of_a_grid_that_is_not_square_is_that_of_its_rows_and_columns():
    start, options = nothing_known(1, 256), replace(HALTON, steps=256)
    reports = []
    decode(start, network, options, seeded(), MASK_ID, reports.append, height=8)
    revealed = [(~report.is_hidden[0]).nonzero().flatten().tolist() for report in reports]
    order = [new for before, after in pairwise([[], *revealed]) for new in sorted(set(after) - set(before))]
    assert order == halton_order(8, 32).tolist()
    with pytest.raises(ValueError, match="256 tokens are no grid of 7 rows"):
        decode(start, network, HALTON, seeded(), MASK_ID, height=7)


@pytest.mark.parametrize(("positions", "side"), [(60, 7), (15, 3)])  # 3 rows of 5 are no square
def test_halton_says_that_it_needs_a_square_grid(positions, side):
    message = rf'{positions} tokens are no grid of {side} rows and {side} columns.*use "confidence"'
    with pytest.raises(ValueError, match=message):
        decode(nothing_known(positions=positions), network, HALTON, seeded(), MASK_ID)


def test_logits_with_a_column_for_the_mask_id_are_refused():  # MaskGIT-pytorch: the mask id inside the codebook
    with pytest.raises(ValueError, match=r"shape \(2, 64, 13\), wanted \(2, 64, 12\).*none for the mask id 12"):
        decode(nothing_known(), always(*[0.0] * (NUM_CODES + 1)), CONFIDENCE, seeded(), MASK_ID)


@pytest.mark.parametrize("token", [-1, MASK_ID + 1])
def test_start_tokens_outside_the_codebook_are_refused(token):
    start = nothing_known()
    start[1, 5] = token
    with pytest.raises(ValueError, match=rf"start tokens hold {token}; .* codes in \[0, 12\) and 12 where hidden"):
        decode(start, network, CONFIDENCE, seeded(), MASK_ID)


def test_a_wrong_number_of_generators_is_refused():
    with pytest.raises(ValueError, match="3 generators came for 2 samples"):
        decode(nothing_known(), network, CONFIDENCE, generators_for([1, 2, 3]), MASK_ID)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("extra", [{}, {"temperature": 0.0}, {"top_k": 3}])
@BOTH_SAMPLERS
def test_a_network_that_gives_nan_is_named_with_its_step(options, extra, broken):
    def predict(tokens, is_hidden, step):
        logits = network(tokens, is_hidden, step)
        return torch.where(is_hidden.unsqueeze(-1), broken, logits) if step.index >= 2 else logits

    with pytest.raises(FloatingPointError, match=r"logits that are NaN or \+inf at step 2 of 6"):
        decode(nothing_known(), predict, replace(options, **extra), seeded(), MASK_ID)


def test_logits_of_known_positions_are_never_looked_at():
    def predict(tokens, is_hidden, step):
        return network(tokens, is_hidden, step).masked_fill(~is_hidden.unsqueeze(-1), math.nan)

    drawn = decode(nothing_known(), predict, CONFIDENCE, seeded(), MASK_ID)
    assert drawn.equal(decode(nothing_known(), network, CONFIDENCE, seeded(), MASK_ID))


# Many codes


@pytest.mark.parametrize("extra", [{}, {"top_k": 130}])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_of_many_codes_a_broken_network_is_named_too_and_known_places_may_be_broken(extra, broken):
    start = nothing_known(mask_id=1000)
    start[:, :20] = 5

    def predict(tokens, is_hidden, step):
        logits = torch.randn(*tokens.shape, 1000, generator=seeded(step.index))
        is_broken = is_hidden if step.index == 2 else ~is_hidden
        return torch.where(is_broken.unsqueeze(-1), broken, logits)

    with pytest.raises(FloatingPointError, match=r"logits that are NaN or \+inf at step 2 of 6"):
        decode(start, predict, replace(CONFIDENCE, **extra), seeded(), mask_id=1000)


def test_many_codes_are_drawn_in_two_turns_as_one_cumulative_distribution_has_them():
    num_codes, num = 1000, 20_000  # not a whole number of blocks
    log_probs = (3 * torch.randn(num_codes, generator=seeded(3))).log_softmax(-1)
    uniforms = torch.rand(1, num, generator=seeded(4))
    drawn = draw_codes(log_probs.expand(1, num, -1), uniforms, 1.0, None)[0]
    cumulative = log_probs.double().exp().cumsum(-1)
    below = torch.where(drawn > 0, cumulative[drawn - 1], 0.0)
    assert (below - 1e-6 < uniforms[0]).all()
    assert (uniforms[0] < cumulative[drawn] + 1e-6).all()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("uniform", [0.0, 0.3, 1 - 2**-24])
def test_of_many_codes_none_of_probability_0_is_drawn(uniform, temperature):
    allowed = torch.tensor([70, 129, 700, 701, 702])  # most blocks have none, and none begins or ends with one
    logits = torch.full((5, 1, 1000), -math.inf)
    for row in range(5):
        logits[row, 0, allowed[row:]] = torch.randn(5 - row, generator=seeded(row))
    drawn = draw_codes(logits.log_softmax(-1), torch.full((5, 1), uniform), temperature, None)
    assert all(int(drawn[row, 0]) in allowed[row:].tolist() for row in range(5))


# Remasking


@BOTH_SAMPLERS
def test_remasking_draws_revealed_tokens_again_and_without_it_none(options):
    def changed(remask):
        reports = reports_of(nothing_known(), network, replace(options, remask=remask))
        return sum(int((after.is_hidden & ~before.is_hidden).sum()) for before, after in pairwise(reports))

    assert changed(0.0) == 0
    assert changed(0.5) > 10


def test_remasking_hides_the_least_confident_of_the_revealed_tokens():
    is_revealed = torch.tensor([[True, True, False, True, True]])
    log_probs = torch.tensor([[-1.0, -3.0, -9.0, -2.0, -0.5]])
    options = SamplingOptions(remask=0.5, choice_noise=0.0)

    def hidden(num_hidden):
        counts = torch.tensor([num_hidden])
        return remasked(is_revealed, log_probs, torch.full((1, 5), 0.5), counts, options, Step(0, 4)).tolist()[0]

    assert hidden(3) == [False, True, False, True, False]
    assert hidden(1) == [False, True, False, False, False]  # no more than stay hidden after this step
    assert hidden(0) == [False] * 5
