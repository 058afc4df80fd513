import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muse.rewording import reworded
from projects.emoji.captions import (
    BACKGROUNDS,
    OLDER_STYLES,
    STYLE_PHRASES,
    article,
    caption,
    is_countable,
    number_word,
    plural,
    spoken_name,
)
from projects.emoji.dataset import EmojiArt
from projects.emoji.packages import STYLES
from projects.emoji.scenes import Scene, random_scene
from projects.emoji.vocabulary import whole_vocabulary

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("scene", "words"),
    [
        (Scene("single", (0,)), "a red apple, 3d style"),
        (Scene("single", (0,), background="sky blue"), "a red apple on a sky blue background, 3d style"),
        (Scene("single", (8,), background="orange"), "an owl on an orange background, 3d style"),
        (Scene("count", (11,), count=3), "three octopuses, flat style"),
        (Scene("count", (17,), count=2), "two faces with tears of joy, flat style"),
        (Scene("count", (11,), count=1), "one octopus, flat style"),
        (Scene("pair", (33, 34), relation="left"), "a pizza to the left of a rocket, twitter style"),
        (Scene("pair", (22, 25), relation="and"), "a cat and a kite, noto style"),
        (Scene("pair", (26, 29), relation="below"), "grapes below cooked rice, noto style"),
    ],
)
def test_the_canonical_caption(scene, words, art):
    assert caption(scene, art) == words


