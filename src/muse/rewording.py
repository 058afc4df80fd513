"""Prompts in words that captions held: things by their names, how one stands to another as captions said it, no style
in which a thing was never seen, and nothing about being a picture.

What a person writes is read by rule, and left alone wherever a rule does not fit."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from muse.vocabulary import COMMON, WORD, Named, Phrasing, Style, Vocabulary, has_digit, whole_words, words_of

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
COUNTS = frozenset(NUMBERS)
JOINING = whole_words(
    "above across against along among around atop behind below beneath beside between beyond inside near next off onto "
    "opposite outside past through towards underneath upon within without"
)
"""Words that say how a thing stands to another one, and name none."""
PLACES = whole_words("left right top bottom side middle centre center front back foreground background")
"""What "the" and only such words name is no thing."""
OPENINGS = COUNTS | whole_words("a an and her his my our some that the their this your")
"""Words after which a thing is named."""
DETERMINERS = OPENINGS - {"and"}
BETWEEN = COMMON | COUNTS | JOINING
"""Words that are no part of what names a thing."""
VOWEL = re.compile(r"(?!uni|eu|ewe|use|one\b)[aeiou]|hour|heir")
WHICH = whole_words("that which who")
IS = whole_words("is are was were")
STANDS = whole_words("sits stands lies rests hangs floats placed perched parked seated put standing sitting lying")
"""Words that say no more than that a thing is somewhere, besides others in "-ing"."""
EXACTLY = whole_words("just right directly close")
PICTURES = whole_words(
    "art cartoon clipart drawing emoji engraving icon illustration image logo painting photo photograph picture "
    "portrait render rendering sketch sticker symbol watercolor watercolour"
)
ONE = "|".join(sorted(DETERMINERS))
FRAMES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"^\s*(?:(?:please|can you|could you|i want you to)\s+)?"
        r"(?:draw|paint|sketch|render|show|make|create|generate|give)"
        rf"\s+(?:(?:me|us)\s+)?(?=(?:{ONE})\b)",
        rf"^\s*i (?:want|need|would like)\s+(?=(?:{ONE})\b)",
        r"\bin the style of\b[^,.]*",
        rf"^\s*(?:(?:{ONE})\s+)?(?:(?!(?:{'|'.join(BETWEEN)})\b)[\w-]+\s+){{,3}}(?:{'|'.join(PICTURES)})\s+of\s+(?=\w)",
    )
)
GAPS = string.whitespace + ","
STOPS = string.whitespace + ".!?"
ASKED = re.compile(r"\b(?:please|for me)$", re.IGNORECASE)
LONGEST_ASKED = len(" please")
MOST_ADJECTIVES = 2
MOST_LETTERS = 2000
"""Of a text that is looked at for more than things: some patterns take the square of a text's length."""
SAID_OTHERWISE = {
    "and": (
        "next to",
        "near",
        "near to",
        "to",  # after "close" or "next"
        "beside",
        "by",
        "with",
        "alongside",
        "along with",
        "together with",
        "in front of",
        "behind",
        "in",
        "inside",
        "within",
        "against",
        "around",
        "plus",
    ),
    "above": ("on top of", "over", "atop", "on", "upon", "onto"),
    "below": ("under", "beneath", "underneath"),
    "to the left of": ("left of", "on the left of", "at the left of", "on the left side of", "to the left side of"),
    "to the right of": (
        "right of",
        "on the right of",
        "at the right of",
        "on the right side of",
        "to the right side of",
    ),
}
"""What captions may say between two things, and what people say instead. Of two things inside or before one another
both are drawn, which is the most that "and" can ask for."""
RELATIONS = {
    tuple(phrase.split()): relation for relation, others in SAID_OTHERWISE.items() for phrase in (relation, *others)
}
LONGEST_RELATION = max(map(len, RELATIONS))
SIDES = {
    ("left", "right"): "to the left of",
    ("right", "left"): "to the right of",
    ("top", "bottom"): "above",
    ("bottom", "top"): "below",
}
"""Where the first and the second thing are, each said for itself, and what that is between both."""
VARIED = re.compile("[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")
"""What only says how such a character is to look."""
JOINED = string.whitespace + "\u200d"
"""What stands between characters that belong together."""
Nearest = Callable[[Sequence[str]], Sequence[str]]
"""Things to a name for each."""
Match = re.Match[str]


