"""What sampling options refuse, and how they say so."""

import math
from dataclasses import FrozenInstanceError, replace

import pytest

from muse.sampling import SamplingOptions

NOT_AN_AMOUNT = [-0.1, math.nan, math.inf, -math.inf, True, "1.0", "yes", None]
NOT_A_WHOLE_NUMBER = [0, -1, 1.5, math.nan, math.inf, True, "24", "yes"]
WRONG = [
    *((name, value) for name in ("guidance", "temperature", "choice_noise", "remask") for value in NOT_AN_AMOUNT),
    ("remask", 1.01),
    *((name, value) for name in ("steps", "refresh") for value in [*NOT_A_WHOLE_NUMBER, None, 10_001, 10**9]),
    *(("top_k", value) for value in NOT_A_WHOLE_NUMBER),
    # open-muse: a truthy string makes a branch unreachable
    *((name, value) for name in ("sampler", "guidance_ramp") for value in ("yes", "Linear", "", True, None, [])),
]


pytestmark = pytest.mark.usefixtures("without_type_checks")


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_refused_by_name_with_what_came_and_what_to_give(name, value):
    with pytest.raises(ValueError, match=rf"^{name} is .*; give ") as error:
        SamplingOptions(**{name: value})
    assert repr(value) in str(error.value)


def test_the_defaults_are_those_of_the_paper():
    options = SamplingOptions()
    assert (options.steps, options.temperature, options.guidance_ramp) == (24, 1.0, "linear")


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0.0), ("guidance", 0.0), ("choice_noise", 0.0), ("remask", 0.0)]
)
def test_zero_is_a_fine_amount(name, value):
    assert getattr(SamplingOptions(**{name: value}), name) == 0


@pytest.mark.parametrize("name", ["guidance", "temperature", "choice_noise"])
def test_a_whole_number_is_a_fine_amount(name):
    assert getattr(replace(SamplingOptions(), **{name: 3}), name) == 3


def test_options_cannot_change_under_a_running_decode():  # aMUSEd: inpainting changes the shared scheduler
    with pytest.raises(FrozenInstanceError):
        SamplingOptions().steps = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_a_replaced_option_is_checked_again():
    with pytest.raises(ValueError, match="steps is 0"):
        replace(SamplingOptions(), steps=0)
