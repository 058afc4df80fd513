"""Prompts in words that captions held: things, how two of them stand, and styles."""

import time
from dataclasses import replace

import pytest

from muse.rewording import reworded
from muse.vocabulary import Phrasing, Style, Vocabulary, whole_words

KNOWN = Vocabulary(("red apple", "dog"), frozenset(["a", "red", "apple", "dog", "dogs", "o'clock", "été"]))
SAID = Phrasing(
    ("a picture of",),
    ("and", "above", "below", "to the left of", "to the right of"),
    (
        Style(("flat style", "flat"), frozenset(["cat"])),
        Style(("3d style", "3d render", "3d"), frozenset(["red apple"])),
    ),
    frozenset(["rice"]),
)
THREE = Vocabulary(
    ("cat", "red apple", "orange", "cat with wry smile", "ring", "rice", "framed picture"),
    whole_words("a cat cats red apple apples orange with wry smile ring rings rice framed picture of on big background")
    | whole_words("flat 3d style photo emoji animal clothing"),
    SAID,
)


def in_other_words(text):
    """A text in other words, and the things whose nearest name was asked for."""
    asked = []

    def nearest(things):
        asked.extend(things)
        return ["octopus" if "sea" in thing else "red apple" for thing in things]

    return reworded(text, KNOWN, nearest), asked


@pytest.mark.parametrize(
    ("text", "wanted", "asked"),
    [
        ("A monster, 3d style", "A red apple, 3d style", ["a monster"]),
        ("a sea monster on a car", "an octopus on a red apple", ["a sea monster", "a car"]),
        ("three sea-Monsters and a red dog", "three octopus and a red dog", ["a sea monsters"]),
        ("the monster", "the red apple", ["a monster"]),
        ("an  iguana", "a  red apple", ["a iguana"]),
        ("monster", "red apple", ["a monster"]),
        # The last word is known, and in the nearest name.
        ("a crimson apple", "a red apple", ["a crimson apple"]),
        # A name is among the words.
        ("a shabby red apple", "a red apple", []),
        ("two Shabby dogs", "two dogs", []),
        # What a thing does is no part of it.
        ("a pirate riding a dog", "a red apple riding a dog", ["a pirate"]),
        ("a photo of a monster", "a photo of a red apple", ["a monster"]),
        ("a dog next to a monster", "a dog next to a red apple", ["a monster"]),
    ],
)
def test_a_thing_that_was_in_no_caption_is_called_by_the_nearest_name(text, wanted, asked):
    assert in_other_words(text) == (wanted, asked)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("", []),
        ("a red dog, o'clock", []),
        ("a photo of a dog", []),
        ("a dog in watercolor", []),
        ("in the style of picasso", []),
        ("a dog, monster", []),
        ("a red dog in a strange red", ["a strange red"]),  # which is nearest to no name with "red" at its end
    ],
)
def test_what_names_nothing_new_is_left_as_it_is(text, asked):
    known = Vocabulary(("dog",), KNOWN.words | {"style"})
    told = []
    assert reworded(text, known, lambda things: told.extend(things) or ["dog"] * len(things)) == text
    assert told == asked


