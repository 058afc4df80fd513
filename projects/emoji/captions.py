"""The words that go with a scene."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from projects.emoji.dataset import EmojiArt, Record
from projects.emoji.splits import SEEN_FROM_THE_OTHER

if TYPE_CHECKING:
    from projects.emoji.scenes import Scene

STYLE_PHRASES: dict[str, tuple[str, ...]] = {
    "fluent-3d": ("3d style", "3d render", "fluent 3d style"),
    "fluent-color": ("glossy gradient style", "gradient style", "fluent gradient style"),
    "fluent-flat": ("flat style", "flat colors", "fluent flat style"),
    "noto": ("noto style", "google noto style", "google style"),
    "noto-v1": ("blob style", "android blob style"),
    "fxemoji": ("firefox style", "mozilla style"),
    "twemoji": ("twitter style", "twemoji style"),
    "emojione2": ("emojione style", "emojione 2 style"),
    "openmoji": ("openmoji style", "thin outline style"),
    "emojione1": ("classic emojione style", "emojione 1 style"),
}
"""The canonical phrase of each style, then its paraphrases; no phrase belongs to two styles."""
OLDER_STYLES = ("noto-v1", "emojione2", "fxemoji")
"""Captions always say these, and truly, so that whoever names no style gets none of them."""

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "red": (214, 40, 40),
    "orange": (255, 140, 0),
    "yellow": (255, 225, 60),
    "green": (46, 160, 67),
    "sky blue": (135, 206, 235),
    "blue": (30, 80, 200),
    "purple": (125, 60, 170),
    "pink": (255, 160, 200),
    "brown": (121, 78, 46),
}
"""Background colours, RGB in 0..255."""

RELATION_PHRASES = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
    "and": "and",
}
NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# How often a random caption departs from the canonical one.
NAME_ALONE, NAME_WITH_TAGS = 0.6, 0.28  # of single pictures; the rest say a rare word instead
MEANING_SAID = 0.25  # of single pictures whose name has one, before the above
STYLE_SAID = 0.55
STYLE_MISTAKEN = 0.4  # of the styles said of single things, unless a caption is asked for with another share
STYLE_PARAPHRASED = 0.4
STYLE_FIRST = 0.15
BACKGROUND_FIRST = 0.25
LEAD_SAID = 0.15
ORDER_SWAPPED = 0.3
NUMBER_AS_DIGIT = 0.2
CAPITALISED = 0.1
LEADS = ("a picture of", "an image of", "an emoji of", "a drawing of")
MOST_CONCEPTS_PER_WORD = 3
"""A word shared by more concepts says too little to stand for one of them."""

NO_MEANINGS: Mapping[str, Sequence[str]] = MappingProxyType({})
ALREADY_SAID = ("a ", "an ", "the ", "any ", "something ", "one ", "two ")
"""How a meaning begins that wants no article."""

SPOKEN = {
    "rolling on the floor laughing": "face rolling on the floor laughing",
    "star-struck": "star-struck face",
    "dizzy": "dizzy star",
    "locked": "closed lock",
    "unlocked": "open lock",
    "locked with pen": "lock with pen",
    "locked with key": "lock with key",
}
"""Unicode names that are no noun phrases, and what is said instead."""

UNCOUNTED = frozenset(
    """bacon, badminton, baguette bread, bowling, bread, broccoli, bubble tea, building construction, butter, camping,
    canned food, construction, cooked rice, cooking, coral, curry rice, custard, dashing away, dna, falafel,
    field hockey, fire, fog, foggy, fondue, garlic, high voltage, ice, ice hockey, lacrosse, light rail, luggage,
    mate, meat on bone, money with wings, mount fuji, oden, ping pong, popcorn, pouring liquid, sake, salt, shaved ice,
    soap, spaghetti, sushi, tennis, thread, tokyo tower, wood, yarn, zzz""".replace("\n    ", " ").split(", ")
)
"""Names said without "a" and never counted: stuff, sports, and what there is one of."""

UNIQUE = ("statue of liberty", "milky way")
"""Names said with "the"."""

SINGULAR_ENDINGS = ("ss", "us", "is", "os")  # glass, octopus, chassis, rhinoceros
IRREGULAR_PLURALS = {"mouse": "mice", "goose": "geese", "ox": "oxen", "die": "dice", "foot": "feet", "tooth": "teeth"}
UNCHANGED_PLURALS = ("fish", "sheep", "deer", "moose", "bison", "buffalo", "squid", "shrimp", "dango", "sushi")
PLURALS_IN_VES = ("leaf", "loaf", "sheaf", "wolf", "scarf")
PLURALS_IN_OES = ("potato", "tomato", "mango", "volcano", "tornado", "mosquito")

# The noun that takes the plural stands before the first of these: "faces with tears of joy", "ears of corn".
AFTER_THE_NOUN = (
    *("with", "of", "in", "on", "without", "behind", "from", "at", "over", "under"),
    *("facing", "fluttering", "showing", "exhaling", "vomiting", "savoring", "blowing", "holding", "screaming"),
    *("shaking", "rolling", "tilted", "increasing", "decreasing", "low", "medium", "high", "done", "not"),
)

# "a" goes by sound: "a unicorn", "an hourglass", "an x-ray".
SOUNDS_LIKE_A_CONSONANT = re.compile(r"uni|eu|ewe|use|one\b|u-|uk")
SOUNDS_LIKE_A_VOWEL = re.compile(r"[aeiou8]|hour|honest|heir|herb|x-|mri\b")


def spoken_name(concept: str) -> str:
    """A concept's name as one would say it: "keycap: 1" is "keycap 1", "flag: japan" is "flag of japan"."""
    name = SPOKEN.get(concept, concept).replace("’", "'").replace("flag: ", "flag of ")
    return " ".join(re.sub(r"[:“”]", " ", name).split())


