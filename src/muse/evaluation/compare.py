"""Which of two models people prefer: a blind page for raters, and the count of their votes.
Muse's human evaluation, of PartiPrompts."""

import base64
import hashlib
import html
import importlib.resources
import io
import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from muse.checkpoint import write_whole
from muse.evaluation.intervals import Figure, wilson
from muse.evaluation.sources import Request

Choice = Literal["left", "right", "tie"]
PAGE, KEY = "compare.html", "key.json"
QUESTION = "Which picture fits the text better?"


@dataclass(frozen=True)
class Pair:
    """Two pictures of one prompt and one seed."""

    request: Request
    one: Image.Image
    other: Image.Image


def write_page(pairs: Sequence[Pair], names: tuple[str, str], folder: Path, seed: int) -> tuple[Path, Path]:
    """FOLDER/compare.html, which does not say which picture is whose, and FOLDER/key.json, which does.

    The page needs nothing but a browser. Which model stands left is drawn for each pair from `seed`; in which order the
    pairs come is drawn anew in each rater's browser. Raises ValueError if there are no pairs."""
    if not pairs:
        raise ValueError("a comparison needs at least one prompt; none came")
    rng = random.Random(seed)
    one_is_left = [rng.random() < 0.5 for _ in pairs]
    shown = [
        {
            "id": i,
            "prompt": pair.request.prompt.text,
            "left": as_data(pair.one if is_left else pair.other),
            "right": as_data(pair.other if is_left else pair.one),
        }
        for i, (pair, is_left) in enumerate(zip(pairs, one_is_left, strict=True))
    ]
    page = hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]
    # A prompt must not be able to end the script.
    content = json.dumps({"page": page, "pairs": shown}).replace("<", "\\u003c")
    template = (importlib.resources.files("muse.evaluation") / "compare.html").read_text(encoding="utf-8")
    key = {
        "page": page,
        "one": names[0],
        "other": names[1],
        "pairs": [
            {"id": i, "prompt": pair.request.prompt.text, "seed": pair.request.seed, "one_is_left": is_left}
            for i, (pair, is_left) in enumerate(zip(pairs, one_is_left, strict=True))
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / PAGE, template.replace("{{question}}", html.escape(QUESTION)).replace("{{content}}", content))
    write_whole(folder / KEY, json.dumps(key, indent=1) + "\n")
    return folder / PAGE, folder / KEY


def as_data(image: Image.Image) -> str:
    """A picture as an address that holds it, without any text chunks."""
    file = io.BytesIO()
    image.convert("RGB").save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


# -- votes -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preference:
    """How often the first model was preferred to the second."""

    one: str
    other: str
    num_raters: int
    num_votes: int
    num_ties: int
    share: Figure | None
    """Of the votes that are no tie; None if all are."""
    num_prompts: int
    num_even_prompts: int
    share_of_prompts: Figure | None
    """Prompts that most of their raters gave to the first model, of those with a majority; as Muse reports it."""


def count_votes(key_file: Path, vote_files: Sequence[Path]) -> Preference:
    """Count what raters downloaded from the page; the intervals are Wilson's and take votes as independent.
    Raises ValueError, in one sentence, for files that are no votes, of another page, or of one rater twice."""
    key = read_object(key_file, {"page", "one", "other", "pairs"})
    if not vote_files:
        raise ValueError("no votes came; give one or more files that raters downloaded from the page")
    sides = sides_of(key["pairs"], key_file)
    raters: set[str] = set()
    balance: dict[int, list[int]] = defaultdict(list)
    for path in vote_files:
        votes = read_object(path, {"page", "rater", "votes"})
        if votes["page"] != key["page"]:
            raise ValueError(f"{path} holds votes on page {votes['page']}, and the key is of page {key['page']}")
        if not isinstance(votes["rater"], str) or not isinstance(votes["votes"], list):
            raise ValueError(f"{path} holds no rater's list of votes; download it again from the page")
        if votes["rater"] in raters:
            raise ValueError(f"{path} holds votes of a rater that came before; give each rater's last file alone")
        raters.add(votes["rater"])
        voted: set[int] = set()
        for vote in votes["votes"]:
            if not is_vote(vote, sides):
                raise ValueError(f"{path} holds a vote that is none: {vote}; download it again from the page")
            if vote["id"] in voted:
                raise ValueError(f"{path} votes on pair {vote['id']} more than once; download it again from the page")
            voted.add(vote["id"])
            balance[vote["id"]].append(preferred(vote["choice"], sides[vote["id"]]))
    return preference_of(key["one"], key["other"], len(raters), balance)


def sides_of(pairs: Any, key_file: Path) -> dict[int, bool]:
    """Whether the first model's picture is the left one, of each pair by its number.
    Raises ValueError if the key does not say so."""
    fields = {"id": int, "one_is_left": bool}
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not isinstance(pair, dict) or any(type(pair.get(name)) is not kind for name, kind in fields.items()):
            raise ValueError(f"{key_file} holds a pair that is none: {pair}; give the key of the page")
    return {pair["id"]: pair["one_is_left"] for pair in pairs}


def is_vote(vote: Any, sides: dict[int, bool]) -> bool:
    """Whether this is a choice between the pictures of one of the pairs."""
    if not isinstance(vote, dict) or type(vote.get("id")) is not int:
        return False
    return vote["id"] in sides and vote.get("choice") in get_args(Choice)


def preferred(choice: Choice, one_is_left: bool) -> int:
    """1 for the first model, -1 for the second, 0 for a tie."""
    return 0 if choice == "tie" else 1 if (choice == "left") == one_is_left else -1


def preference_of(one: str, other: str, num_raters: int, balance: dict[int, list[int]]) -> Preference:
    votes = Counter(vote for some in balance.values() for vote in some)
    prompts = Counter((sum(some) > 0) - (sum(some) < 0) for some in balance.values())

    def share(counts: Counter[int]) -> Figure | None:
        decided = counts[1] + counts[-1]
        return wilson(counts[1], decided) if decided else None

    return Preference(
        one=one,
        other=other,
        num_raters=num_raters,
        num_votes=votes.total(),
        num_ties=votes[0],
        share=share(votes),
        num_prompts=prompts.total(),
        num_even_prompts=prompts[0],
        share_of_prompts=share(prompts),
    )


def read_object(path: Path, fields: set[str]) -> dict[str, Any]:
    """Raises ValueError if a file is no JSON object with these fields."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}); download it again") from error
    if missing := fields - set(content if isinstance(content, dict) else ()):
        raise ValueError(f"{path} has no {', '.join(sorted(missing))}; give the file that it should be")
    return content


def sentence_of(preference: Preference) -> str:
    """What the votes say, in words."""

    def per_cent(share: Figure | None) -> str:
        if share is None:
            return "nothing"
        return f"{100 * share.value:.1f}% ({100 * share.low:.1f}% to {100 * share.high:.1f}%)"

    return (
        f"{preference.one} is preferred to {preference.other} in {per_cent(preference.share)} of "
        f"{preference.num_votes - preference.num_ties} votes by {preference.num_raters} raters "
        f"({preference.num_ties} ties left out), and by most raters for {per_cent(preference.share_of_prompts)} of "
        f"{preference.num_prompts - preference.num_even_prompts} prompts "
        f"({preference.num_even_prompts} even ones left out)"
    )