def reworded(text: str, vocabulary: Vocabulary, nearest: Nearest) -> str:
    """A text in words that captions held, as far as rules can tell: by `with_named_characters` and `with_known_things`;
    and if it is known how captions are put, by all the rules below."""
    if len(text) > MOST_LETTERS:
        return with_known_things(text, vocabulary, nearest)
    text = with_named_characters(text, vocabulary)
    if vocabulary.phrasing is None:
        return with_known_things(text, vocabulary, nearest)
    text = without_frame(text, vocabulary, vocabulary.phrasing)
    text = without_unknown_asides(with_known_things(text, vocabulary, nearest), vocabulary, vocabulary.phrasing)
    text = with_known_relation(text, vocabulary, vocabulary.phrasing.relations)
    text = without_unseen_style(text, vocabulary, vocabulary.phrasing.styles)
    return with_articles(text, vocabulary, vocabulary.phrasing)


# -- pictorial characters ----------------------------------------------------------------------------------------------


Said = tuple[str, str]
"""One and several of what a character shows: "a fox", "foxes"."""


@dataclass(frozen=True)
class Characters:
    """Pictorial characters of a text, one after the other."""

    shown: tuple[tuple[Said, int], ...]
    """What they show, and how many of it stand together."""
    start: int
    end: int
    """Where they are in the text."""

    def in_words(self, opening: str) -> str:
        """What they show, behind an opening word, if one is there: "a fox and two dogs"."""
        (first, num), *others = self.shown
        begun = told(first, num)
        if opening:
            said = first[1] if opening.lower() in COUNTS - {"one"} else without_article(first[0])
            begun = f"{suited(opening, said)} {said}"
        return " and ".join([begun, *(told(said, num) for said, num in others)])


def told(said: Said, num: int) -> str:
    """So many of what a character shows; ten of more."""
    return said[0] if num == 1 else f"{NUMBERS[min(num, len(NUMBERS)) - 1]} {said[1]}"


def without_article(one: str) -> str:
    """ "an octopus" without its article."""
    return one.removeprefix("an ").removeprefix("a ")


def with_named_characters(text: str, vocabulary: Vocabulary) -> str:
    """A text in which pictorial characters are called by what they show, as captions said it, or else as Unicode has
    it: "🦊🦊 above a 🏠" is "two foxes above a house". Beside words that name something they add nothing, and are left
    out: "a red apple 🍎"."""
    plain = VARIED.sub("", text)
    found = list(characters_in(plain, vocabulary))
    if not found:
        return text
    rest = plain
    for each in reversed(found):
        rest = f"{rest[: each.start]} {rest[each.end :]}"
    names_something, parts, end = names_any(words_of(rest), vocabulary), [], 0
    for each in found:
        before, after, end = plain[end : each.start].rstrip(), plain[each.end :], each.end
        words, following = WORD.findall(before), WORD.match(after.lstrip())
        last = words[-1] if words and before.endswith(words[-1]) else ""
        is_opened, is_described = last.lower() in DETERMINERS, last.lower() not in ("", *BETWEEN)
        is_before_thing = following is not None and following.group().lower() in DETERMINERS
        if names_something and not is_opened and (is_described or is_before_thing):
            said = ""
        elif is_opened:
            before, said = before[: len(before) - len(last)].rstrip(), each.in_words(last)
        else:
            said = each.in_words("")
        is_apart = bool(said and before) and (before[-1].isalnum() or before[-1] in ",;:.!?&+")
        parts += [before, " " if is_apart else "", said, " " if following and not after[:1].isspace() else ""]
    return "".join([*parts, plain[end:]]).strip()


def characters_in(text: str, vocabulary: Vocabulary) -> Iterator[Characters]:
    """The pictorial characters of a text, those that stand together in one."""
    together: list[Match] = []
    for match in (*vocabulary.pictorial.finditer(text), None):
        if match is not None and (not together or not text[together[-1].end() : match.start()].strip(JOINED)):
            together.append(match)
            continue
        said = [what_it_shows(each.group(), vocabulary) for each in together]
        shown = tuple((each, len(list(same))) for each, same in groupby(said))
        if together:
            yield Characters(shown, together[0].start(), together[-1].end())
        together = [] if match is None else [match]


def what_it_shows(character: str, vocabulary: Vocabulary) -> Said:
    """One and several of what a character shows, as captions said it, or else as Unicode has it."""
    if character in vocabulary.characters:
        return vocabulary.characters[character]
    name = unicodedata.name(character, "unknown character").lower()
    return f"{suited('a', name)} {name}", f"{name}s"


# -- what is said around things ----------------------------------------------------------------------------------------