def never(things):
    raise AssertionError(f"names were looked for: {things}")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a cat next to a red apple", "a cat and a red apple"),
        ("Two cats beside three big red apples", "Two cats and three big red apples"),
        ("a cat on top of a red apple", "a cat above a red apple"),
        ("a cat sitting on a red apple", "a cat above a red apple"),
        ("a cat that is standing right next to the ring", "a cat and the ring"),
        ("a cat is directly above a ring", "a cat above a ring"),
        ("a cat eating a red apple", "a cat and a red apple"),
        ("a cat riding an orange", "a cat above an orange"),
        ("a cat right of a ring", "a cat to the right of a ring"),
        ("cat under ring", "a cat below a ring"),
        ("a cat on the left and a ring on the right", "a cat to the left of a ring"),
        ("a cat on the right, orange at left", "a cat to the right of an orange"),
        ("a cat at the top and a ring at the bottom, flat", "a cat above a ring"),
        ("a cat & a ring", "a cat and a ring"),
        ("a cat, a ring", "a cat and a ring"),
        ("a cat with wry smile with an orange", "a cat with wry smile and an orange"),
        ("a cat close to a ring on a red background", "a cat and a ring on a red background"),
    ],
)
def test_how_two_things_stand_is_said_as_captions_say_it(text, wanted):
    assert reworded(text, THREE, never) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "a cat and a ring",
        "a cat to the left of two rings, 3d",
        "a cat",
        "a cat on an orange background",  # where no orange is asked for
        "a ring on a cat ring",
        "a cat ring on an apple",
        "a cat next to an apple",
        "a cat, a ring and an orange",
        "a cat. a ring",
        "a cat, orange",
        "a cat, clothing, ring",
        "a cat (a ring)",
        "a cat on the left and a ring on the left",
        "a cat on the left",
        "a cat on the left, big on the ring",
        "a cat from a ring",
        "a cat ring",
        "",
    ],
)
def test_what_stands_otherwise_or_cannot_be_read_is_left_as_it_is(text):
    assert reworded(text, THREE, never) == text


def test_a_model_whose_captions_say_nothing_between_things_is_told_what_was_written():
    silent = replace(THREE, phrasing=replace(SAID, relations=("above",)))
    assert reworded("a cat next to a ring", silent, never) == "a cat next to a ring"
    assert reworded("a cat over a ring", silent, never) == "a cat above a ring"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("two cats, flat style", "two cats"),
        ("Flat Style, a cat", "a cat"),
        ("a cat in a flat style", "a cat"),
        ("a cat, in flat, big", "a cat, big"),
        ("2 cats, flat", "2 cats"),
        ("a ring, animal, cat, flat", "a ring, animal, cat, flat"),
        ("a cat on a red background, flat.", "a cat on a red background"),
        ("a cat next to a red apple, 3d style", "a cat and a red apple"),
        # Seen so, or no style: a "flat cat" is one that is flat.
        ("a cat, 3d style", "a cat, 3d style"),
        ("a red apple, flat style", "a red apple, flat style"),
        ("a flat cat", "a flat cat"),
        ("a cat, flat style cat", "a cat, flat style cat"),
        ("flat style", "flat style"),
    ],
)
def test_a_style_in_which_a_thing_was_never_seen_is_left_out(text, wanted):
    assert reworded(text, THREE, never) == wanted


def test_things_are_called_by_their_names_before_it_is_looked_how_they_stand():
    assert reworded("a tiger over a big orange, flat", THREE, lambda things: ["cat"]) == "a cat above a big orange"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cat", "a cat"),
        ("orange, 3d style", "an orange, 3d style"),
        ("big red cat, flat", "a big red cat"),
        ("cat above rice", "a cat above rice"),
        ("a cat and orange", "a cat and an orange"),
        ("cat emoji", "a cat"),
        ("A big cat icon, 3d", "A big cat, 3d"),
        ("cat emoji with a ring", "a cat and a ring"),
        ("draw a cat", "a cat"),
        ("Please draw me two cats, please!", "two cats"),
        ("a cat. ", "a cat"),
        ("Could you draw a cat?", "a cat"),
        ("I want a photo of two cats", "two cats"),
        ("an oil painting of a cat", "a cat"),
        ("cat on a ring, digital art, 3d", "a cat above a ring, 3d"),
        ("a cat, 3d art", "a cat, 3d"),
        ("a cat, highly detailed, 8k, 3d render", "a cat, 3d render"),
        ("a cat, watercolor style, 8k", "a cat"),
        ("a cat, big watercolor, 3d watercolor, big", "a cat, 3d watercolor, big"),
        ("of clothing, unheard-of", "of clothing, unheard-of"),
        ("big cat eating rice", "a big cat and rice"),
        ("cat framed orange", "a cat framed orange"),
        ("a big, photo of cats", "a big, photo of cats"),
        ("photo of a cat, 3d", "a cat, 3d"),
        ("a cat with a photo of a ring", "a cat with a photo of a ring"),
        ("the very last painting of cats", "cats"),
        ("a cat in the style of van Gogh, 3d", "a cat, 3d"),
        # Said in captions, or something else.
        ("a picture of a cat", "a picture of a cat"),
        ("a framed picture", "a framed picture"),
        ("cats", "cats"),
        ("1 big cat", "1 big cat"),
        ("cats with wry smile, 3d render", "cats with wry smile, 3d render"),
        ("rice, 3d style", "rice, 3d style"),
        ("big red big cat", "big red big cat"),
        ("emoji", "emoji"),
        ("...", "..."),
        ("in the style of Rousseau", "in the style of Rousseau"),
        ("a red emoji cat", "a red emoji cat"),
    ],
)
def test_what_asks_for_a_picture_is_left_out_and_single_things_have_articles(text, wanted):
    assert reworded(text, THREE, lambda things: ["nothing"] * len(things)) == wanted