@pytest.mark.parametrize(
    ("noun", "with_article"),
    [
        ("red apple", "a red apple"),
        ("octopus", "an octopus"),
        ("unicorn", "a unicorn"),
        ("ewe", "a ewe"),
        ("euro banknote", "a euro banknote"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("oncoming bus", "an oncoming bus"),
        ("hourglass done", "an hourglass done"),
        ("x-ray", "an x-ray"),
        ("umbrella", "an umbrella"),
        ("cooked rice", "cooked rice"),
        ("chopsticks", "chopsticks"),
        ("compass", "a compass"),
        ("cactus", "a cactus"),
        ("skis", "skis"),
        ("fork and knife", "a fork and knife"),
        ("globe with meridians", "a globe with meridians"),
        ("face with tears of joy", "a face with tears of joy"),
        ("statue of liberty", "the statue of liberty"),
    ],
)
def test_article(noun, with_article):
    assert article(noun) == with_article


@pytest.mark.parametrize(
    ("noun", "several"),
    [
        ("octopus", "octopuses"),
        ("face with tears of joy", "faces with tears of joy"),
        ("ear of corn", "ears of corn"),
        ("fallen leaf", "fallen leaves"),
        ("kitchen knife", "kitchen knives"),
        ("computer mouse", "computer mice"),
        ("snowman without snow", "snowmen without snow"),
        ("blowfish", "blowfish"),
        ("butterfly", "butterflies"),
        ("monkey", "monkeys"),
        ("potato", "potatoes"),
        ("yo-yo", "yo-yos"),
        ("t-rex", "t-rexes"),
        ("woman's hat", "women's hats"),
        ("grapes", "grapes"),
    ],
)
def test_plural(noun, several):
    assert plural(noun) == several


def test_names_are_spoken_as_one_would_say_them():
    assert spoken_name("keycap: 1") == "keycap 1"
    assert spoken_name("flag: japan") == "flag of japan"
    assert spoken_name("woman’s boot") == "woman's boot"


def test_stuff_plurals_and_couples_are_not_counted():
    assert not any(map(is_countable, ("cooked rice", "grapes", "fork and knife", "mount fuji")))
    assert all(map(is_countable, ("octopus", "face with tears of joy", "globe with meridians")))


def test_number_words_end_at_ten():
    assert (number_word(1), number_word(10)) == ("one", "ten")
    with pytest.raises(ValueError, match="count 11 is not within 1 to 10"):
        number_word(11)


def test_every_style_has_phrases_of_its_own():
    assert STYLE_PHRASES.keys() == STYLES.keys()
    phrases = [phrase for group in STYLE_PHRASES.values() for phrase in group]
    assert len(phrases) == len(set(phrases))


def test_backgrounds_are_well_apart():
    colours = np.array(list(BACKGROUNDS.values()))
    distances = np.abs(colours[:, None] - colours[None]).max(axis=-1)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 60


@given(st.lists(st.text("abcdefghijklmnopqrstuvwxyz", min_size=2, max_size=9), min_size=1, max_size=3))
def test_article_and_plural_keep_the_words(words):
    noun = " ".join(words)
    assert article(noun).endswith(noun)
    assert len(plural(noun).split(" ")) == len(words)


@given(seeds)
def test_every_caption_is_well_formed(art, seed):
    rng = np.random.default_rng(seed)
    scene = random_scene(art, rng, range(len(art.records)))
    for words in (caption(scene, art), caption(scene, art, rng)):
        assert words == words.strip()
        assert words
        assert "  " not in words
        assert ", ," not in words
        assert not re.search(r"\ba [aeiou]\w", words.lower().replace("a unicorn", ""))
        assert not re.search(r"\ban [^aeioux8h]", words.lower())
        if scene.background:
            assert f"{scene.background} background" in words.lower()


@given(seeds)
def test_the_whole_vocabulary_holds_every_word_of_every_caption(art, seed):
    rng = np.random.default_rng(seed)
    scene = random_scene(art, rng, range(len(art.records)))
    known = whole_vocabulary(art.records)
    assert known.unknown(f"{caption(scene, art, rng)}, {caption(scene, art)}, zeppelin") == ["zeppelin"]
    assert {spoken_name(art.records[item].concept) for item in scene.items} <= set(known.names)


@given(seeds)
def test_what_captions_say_is_not_put_in_other_words(art, seed):
    rng = np.random.default_rng(seed)
    known = whole_vocabulary(art.records)
    said = caption(random_scene(art, rng, range(len(art.records))), art)
    assert reworded(said, known, list) == said


@given(seeds)
def test_a_varied_caption_never_swaps_left_and_right(art, seed):
    scene = Scene("pair", (3, 4), relation="left")
    words = caption(scene, art, np.random.default_rng(seed)).lower()
    assert ("a pizza to the left of a rocket" in words) != ("a rocket to the right of a pizza" in words)


def test_a_varied_caption_is_the_same_for_the_same_seed(art):
    scene = Scene("single", (0,), background="pink")
    said = [[caption(scene, art, np.random.default_rng(seed)) for seed in range(50)] for _ in range(2)]
    assert said[0] == said[1]
    assert len(set(said[0])) > 10


def test_a_single_thing_is_at_times_said_by_what_it_means_and_several_never_are(art):
    meanings = {"cat": ("feline mammal", "any of the lithe hunters"), "kite": ("plaything",)}
    cat, both = Scene("single", (2,)), Scene("pair", (22, 25), relation="and")
    rngs = [np.random.default_rng(seed) for seed in range(400)]
    said = [caption(cat, art, rng, meanings=meanings).lower() for rng in rngs]
    defined, kind = (sum(words in each for each in said) for words in ("any of the lithe hunters", "a feline mammal"))
    assert 30 < defined < 70
    assert 30 < kind < 70
    assert not any("a any" in each for each in said)
    assert not any("plaything" in caption(both, art, rng, meanings=meanings) for rng in rngs)
    assert "feline" not in caption(cat, art, meanings=meanings)


def test_words_that_many_concepts_share_never_stand_alone(art):
    scene = Scene("single", (2,))
    said = {caption(scene, art, np.random.default_rng(seed)).lower() for seed in range(500)}
    assert any(words.startswith("cat-ish") for words in said)
    assert not any(words.startswith("thing") for words in said)
    assert not any(":-)" in words for words in said)


def styles_said(scene, art):
    """How often each style is said of a scene, in 400 of its captions."""
    phrases = {phrase: style for style, phrases in STYLE_PHRASES.items() for phrase in phrases}
    found = Counter()
    for seed in range(400):
        words = caption(scene, art, np.random.default_rng(seed)).lower()
        said = {phrases[part] for part in re.split(", ", words) if part in phrases}
        assert len(said) <= 1
        found.update(said or {None})
    return found


def test_a_style_is_at_times_left_out_and_at_times_another_one_but_never_one_that_is_held_out(art):
    apple = art.records[0]
    kept = next(r for r in art.records if r.concept == apple.concept and r.style not in (apple.style, "twemoji"))
    records = [replace(r, held_out=r.concept == apple.concept and r.style == "twemoji") for r in art.records]
    said = styles_said(Scene("single", (0,)), EmojiArt(tuple(records), art.pictures))
    assert said[apple.style] > 0.25 * said.total()
    assert said[None] > 0.25 * said.total()
    assert said[kept.style] > 0
    assert said["twemoji"] == 0


def test_the_style_of_several_things_is_never_another_one(art):
    assert set(styles_said(Scene("pair", (0, 1), relation="left"), art)) == {None, art.records[0].style}


def test_an_older_style_is_always_said_and_never_of_anything_else(art):
    apple = art.records[0]
    other = next(r for r in art.records if r.concept == apple.concept and r.style != apple.style)
    renamed = {apple.index: OLDER_STYLES[0], other.index: OLDER_STYLES[1]}
    records = [replace(r, style=renamed.get(r.index, r.style)) for r in art.records]
    aged = EmojiArt(tuple(records), art.pictures)
    assert set(styles_said(Scene("single", (apple.index,)), aged)) == {OLDER_STYLES[0]}
    modern = next(r for r in records if r.concept == apple.concept and r.style not in OLDER_STYLES)
    assert not set(styles_said(Scene("single", (modern.index,)), aged)) & set(OLDER_STYLES)