def without_frame(text: str, vocabulary: Vocabulary, phrasing: Phrasing) -> str:
    """A text without what asks for a picture, and not for anything on it: "draw me a red fox, please", "an oil painting
    of a red fox", "a red fox emoji", "a red fox in the style of Rousseau" are all "a red fox"."""
    text = without_end(text)
    for frame in FRAMES:
        found = frame.search(text)
        is_known = found is not None and found.group().strip().lower() in phrasing.leads
        if found is not None and not is_known:
            text = (text[: found.start()].rstrip(GAPS) + text[found.end() :]).strip() or text
    words = list(WORD.finditer(text))
    said = lower(words)
    of_styles = words_of_styles(phrasing)
    of_names = {i for named in vocabulary.names_in(said) for i in range(named.start, named.stop)}
    for i, word in enumerate(words[1:], start=1):
        is_picture = i not in of_names and said[i] in PICTURES - of_styles
        is_last = i + 1 == len(words) or not is_next(text, word, words[i + 1]) or said[i + 1] in BETWEEN
        if is_picture and is_last and is_next(text, words[i - 1], word) and said[i - 1] not in BETWEEN:
            comma = text.rfind(",", 0, word.start())
            aside = {j for j in range(i) if words[j].start() > comma >= 0}
            is_all = bool(aside) and aside.isdisjoint(of_names) and of_styles.isdisjoint(said[j] for j in aside)
            return text[: comma if is_all else words[i - 1].end()] + text[word.end() :]
    return text


def without_end(text: str) -> str:
    """A text without a full stop, "please" or "for me" at its end; with them if it is nothing else. Read from its end,
    as a pattern that looks for an end takes the square of the gaps before it, or more."""
    rest = text.rstrip(STOPS)
    asked = ASKED.search(rest[-LONGEST_ASKED:])
    if asked is not None:
        rest = rest[: len(rest) - len(asked.group())]
    return rest.rstrip(GAPS) or text


def without_unknown_asides(text: str, vocabulary: Vocabulary, phrasing: Phrasing) -> str:
    """A text that names something, without what follows on a comma, names nothing and holds an unknown word: "a red
    fox, highly detailed, 8k" is "a red fox"."""
    if not names_any(words_of(text), vocabulary):
        return text
    of_styles = words_of_styles(phrasing)

    def is_unknown(aside: str) -> bool:
        words = words_of(aside)
        is_said = names_any(words, vocabulary) or not of_styles.isdisjoint(words)
        return bool(words) and not is_said and (any(map(vocabulary.is_unknown, words)) or all(map(has_digit, words)))

    first, *others = text.split(",")
    return ",".join([first, *(aside for aside in others if not is_unknown(aside))])


def words_of_styles(phrasing: Phrasing) -> frozenset[str]:
    """The words that say which style it is: those of one alone, so that "style" itself says none."""
    of_each = [{word for phrase in style.phrases for word in phrase.split()} for style in phrasing.styles]
    in_styles = Counter(word for words in of_each for word in words)
    return frozenset(word for word, num in in_styles.items() if num == 1)


def with_articles(text: str, vocabulary: Vocabulary, phrasing: Phrasing) -> str:
    """A text in which single things have an article, if captions give them one: "fox above moon" is "a fox above a
    moon"."""
    words = list(WORD.finditer(text))
    said, parts, end, stop = lower(words), [], 0, 0
    relations = {tuple(relation.split()) for relation in phrasing.relations}
    for named in vocabulary.names_in(said):
        first, stop = max(stop, start_of(named, text, words)), named.stop
        is_alone = first == 0 or any(said[max(0, first - len(each)) : first] == each for each in relations)
        is_single = " ".join(said[named.start : named.stop]) == named.name.lower()
        if is_alone and is_single and named.name not in phrasing.bare and named.start - first <= MOST_ADJECTIVES:
            start = words[first].start()
            parts += [text[end:start], suited("a", said[first]), " "]
            end = start
    return "".join([*parts, text[end:]])


# -- things ------------------------------------------------------------------------------------------------------------


