"""Classifier-free guidance, in the paper's convention."""

import pytest
import torch

from muse.guidance import combine, from_classifier_free, guidance_scale, guided
from muse.shapes import Step


class Branches:
    """Fixed conditional and unconditional logits that count how often they are asked for."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.l_c = torch.randn(2, 4, 8, generator=generator)
        self.l_u = torch.randn(2, 4, 8, generator=generator)
        self.num_conditional, self.num_both = 0, 0

    def conditional(self, tokens, is_hidden, step):
        self.num_conditional += 1
        return self.l_c

    def both(self, tokens, is_hidden, step, blend):
        self.num_both += 1
        return blend(self.l_c, self.l_u)

    def run(self, scale, ramp, num_steps):
        predict = guided(self.conditional, self.both, scale, ramp)
        tokens, is_hidden = torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool)
        return [predict(tokens, is_hidden, Step(index, num_steps)) for index in range(num_steps)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_guidance_zero_is_the_plain_conditional_model_bit_for_bit(dtype):
    conditional = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    unconditional = torch.full_like(conditional, torch.nan)
    assert combine(conditional, unconditional, 0.0) is conditional


@pytest.mark.parametrize("ramp", ["linear", "constant"])
def test_at_guidance_zero_the_unconditional_branch_is_not_called(ramp):
    branches = Branches()
    assert all(logits is branches.l_c for logits in branches.run(0.0, ramp, num_steps=5))
    assert (branches.num_conditional, branches.num_both) == (5, 0)


def test_a_negative_prompt_enters_by_the_formula_of_the_paper():  # muse-maskgit-pytorch: raises TypeError
    branches = Branches()
    (logits,) = branches.run(3.0, "constant", num_steps=1)
    torch.testing.assert_close(logits, 4.0 * branches.l_c - 3.0 * branches.l_u)


def test_half_precision_logits_are_combined_in_float32():
    conditional, unconditional = torch.full((1, 1, 1), 30000.0).half(), torch.full((1, 1, 1), 20000.0).half()
    combined = combine(conditional, unconditional, 4.0)  # 5 * 30000 is infinite in float16
    assert combined.dtype == torch.float32
    assert combined.item() == pytest.approx(70000, rel=1e-3)


def test_the_linear_ramp_starts_at_the_conditional_model_and_ends_at_the_scale():  # open-muse: starts unconditional
    branches = Branches()
    first, *_, last = branches.run(4.0, "linear", num_steps=5)
    assert first is branches.l_c
    assert last.equal(combine(branches.l_c, branches.l_u, 4.0))
    assert (branches.num_conditional, branches.num_both) == (1, 4)


def test_the_linear_ramp_grows_by_equal_amounts():
    assert [guidance_scale(Step(index, 5), 4.0, "linear") for index in range(5)] == [0, 1, 2, 3, 4]


def test_the_constant_ramp_is_the_scale_at_every_step():
    assert [guidance_scale(Step(index, 5), 4.0, "constant") for index in range(5)] == [4.0] * 5


def test_a_single_step_has_the_whole_scale():
    assert guidance_scale(Step(0, 1), 4.0, "linear") == 4.0


def test_both_conventions_give_the_same_logits():
    branches = Branches()
    s = 7.5
    theirs = branches.l_u + s * (branches.l_c - branches.l_u)
    torch.testing.assert_close(combine(branches.l_c, branches.l_u, from_classifier_free(s)), theirs)
