"""What captions named: which words a model never met, and who is told what it knows instead."""

import json
import re

import pytest

from muse.apps.wishes import advice, reword
from muse.checkpoint import CheckpointError
from muse.pipeline import Muse
from muse.training.export import enlarging
from muse.vocabulary import VOCABULARY, Named, Phrasing, Style, Vocabulary

KNOWN = Vocabulary(
    ("red apple", "dog"),
    frozenset(["a", "red", "apple", "dog", "dogs", "o'clock", "été", "flat", "style"]),
    Phrasing(("a drawing of",), ("above",), (Style(("flat style", "flat"), frozenset(["dog"])),), frozenset(["dog"])),
    {"🍎": ("a red apple", "red apples")},
)


def test_words_that_were_in_no_caption_are_found_in_order_each_once():
    assert KNOWN.unknown("A Red apple, 3 cats été; a dog's CATS!") == ["cats", "dog's"]
    assert KNOWN.unknown("a red dog, o'clock") == []


def test_what_asks_for_nothing_to_be_seen_is_not_unknown():
    assert KNOWN.unknown("this is a red apple with the 8k 3d dog in it") == []


def test_names_are_found_the_longest_first_also_several_of_a_thing():
    known = Vocabulary(("bear", "bear with honey", "honey", "polar bear", "glass", "1st place"), frozenset(["a"]))
    assert list(
        known.names_in(["a", "polar", "bear", "two", "bears", "glasses", "glass", "1st", "place", "first", "place"])
    ) == [
        Named("polar bear", 1, 3),
        Named("bear", 4, 5),
        Named("glass", 5, 6),
        Named("glass", 6, 7),
        Named("1st place", 7, 9),
    ]
    assert list(known.names_in(["bears", "with", "honey"])) == [Named("bear with honey", 0, 3)]
    assert list(known.names_in(["polar"])) == []


def test_a_file_that_does_not_say_how_captions_are_put_is_read_as_before(tmp_path):
    (tmp_path / VOCABULARY).write_text('{"names": ["Red apple"], "words": ["A"]}')
    assert Vocabulary.from_folder(tmp_path) == Vocabulary(("Red apple",), frozenset(["a"]))


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


def test_the_prompt_to_be_drawn_names_what_the_model_knows_and_a_sentence_says_so(tiny_muse, monkeypatch):
    monkeypatch.setattr(tiny_muse, "vocabulary", KNOWN)
    drawn, note = reword(tiny_muse, "a shabby monster under a red apple")
    assert drawn in ("a dog under a red apple", "a red apple under a red apple")
    assert note == f'no caption that tiny learnt from holds "shabby" or "monster", so it draws "{drawn}"'
    assert reword(tiny_muse, "a red dog") == ("a red dog", None)
    drawn, note = reword(tiny_muse, "a red apple over a dog, flat style")
    assert drawn == "a red apple above a dog"
    assert note == 'no caption that tiny learnt from says it like that, so it draws "a red apple above a dog"'
    left, note = reword(tiny_muse, "a dog in watercolor")
    assert left == "a dog in watercolor"
    assert note == advice(tiny_muse, left)
    with pytest.raises(ValueError, match="sub-words"):
        tiny_muse.reword("a monster and " * 200)
    for note in (reword(tiny_muse, "a " + "m" * 1000)[1], advice(tiny_muse, "m" * 1000)):
        assert note is not None
        assert f'holds "{"m" * 40}…"' in note
        assert len(note) < 120


@pytest.mark.parametrize("prompt", ["!!!", " 123", "🍎", "\u200b"])
def test_a_prompt_that_says_nothing_is_told(prompt, tiny_muse, monkeypatch):
    monkeypatch.setattr(tiny_muse, "vocabulary", KNOWN)
    assert advice(tiny_muse, prompt) == f'no caption that tiny learnt from holds "{prompt.strip()}"'
    assert advice(tiny_muse, "") is None


def test_super_resolution_leaves_what_a_model_knows(cascade, tiny_muse, monkeypatch):
    monkeypatch.setattr(tiny_muse, "vocabulary", KNOWN)
    assert enlarging(tiny_muse, cascade.superres, cascade.vqgan_superres, "larger").vocabulary == KNOWN


def test_a_model_that_does_not_say_what_its_captions_named_advises_nobody(tiny_muse):
    assert tiny_muse.vocabulary is None
    assert tiny_muse.nearest_names("a dog") == []
    assert advice(tiny_muse, "a red dog") is None
    assert reword(tiny_muse, "a monster") == ("a monster", None)


DAMAGED = ["{}", '{"names": [], "words": ["a"]}', '{"names": ["a"], "words": "a"}', '{"names": [1], "words": ["a"]}']
WHOLE = {"leads": ["a"], "relations": [], "styles": [{"phrases": ["flat"], "unseen": []}], "bare": []}
DAMAGED += [
    json.dumps({"names": ["a"], "words": ["a"], "phrasing": phrasing})
    for phrasing in (
        [],
        "a",
        {"leads": ["a"]},
        WHOLE | {"relations": [2]},
        WHOLE | {"bare": "a"},
        WHOLE | {"styles": {}},
        WHOLE | {"styles": ["flat"]},
        WHOLE | {"styles": [{"phrases": [], "unseen": []}]},
        WHOLE | {"styles": [{"phrases": ["flat"], "unseen": "a"}]},
    )
]
DAMAGED += [
    json.dumps({"names": ["a"], "words": ["a"], "characters": characters})
    for characters in ([], {"🍎": "a red apple"}, {"🍎": ["a red apple"]}, {"": ["a red apple", "red apples"]})
]


@pytest.mark.parametrize("content", [*DAMAGED, "[]", "no"])
def test_a_damaged_vocabulary_is_refused_in_one_sentence(content, own_folder):
    (own_folder / VOCABULARY).write_text(content)
    with pytest.raises(
        CheckpointError, match=rf"{VOCABULARY} (has (no lists|a damaged|damaged characters)|holds a|is damaged)"
    ):
        Muse.from_pretrained(own_folder, "cpu")


def test_the_shipped_model_knows_what_its_captions_named():
    muse = Muse.from_pretrained("emoji", "cpu")
    assert muse.vocabulary is not None
    assert len(muse.vocabulary.names) == 1008
    assert (
        muse.vocabulary.unknown("Three octopuses to the left of a red apple on a sky blue background, 3d style") == []
    )
    assert "motorway" in (advice(muse, "a freeway, noto style") or "")
    for prompt, wanted in {
        "a golden retriever on a blue background": "a dog on a blue background",
        "two skyscrapers": "two office building",
        "a crimson apple, flat style": "a red apple, flat style",
        "a majestic dragon": "a dragon",
        "a feline": "a feline",
        "fox emoji": "a fox",
        "an oil painting of scissors": "scissors",
        "a picture of a dog": "a picture of a dog",
        "a cat sitting next to a bicycle": "a cat and a bicycle",
        "a face with monocle with a top hat, flat style": "a face with monocle and a top hat, flat style",
        "a rocket in front of a spaceship": "a rocket and a passenger ship",
        "🦊": "a fox",
        "🦊🦊 above a 🐙": "two foxes above an octopus",
        "a 🐻\u200d❄️ on a sky blue background": "a polar bear on a sky blue background",
    }.items():
        assert muse.reword(prompt) == wanted