def with_known_things(text: str, vocabulary: Vocabulary, nearest: Nearest) -> str:
    """A text in which things are called by what captions called them.

    A thing is said by the words after an article or the like, or at the start; "a photo of" names none, nor does
    "in watercolor style". If some of its words are unknown, they are left out where the others hold a name ("a
    shabby red fox" is "a red fox"). Else the thing is called by its `nearest` name, if its last word is unknown
    ("a golden retriever" is "a dog") or in that name too ("a crimson apple" is "a red apple")."""
    things = [thing for thing in things_in(text, vocabulary) if any(map(vocabulary.is_unknown, thing.words))]
    names = [known_name(thing.words, vocabulary) for thing in things]
    nameless = [thing for thing, name in zip(things, names, strict=True) if name is None]
    near = iter(nearest([f"a {' '.join(thing.words)}" for thing in nameless]) if nameless else ())
    parts, end = [], 0
    for thing, name in zip(things, names, strict=True):
        if name is None:
            name, last = next(near), thing.words[-1]
            if not (vocabulary.is_unknown(last) or last in name.lower().split()):
                continue
        if thing.opening is not None:
            parts += [text[end : thing.opening.start()], suited(thing.opening.group(), name)]
            end = thing.opening.end()
        parts += [text[end : thing.start], name]
        end = thing.end
    return "".join([*parts, text[end:]])


@dataclass(frozen=True)
class Thing:
    """What a part of a text names."""

    opening: Match | None
    """The word before it; None at the start."""
    words: tuple[str, ...]
    """In lower case."""
    start: int
    end: int
    """Where it is in the text."""


def things_in(text: str, vocabulary: Vocabulary) -> Iterator[Thing]:
    """All things that a text names."""
    before: Match | None = None
    thing: list[Match] = []
    for word in (*WORD.finditer(text), None):
        is_part = word is not None and is_part_of_thing(word.group().lower(), vocabulary, is_first=not thing)
        if word is not None and is_part and (not thing or text[thing[-1].end() : word.start()].strip(" -") == ""):
            thing.append(word)
            continue
        is_opened = before is None or before.group().lower() in OPENINGS
        is_frame = word is not None and word.group().lower() == "of"
        if is_opened and not is_frame and not PLACES.issuperset(lower(thing)):
            yield Thing(before, lower(thing), thing[0].start(), thing[-1].end())
        before = thing[-1] if thing and is_part else word
        thing = [word] if word is not None and is_part else []


def is_part_of_thing(word: str, vocabulary: Vocabulary, *, is_first: bool) -> bool:
    """Whether a word can be one of those that name a thing. "riding" says what a thing does."""
    is_verb = not is_first and word.endswith("ing") and vocabulary.is_unknown(word)
    return not (is_verb or word in BETWEEN or has_digit(word))


def known_name(words: Sequence[str], vocabulary: Vocabulary) -> str | None:
    """Those of some words that are known, if they hold a name, one or several of it."""
    known = tuple(word for word in words if not vocabulary.is_unknown(word))
    return " ".join(known) if names_any(known, vocabulary) else None


def names_any(words: Sequence[str], vocabulary: Vocabulary) -> bool:
    return any(True for _ in vocabulary.names_in(words))


def suited(opening: str, name: str) -> str:
    """An indefinite article as it goes before a name; any other word as it is."""
    if opening.lower() not in ("a", "an"):
        return opening
    return opening[0] + ("n" if VOWEL.match(name.lower()) else "")


def start_of(named: Named, text: str, words: Sequence[Match]) -> int:
    """Where the adjectives before a name begin."""
    first = named.start
    while first > 0 and is_next(text, words[first - 1], words[first]):
        word = words[first - 1].group().lower()
        if word in BETWEEN or has_digit(word):
            break
        first -= 1
    return first


# -- how two things stand ----------------------------------------------------------------------------------------------


def with_known_relation(text: str, vocabulary: Vocabulary, relations: Sequence[str]) -> str:
    """A text of two things, in which what is between them is said as captions said it: "a cat sitting on a rocket" is
    "a cat above a rocket", "a cat wearing a top hat" "a cat and a top hat". Any other text as it is."""
    words = list(WORD.finditer(text))
    spans = list(vocabulary.names_in(lower(words)))
    if len(spans) != 2:
        return text
    first, second = spans
    between, after = words[first.stop : second.start], words[second.stop :]
    if not is_one_clause(text[words[first.stop - 1].end() : words[second.start].start()]):
        return text
    if after and after[0].group().lower() not in BETWEEN and is_next(text, words[second.stop - 1], after[0]):
        return text  # the second name is part of a longer one: "an orange background"
    commas = text[words[first.stop - 1].end() : words[first.stop].start()]
    found = two_sides(lower(between), lower(after)) or one_relation(lower(between), commas, vocabulary)
    if found is None or found.relation not in relations:
        return text
    start, end = words[first.stop - 1].end(), words[first.stop + found.num_between].start()
    middle = f"{text[:start]} {found.relation} {text[end : words[second.stop - 1].end()]}"
    return middle + text[words[second.stop + found.num_after - 1].end() :]


