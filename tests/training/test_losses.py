"""The losses, at values that can be worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from muse.training.losses import (
    adversarial_loss,
    commitment_loss,
    discriminator_loss,
    gradient_loss,
    hidden_token_loss,
    perplexity,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def guesses():
    logits = random(2, 6, 5)
    tokens = torch.randint(5, (2, 6), generator=torch.Generator().manual_seed(1))
    is_hidden = torch.tensor([[True, True, False, False, True, False], [False, False, False, True, False, False]])
    return logits, tokens, is_hidden


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_it_is_the_mean_cross_entropy_of_the_hidden_tokens(guesses, label_smoothing):
    logits, tokens, is_hidden = guesses
    log_probs = logits.log_softmax(-1)
    right = log_probs.gather(-1, tokens[..., None]).squeeze(-1)
    each = -(1 - label_smoothing) * right - label_smoothing * log_probs.mean(-1)
    loss = hidden_token_loss(logits[is_hidden], tokens[is_hidden], label_smoothing)
    torch.testing.assert_close(loss, (each * is_hidden).sum() / 4)


def test_a_part_of_a_batch_is_divided_by_the_hidden_tokens_of_all(guesses):
    logits, tokens, is_hidden = guesses
    hidden, wanted = logits[is_hidden], tokens[is_hidden]
    parts = [hidden_token_loss(hidden[rows], wanted[rows], num_hidden=4) for rows in (slice(0, 1), slice(1, 4))]
    torch.testing.assert_close(sum(parts), hidden_token_loss(hidden, wanted))


def test_the_loss_is_computed_in_float32(guesses):
    logits, tokens, is_hidden = guesses
    loss = hidden_token_loss(logits[is_hidden].bfloat16(), tokens[is_hidden])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, hidden_token_loss(logits[is_hidden].bfloat16().float(), tokens[is_hidden]))


def test_commitment_pulls_the_encoder_and_never_the_codebook():
    """Taming-transformers: beta weights the wrong term by default."""
    latents = random(1, 3, 2, 2).requires_grad_()
    codes = random(1, 3, 2, 2, seed=1).requires_grad_()
    loss = commitment_loss(latents, codes)
    loss.backward()
    assert codes.grad is None
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, 2 * (latents - codes).detach() / latents.numel())
    assert loss.item() == pytest.approx((latents - codes).square().mean().item())


@pytest.mark.parametrize(
    ("real", "decoded", "loss"),
    [(1.0, -1.0, 0.0), (3.0, -5.0, 0.0), (0.0, 0.0, 1.0), (-1.0, -1.0, 1.0), (1.0, 1.0, 1.0), (-2.0, 0.5, 2.25)],
)
def test_the_hinge_loss_at_known_scores(real, decoded, loss):
    scores = [torch.full((2, 1, 3, 3), score) for score in (real, decoded)]
    assert discriminator_loss(*scores).item() == pytest.approx(loss)


def test_the_hinge_is_taken_of_each_patch_not_of_their_mean():
    real = torch.tensor([3.0, -1.0]).reshape(1, 1, 1, 2)
    assert discriminator_loss(real, torch.full_like(real, -1)).item() == pytest.approx(0.5)


@pytest.mark.parametrize("score", [-2.0, 0.0, 1.5])
def test_the_decoder_wants_high_scores(score):
    scores = torch.full((2, 1, 3, 3), score, requires_grad=True)
    loss = adversarial_loss(scores)
    assert loss.item() == pytest.approx(-score)
    loss.backward()
    assert scores.grad is not None
    assert (scores.grad < 0).all()


@pytest.mark.parametrize("num_codes", [1, 7, 1024])
def test_the_perplexity_of_uniform_usage_is_the_number_of_codes(num_codes):
    assert perplexity(torch.full((num_codes,), 3.0)).item() == pytest.approx(num_codes, rel=1e-4)


def test_the_perplexity_of_a_single_used_code_is_one():
    assert perplexity(F.one_hot(torch.tensor(4), 9).float()).item() == pytest.approx(1)


def test_the_perplexity_of_two_codes_is_that_of_their_entropy():
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert perplexity(torch.tensor([1.0, 0, 3, 0])).item() == pytest.approx(math.exp(entropy))


def test_the_gradient_loss_is_that_of_steps_worked_out_by_hand():
    """A wall in the middle of 16 columns is one step of 0.5: one of 15, of 7, of 3 and of 1, across and none down."""
    wall = torch.zeros(2, 3, 16, 16)
    wall[..., 8:] = 0.5
    expected = 0.5 * (1 / 15 + 1 / 7 + 1 / 3 + 1) / 2
    assert gradient_loss(wall, torch.zeros_like(wall)).item() == pytest.approx(expected)
    assert gradient_loss(wall.mT, torch.zeros_like(wall)).item() == pytest.approx(expected)


def test_the_gradient_loss_knows_no_tint_and_sees_stains_that_pixels_hardly_show():
    pictures = random(2, 3, 32, 32).sigmoid()
    assert gradient_loss(pictures, pictures).item() == 0
    assert gradient_loss(pictures + 0.25, pictures).item() == pytest.approx(0, abs=1e-6)
    plain = torch.full((1, 3, 32, 32), 0.5)
    stained = plain + 0.05 * torch.tensor([[1.0, -1], [-1, 1]]).repeat(2, 2).repeat_interleave(8, 0).repeat_interleave(
        8, 1
    )
    assert F.l1_loss(stained, plain).item() == pytest.approx(0.05)
    assert gradient_loss(stained, plain).item() > 0.1


def test_pictures_without_two_squares_a_side_are_refused_by_the_gradient_loss():
    small = torch.zeros(1, 3, 8, 32)
    with pytest.raises(
        ValueError, match=r"^pictures of 32 x 8 px have no steps .* give 16 px a side or more, or a gradient_weight"
    ):
        gradient_loss(small, small)
