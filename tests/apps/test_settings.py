"""How a picture was made, written and read."""

import pytest

from muse.apps.settings import Settings
from muse.sampling import SamplingOptions

SETTINGS = Settings("a red apple", 7, SamplingOptions(steps=3, top_k=5), "blue", SamplingOptions(steps=2), "tiny")


@pytest.mark.parametrize("settings", [SETTINGS, Settings("日本語 🦊\n", 2**63 - 1, SamplingOptions())])
def test_settings_come_back_as_they_were(settings):
    assert Settings.from_text(settings.to_text()) == settings


def test_a_picture_that_is_older_than_reuse_had_every_position_computed():
    text = SETTINGS.to_text() | {"options": '{"steps": 3}', "superres_options": '{"steps": 2, "refresh": 2}'}
    settings = Settings.from_text(text)
    assert settings.options == SamplingOptions(steps=3, refresh=1)
    assert settings.superres_options == SamplingOptions(steps=2, refresh=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": "{"}, "not so that it can be read"),
        ({"options": '{"steps": 0}'}, "steps is 0"),
        ({"options": '{"flavour": 1}'}, "not so that it can be read"),
        ({"options": "[]"}, "not so that it can be read"),
        ({"seed": "x"}, "not so that it can be read"),
        ({"command": "inpaint"}, "made of another one"),
        ({"prompt": None}, "does not say its prompt"),
    ],
)
def test_a_picture_that_does_not_say_how_it_was_made_is_refused_in_one_sentence(change, message):
    text = {name: value for name, value in (SETTINGS.to_text() | change).items() if value is not None}
    with pytest.raises(ValueError, match=message) as error:
        Settings.from_text(text)
    assert "\n" not in str(error.value)
