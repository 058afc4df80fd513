"""What captions named: which words a model never met, and who is told what it knows instead."""

import re

import pytest

from muse.apps.wishes import advice
from muse.checkpoint import CheckpointError
from muse.pipeline import Muse
from muse.training.export import enlarging
from muse.vocabulary import VOCABULARY, Vocabulary

KNOWN = Vocabulary(("red apple", "dog"), frozenset(["a", "red", "apple", "dog", "o'clock", "été"]))


def test_words_that_were_in_no_caption_are_found_in_order_each_once():
    assert KNOWN.unknown("A Red apple, 3 cats été; a dog's CATS!") == ["cats", "dog's"]
    assert KNOWN.unknown("a red dog, o'clock") == []


def test_what_asks_for_nothing_to_be_seen_is_not_unknown():
    assert KNOWN.unknown("this is a red apple with the 8k 3d dog in it") == []


def test_a_model_folder_keeps_what_its_captions_named(tiny_muse, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_muse, "vocabulary", KNOWN)
    tiny_muse.save_pretrained(tmp_path)
    again = Muse.from_pretrained(tmp_path, "cpu")
    assert again.vocabulary == KNOWN
    # The text encoder is a random one, but what is asked for by its own name is nearest to itself.
    assert [again.nearest_names(name)[0] for name in KNOWN.names] == list(KNOWN.names)
    assert again.nearest_names("dog", num=1) == ["dog"]
    again.vocabulary = Vocabulary(("green",), KNOWN.words)
    assert again.nearest_names("dog") == ["green"]

    monkeypatch.setattr(tiny_muse, "vocabulary", None)
    tiny_muse.save_pretrained(tmp_path)
    assert Muse.from_pretrained(tmp_path, "cpu").vocabulary is None


def test_advice_names_a_few_words_and_what_is_nearest_to_each(tiny_muse, monkeypatch):
    monkeypatch.setattr(tiny_muse, "vocabulary", KNOWN)
    told = advice(tiny_muse, "blue apples beside green cats under snow")
    assert told is not None
    assert re.fullmatch(
        r'no caption that tiny learnt from holds "blue" \(nearest: .*\) or "apples" \(.*\) or "beside" \(.*\)', told
    )
    assert told.count("red apple") == told.count("dog") == 3
    assert advice(tiny_muse, "a red dog") is None


def test_super_resolution_leaves_what_a_model_knows(cascade, tiny_muse, monkeypatch):
    monkeypatch.setattr(tiny_muse, "vocabulary", KNOWN)
    assert enlarging(tiny_muse, cascade.superres, cascade.vqgan_superres, "larger").vocabulary == KNOWN


def test_a_model_that_does_not_say_what_its_captions_named_advises_nobody(tiny_muse):
    assert tiny_muse.vocabulary is None
    assert tiny_muse.nearest_names("a dog") == []
    assert advice(tiny_muse, "a red dog") is None


DAMAGED = ["{}", '{"names": [], "words": ["a"]}', '{"names": ["a"], "words": "a"}', '{"names": [1], "words": ["a"]}']


@pytest.mark.parametrize("content", [*DAMAGED, "[]", "no"])
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