@dataclass(frozen=True)
class Found:
    """How captions say what is said by the first of the words between two things, and by the first after both."""

    relation: str
    num_between: int
    num_after: int = 0


def two_sides(between: Sequence[str], after: Sequence[str]) -> Found | None:
    """ "a cat on the left and a dog on the right"."""
    (one, num_between), (other, num_after) = side(between), side(after)
    relation = SIDES.get((one, other))
    if relation is None:
        return None
    num_between += between[num_between : num_between + 1] == ("and",)
    return Found(relation, num_between, num_after) if is_opening(between[num_between:]) else None


def side(words: Sequence[str]) -> tuple[str, int]:
    """The side that the first words say, and how many say so; "" and 0 if they say none."""
    num = 2 if words[1:2] == ("the",) else 1
    return (word_at(words, num), num + 1) if word_at(words, 0) in ("on", "at", "in", "to") else ("", 0)


def one_relation(between: Sequence[str], commas: str, vocabulary: Vocabulary) -> Found | None:
    """What the words between two things say of both, with or without a verb."""
    num = int(word_at(between, 0) in WHICH)
    num += word_at(between, num) in IS
    verb = word_at(between, num) if commas.isspace() and is_verb(word_at(between, num), vocabulary) else None
    num += verb is not None
    num += word_at(between, num) in EXACTLY and between[num : num + 2] not in RELATIONS
    for length in range(min(LONGEST_RELATION, len(between) - num), 0, -1):
        relation = RELATIONS.get(tuple(between[num : num + length]))
        if relation is not None and is_opening(between[num + length :]):
            is_so_already = num == 0 and relation == " ".join(between[:length]) and commas.isspace()
            return None if is_so_already else Found(relation, num + length)
    is_listed = num == 0 and commas.strip() in (",", "&", "+") and (commas.strip() != "," or is_opened(between))
    if not (is_listed or (verb is not None and verb.endswith("ing"))) or not is_opening(between[num:]):
        return None
    return Found("above" if verb == "riding" else "and", num)


def is_verb(word: str, vocabulary: Vocabulary) -> bool:
    """Whether a word after a name says what that thing does."""
    return word in STANDS or (word.endswith("ing") and word not in vocabulary.last_words)


def is_opened(words: Sequence[str]) -> bool:
    return word_at(words, 0) in DETERMINERS


def is_opening(words: Sequence[str]) -> bool:
    """Whether words can stand right before a name: an article and adjectives, or nothing."""
    adjectives = words[1:] if is_opened(words) else words
    return not any(word in BETWEEN or word.endswith("ing") for word in adjectives)


def word_at(words: Sequence[str], place: int) -> str:
    """The word at a place; "" behind the last."""
    return words[place] if place < len(words) else ""


def is_one_clause(text: str) -> bool:
    return re.search(r"[^\w\s,&+'’-]|_", text) is None


def is_next(text: str, word: Match, following: Match) -> bool:
    """Whether nothing but a space or a hyphen stands between two words."""
    return text[word.end() : following.start()].strip(" -") == ""


def lower(words: Sequence[Match]) -> tuple[str, ...]:
    return tuple(word.group().lower() for word in words)


# -- styles ------------------------------------------------------------------------------------------------------------


def without_unseen_style(text: str, vocabulary: Vocabulary, styles: Sequence[Style]) -> str:
    """A text without the style that it asks for, if no caption said a thing that it names in that style."""
    words = list(WORD.finditer(text))
    said = lower(words)
    firsts = ((named.name, start_of(named, text, words)) for named in vocabulary.names_in(said))
    names = {name for name, first in firsts if first == 0 or said[first - 1] in BETWEEN or has_digit(said[first - 1])}
    for style in styles:
        told = None if names.isdisjoint(style.unseen) else style_said(text, style.phrases)
        if told is not None:
            return text[: told.start()] + text[told.end() :]
    return text


def style_said(text: str, phrases: Sequence[str]) -> Match | None:
    """Where a text says a style: behind a comma, before one, or "in" it."""
    style = f"(?:the |an? )?(?:{'|'.join(map(re.escape, phrases))})"
    return re.search(
        rf"^\s*(?:in )?{style}\s*,\s*|\s*(?:,|\bin\b|,\s*in\b)\s*{style}(?=\s*(?:[,.]|$))", text, re.IGNORECASE
    )