def head_and_rest(noun: str) -> tuple[str, str]:
    """Split "ear of corn" into the noun that is counted, "ear", and " of corn"."""
    words = noun.split(" ")
    for place, word in enumerate(words):
        if place and word in AFTER_THE_NOUN:
            return " ".join(words[:place]), " " + " ".join(words[place:])
    return noun, ""


def is_plural(noun: str) -> bool:
    """Whether the noun names several things already, as "grapes" and "paw prints" do."""
    head = head_and_rest(noun)[0]
    if " and " in head:
        return False
    last = head.split(" ")[-1]
    return last == "skis" or (last.endswith("s") and not last.endswith(SINGULAR_ENDINGS))


def is_countable(concept: str) -> bool:
    """Whether "three ..." can be said of the concept, each copy being one."""
    noun = spoken_name(concept)
    return not (noun in UNCOUNTED or noun in UNIQUE or is_plural(noun) or " and " in noun)


def article(noun: str) -> str:
    """The noun after "a", "an" or "the", or alone where it is plural or cannot be counted."""
    if noun in UNIQUE:
        return f"the {noun}"
    if noun in UNCOUNTED or is_plural(noun):
        return noun
    has_vowel = SOUNDS_LIKE_A_VOWEL.match(noun) and not SOUNDS_LIKE_A_CONSONANT.match(noun)
    return f"{'an' if has_vowel else 'a'} {noun}"


def plural(noun: str) -> str:
    """The noun when there are several: "octopuses", "faces with tears of joy"."""
    if noun in UNCOUNTED or is_plural(noun):
        return noun
    head, rest = head_and_rest(noun)
    return re.sub(r"\b(wo)?man's\b", r"\1men's", plural_word(head)) + rest


def plural_word(word: str) -> str:
    """The plural of a singular noun by its last word's spelling."""
    last = re.split(r"[ -]", word)[-1]
    stem = word[: len(word) - len(last)]
    if last in IRREGULAR_PLURALS:
        return stem + IRREGULAR_PLURALS[last]
    if last.endswith(UNCHANGED_PLURALS):
        return word
    if last.endswith("man") and last not in ("human", "roman"):
        return word[:-2] + "en"
    if last.endswith("knife"):
        return word[:-2] + "ves"
    if last.endswith(PLURALS_IN_VES):
        return word[:-1] + "ves"
    if re.search("[^aeiou]y$", last):
        return word[:-1] + "ies"
    if last.endswith(("s", "x", "z", "ch", "sh", *PLURALS_IN_OES)):
        return word + "es"
    return word + "s"


def number_word(count: int) -> str:
    """1 to 10 in words; ValueError beyond."""
    if not 1 <= count <= len(NUMBER_WORDS):
        raise ValueError(f"count {count} is not within 1 to {len(NUMBER_WORDS)}")
    return NUMBER_WORDS[count - 1]


def caption(
    scene: Scene,
    art: EmojiArt,
    rng: np.random.Generator | None = None,
    style_mistaken: float = STYLE_MISTAKEN,
    meanings: Mapping[str, Sequence[str]] = NO_MEANINGS,
) -> str:
    """What the scene shows, in words: the canonical caption, or with a generator one of many ways to say it, at times
    by what a concept means.

    Canonical: "a red apple on a sky blue background, 3d style", "three octopuses, flat style"."""
    if rng is None:
        return canonical_caption(scene, art)
    return varied_caption(scene, art, rng, style_mistaken, meanings)


