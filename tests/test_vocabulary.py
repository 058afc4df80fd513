"""What captions named: which words a model never met, and who is told what it knows instead."""

import pytest

from muse.apps.wishes import advice
from muse.checkpoint import CheckpointError
from muse.pipeline import Muse
from muse.vocabulary import VOCABULARY, Vocabulary

KNOWN = Vocabulary(("red apple", "dog"), frozenset(["a", "red", "apple", "dog", "o'clock", "été"]))


def test_words_that_were_in_no_caption_are_found_in_order_each_once():
    assert KNOWN.unknown("A Red apple, 3 cats on été; a dog's CATS!") == ["cats", "on", "dog's"]
    assert KNOWN.unknown("a red dog, o'clock") == []


def test_a_model_folder_keeps_what_its_captions_named(tiny_muse, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_muse, "vocabulary", KNOWN)
    tiny_muse.save_pretrained(tmp_path)
    again = Muse.from_pretrained(tmp_path, "cpu")
    assert again.vocabulary == KNOWN
    # The text encoder is a random one, but what is asked for by its own name is nearest to itself.
    assert [again.nearest_names(name)[0] for name in KNOWN.names] == list(KNOWN.names)
    assert again.nearest_names("dog", num=1) == ["dog"]
    told = advice(again, "a blue apple on snow")
    assert told is not None
    assert told.startswith('no caption that tiny learnt from holds "blue" and "on" and "snow"; the nearest things')
    assert told.count("red apple") == told.count("dog") == 1
    assert advice(again, "a red dog") is None


def test_a_model_that_does_not_say_what_its_captions_named_advises_nobody(tiny_muse):
    assert tiny_muse.vocabulary is None
    assert tiny_muse.nearest_names("a dog") == []
    assert advice(tiny_muse, "a red dog") is None


@pytest.mark.parametrize("content", ["{}", '{"names": ["a"], "words": "a"}', '{"names": [1], "words": []}', "[]", "no"])
def test_a_damaged_vocabulary_is_refused_in_one_sentence(content, own_folder):
    (own_folder / VOCABULARY).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{VOCABULARY} (has no lists|holds a|is damaged)"):
        Muse.from_pretrained(own_folder, "cpu")


def test_the_shipped_model_knows_what_its_captions_named():
    muse = Muse.from_pretrained("emoji", "cpu")
    assert muse.vocabulary is not None
    assert len(muse.vocabulary.names) == 1008
    assert (
        muse.vocabulary.unknown("Three octopuses to the left of a red apple on a sky blue background, 3d style") == []
    )
    assert "motorway" in (advice(muse, "a freeway, noto style") or "")
