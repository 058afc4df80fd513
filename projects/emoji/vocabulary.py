"""Which words captions hold, which new ones ask for the same pictures, and what else captions say from WordNet.

A new word stands for a concept if both are lemmas of one synset of something one can see, the synset is the word's
first sense and among the first SENSES of the concept's name, and none of the word's parts is in any caption's
vocabulary. All such pairs make the list, in an order made of hashes. Captions may say what a concept means instead of
its name, but nothing that holds a part of a new word.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from muse.checkpoint import write_whole
from muse.vocabulary import Phrasing, Style, Vocabulary, words_in
from projects.emoji.captions import (
    BACKGROUNDS,
    LEADS,
    NO_MEANINGS,
    NUMBER_WORDS,
    RELATION_PHRASES,
    STYLE_PHRASES,
    article,
    background_phrase,
    plural,
    spoken_name,
)
from projects.emoji.dataset import Record
from projects.emoji.splits import stable_fraction
from projects.emoji.wordnet import VISIBLE, WordNet

MEANINGS = "meanings.json"
FILES = {"Animals & Nature": frozenset({"05", "17", "20"}), "Food & Drink": frozenset({"06", "13", "20"})}
"""WordNet's files of what the concepts of a group are; of other groups it is all that can be seen."""


def vocabulary(records: Sequence[Record]) -> frozenset[str]:
    """Every word that a caption of these pictures can hold for what they show, meanings aside."""
    texts = (text for record in records for text in (spoken_name(record.concept), *record.tags, *record.keywords))
    return frozenset(word for text in texts for word in words_in(text))


def whole_vocabulary(records: Sequence[Record], meanings: Mapping[str, Sequence[str]] = NO_MEANINGS) -> Vocabulary:
    """What captions of these pictures name, how they are put, and every word that they hold, those of meanings among
    them."""
    names = sorted({spoken_name(record.concept) for record in records})
    seen = {(spoken_name(record.concept), record.style) for record in records}
    styles = [
        Style(phrases, frozenset(name for name in names if (name, style) not in seen))
        for style, phrases in STYLE_PHRASES.items()
        if any(record.style == style for record in records)
    ]
    phrases = (
        *(phrase for style in styles for phrase in style.phrases),
        *RELATION_PHRASES.values(),
        *(background_phrase(background) for background in BACKGROUNDS),
        *("a", "an", "the", *NUMBER_WORDS, *LEADS, *map(plural, names)),
        *(text for texts in meanings.values() for text in texts),
    )
    words = vocabulary(records).union(*map(words_in, phrases))
    bare = frozenset(name for name in names if not article(name).startswith(("a ", "an ")))
    phrasing = Phrasing(LEADS, tuple(RELATION_PHRASES.values()), tuple(styles), bare)
    characters = {characters_of(record): spoken_name(record.concept) for record in records}
    said = {character: (article(name), plural(name)) for character, name in characters.items()}
    return Vocabulary(tuple(names), words, phrasing, said)


def characters_of(record: Record) -> str:
    """The characters of a picture, without the selector that asks for a picture."""
    return "".join(chr(int(each, 16)) for each in record.codepoint.split("-"))


@dataclass(frozen=True)
class Synonym:
    """A word that was in no caption, and the picture that it asks for."""

    word: str
    record: Record

    def prompts(self) -> tuple[str, str]:
        """The word and the concept's own name, in the record's style."""
        style = STYLE_PHRASES[self.record.style][0]
        word, name = (f"{article(noun)}, {style}" for noun in (self.word, spoken_name(self.record.concept)))
        return word, name


def find_synonyms(wordnet: WordNet, records: Sequence[Record]) -> list[Synonym]:
    """All new words for the concepts of some pictures, in an order made of hashes, each for one picture."""
    known = vocabulary(records)
    by_concept: dict[str, list[Record]] = {}
    for record in records:
        by_concept.setdefault(record.concept, []).append(record)
    found = {
        word: pick(word, seen)
        for concept, seen in by_concept.items()
        for word in wordnet.synonyms(spoken_name(concept))
        if is_new(word, known)
    }
    return [Synonym(word, found[word]) for word in sorted(found, key=lambda word: stable_fraction("synonym", word))]


def is_new(word: str, known: Collection[str]) -> bool:
    return not any(part in known for part in words_in(word))


def pick(word: str, records: Sequence[Record]) -> Record:
    """One of a concept's pictures; words take turns among the styles."""
    return min(records, key=lambda record: stable_fraction("style", word, record.style))


def meanings_of(wordnet: WordNet, records: Sequence[Record]) -> dict[str, tuple[str, ...]]:
    """What each concept's name means, for captions: in the sense that goes with its group, as an octopus is also food;
    nothing that holds a part of a new word, or is the name of another concept."""
    new = {part for synonym in find_synonyms(wordnet, records) for part in words_in(synonym.word)}
    group_of = {record.concept: record.group for record in records}
    names = set(map(spoken_name, group_of))
    meanings = {
        concept: wordnet.meanings(spoken_name(concept), FILES.get(group, VISIBLE))
        for concept, group in group_of.items()
    }
    told = {
        concept: tuple(text for text in texts if text and text not in names and new.isdisjoint(words_in(text)))
        for concept, texts in meanings.items()
    }
    return {concept: texts for concept, texts in told.items() if texts}


def load_meanings(folder: Path, records: Sequence[Record]) -> Mapping[str, Sequence[str]]:
    """The meanings of the concepts of some pictures, kept in a folder once they are made.
    Raises BuildError if they are not there, and WordNet neither is nor can be fetched."""
    path = folder / MEANINGS
    if not path.is_file():
        told = meanings_of(WordNet.fetch(folder / "packages"), records)
        write_whole(path, json.dumps(told, indent=1) + "\n")
    return json.loads(path.read_text())