def canonical_caption(scene: Scene, art: EmojiArt) -> str:
    records = [art.records[item] for item in scene.items]
    nouns = [spoken_name(record.concept) for record in records]
    if scene.kind == "single":
        subject = article(nouns[0])
    elif scene.kind == "count":
        subject = counted(nouns[0], scene.count, number_word(scene.count))
    else:
        subject = f"{article(nouns[0])} {RELATION_PHRASES[scene.relation or 'and']} {article(nouns[1])}"
    background = f" {background_phrase(scene.background)}" if scene.background else ""
    return f"{subject}{background}, {STYLE_PHRASES[records[0].style][0]}"


def varied_caption(
    scene: Scene,
    art: EmojiArt,
    rng: np.random.Generator,
    style_mistaken: float,
    meanings: Mapping[str, Sequence[str]],
) -> str:
    """One of many ways to say what the scene shows; a background that is not plain white is always said."""
    subject, background = varied_subject(scene, art, rng, meanings), ""
    if scene.background and rng.random() < BACKGROUND_FIRST:
        subject = f"{background_phrase(scene.background)}, {subject}"
    else:
        if rng.random() < LEAD_SAID:
            subject = f"{pick(LEADS, rng)} {subject}"
        background = f" {background_phrase(scene.background)}" if scene.background else ""
    text = with_style(subject + background, said_style(scene, art, rng, style_mistaken), rng)
    return text[0].upper() + text[1:] if rng.random() < CAPITALISED else text


def varied_subject(scene: Scene, art: EmojiArt, rng: np.random.Generator, meanings: Mapping[str, Sequence[str]]) -> str:
    records = [art.records[item] for item in scene.items]
    nouns = [spoken_name(record.concept) for record in records]
    if scene.kind == "single":
        told = meanings.get(records[0].concept, ())
        if told and rng.random() < MEANING_SAID:
            return meant(pick(told, rng))
        return varied_noun(records[0], art, rng)
    if scene.kind == "count":
        number = str(scene.count) if rng.random() < NUMBER_AS_DIGIT else number_word(scene.count)
        return counted(nouns[0], scene.count, number)
    relation = scene.relation or "and"
    if rng.random() < ORDER_SWAPPED:
        nouns, relation = nouns[::-1], SEEN_FROM_THE_OTHER[relation]
    return f"{article(nouns[0])} {RELATION_PHRASES[relation]} {article(nouns[1])}"


def varied_noun(record: Record, art: EmojiArt, rng: np.random.Generator) -> str:
    """The name, the name with a tag or two, or in its stead a word that few concepts share."""
    name, draw = article(spoken_name(record.concept)), rng.random()
    words = [word for word in dict.fromkeys(record.tags + record.keywords) if is_sayable(word)]
    if draw < NAME_ALONE or not words:
        return name
    if draw < NAME_ALONE + NAME_WITH_TAGS:
        count = min(len(words), 1 + int(rng.integers(2)))
        return ", ".join([name, *(words[place] for place in rng.permutation(len(words))[:count])])
    rare = [word for word in words if len(art.concepts_by_word[word]) <= MOST_CONCEPTS_PER_WORD]
    return pick(rare, rng) if rare else name


def meant(meaning: str) -> str:
    """A meaning as one would say it: "a feline", "any of numerous small rodents"."""
    return meaning if meaning.startswith(ALREADY_SAID) else article(meaning)


def is_sayable(word: str) -> bool:
    """Whether a tag is a word, not an emoticon such as ":-)" or a lone letter."""
    return re.fullmatch(r"[^\W\d_][\w' -]+\w", word) is not None


def counted(noun: str, count: int, number: str) -> str:
    return f"{number} {noun if count == 1 else plural(noun)}"


def background_phrase(background: str) -> str:
    return f"on {article(background)} background"


def said_style(scene: Scene, art: EmojiArt, rng: np.random.Generator, mistaken: float) -> str:
    """The style, or by mistake another one that the same thing has too, so that what is asked for comes before how it
    is drawn: else a model draws nothing at all of a thing in a style that it has not seen it in (docs/log.md). Never a
    style in which the thing is held out."""
    record = art.records[scene.items[0]]
    if record.style in OLDER_STYLES or scene.kind != "single" or rng.random() >= mistaken:
        return record.style
    alike = (art.records[row] for row in art.by_concept(record.concept))
    return pick([other.style for other in alike if not other.held_out and other.style not in OLDER_STYLES], rng)


def with_style(text: str, style: str, rng: np.random.Generator) -> str:
    """The text with the style's phrase after it, at times before it, at times not at all."""
    if style not in OLDER_STYLES and rng.random() >= STYLE_SAID:
        return text
    canonical, *paraphrases = STYLE_PHRASES[style]
    phrase = pick(paraphrases, rng) if rng.random() < STYLE_PARAPHRASED else canonical
    return f"{phrase}, {text}" if rng.random() < STYLE_FIRST else f"{text}, {phrase}"


def pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