def test_texts_without_end_take_no_time():
    gaps = (1990 * " " + "x", "a fox" + 1900 * "\n" + "and a cat", "a fox" + 1990 * ",")
    for text in (*gaps, "a cat" + 100_000 * " " + "next to a ring", "a cat, " * 20_000, "a" * 100_000):
        start = time.perf_counter()
        reworded(text, THREE, lambda things: ["cat"] * len(things))
        assert time.perf_counter() - start < 5


def test_where_it_is_not_known_how_captions_are_put_only_things_are_called_otherwise():
    plain = replace(THREE, phrasing=None)
    text = "cat emoji next to a tiger, flat."
    assert reworded(text, plain, lambda things: ["cat"]) == text.replace("tiger", "cat")


# -- pictorial characters


PICTURED = replace(
    THREE,
    words=THREE.words | whole_words("octopus octopuses two three and"),
    names=(*THREE.names, "octopus"),
    characters={
        "\N{CAT FACE}": ("a cat", "cats"),
        "\N{OCTOPUS}": ("an octopus", "octopuses"),
        "\N{RED APPLE}": ("a red apple", "red apples"),
        "\N{COOKED RICE}": ("rice", "rice"),
        "\N{CAT FACE}\u200d\N{HEAVY BLACK HEART}": ("a cat with wry smile", "cats with wry smile"),
    },
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("\N{CAT FACE}", "a cat"),
        ("\N{OCTOPUS}!", "an octopus"),
        ("\N{COOKED RICE}, flat style", "rice, flat style"),
        ("an \N{CAT FACE}\N{VARIATION SELECTOR-16} above a \N{OCTOPUS}", "a cat above an octopus"),
        ("\N{CAT FACE} and \N{OCTOPUS}", "a cat and an octopus"),
        ("\N{CAT FACE} \N{CAT FACE}\N{OCTOPUS}", "two cats and an octopus"),
        ("three \N{CAT FACE}", "three cats"),
        ("the \N{CAT FACE}\N{OCTOPUS}", "the cat and an octopus"),
        (12 * "\N{CAT FACE}", "ten cats"),
        ("\N{CAT FACE}\u200d\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}", "a cat with wry smile"),
        # By what Unicode calls it, and from there by the nearest name.
        ("\N{ROCKET}", "a red apple"),
        # Beside words that name something they are no more than an ornament.
        ("a red apple \N{RED APPLE}", "a red apple"),
        ("\N{RED APPLE} a cat\N{CAT FACE}", "a cat"),
        ("a cat\N{RED APPLE}orange", "a cat orange"),
        # No picture of a thing.
        ("a cat\N{TRADE MARK SIGN}", "a cat\N{TRADE MARK SIGN}"),
        ("a cat \N{REGIONAL INDICATOR SYMBOL LETTER D}", "a cat \N{REGIONAL INDICATOR SYMBOL LETTER D}"),
    ],
)
def test_a_pictorial_character_is_called_by_what_it_shows(text, wanted):
    assert reworded(text, PICTURED, lambda things: ["red apple" for _ in things]) == wanted


def test_characters_without_end_take_no_time():
    for text in ("\N{CAT FACE}a" * 1000, "a \N{CAT FACE} " * 500, "\N{CAT FACE}" * 100_000):
        start = time.perf_counter()
        reworded(text, PICTURED, lambda things: ["cat"] * len(things))
        assert time.perf_counter() - start < 5
