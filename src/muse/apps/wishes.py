"""How `Muse` fulfils what clients wish for."""

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image

from muse.apps.settings import Settings, to_text
from muse.apps.worker import Drawn, Glimpse, Watch, Wish
from muse.editing import Progress
from muse.pipeline import Muse, Size
from muse.precision import default_device
from muse.requests import Precision
from muse.sampling import SamplingOptions, StepReport
from muse.vocabulary import words_of

Make = Callable[[Sequence[int], Callable[[Progress], None]], list[Image.Image]]
"""An editing verb of `Muse`, all but its seeds and its callback given."""


MOST_UNKNOWN = 3
"""Words that a piece of advice names."""
LONGEST_TOLD = 40
"""Letters of a word that are shown to whoever typed it."""


def load(model: str, precision: Precision, graphs: bool) -> Muse:
    """A model to draw with, by graphs if that is wished.
    Raises CheckpointError or ValueError as `Muse.from_pretrained`, and ValueError for graphs where no GPU captures
    any."""
    if graphs and (device := default_device()) != "cuda":
        raise ValueError(f"graphs are captured on CUDA GPUs and this machine draws on {device}; leave --graphs out")
    muse = Muse.from_pretrained(model, precision=precision)
    return muse.use_graphs() if graphs else muse


def advice(muse: Muse, prompt: str) -> str | None:
    """A sentence for whoever asks in words that were in no caption that the model learnt from; None if all were, or if
    it is not known which.
    Raises ValueError if such a word is too long."""
    if muse.vocabulary is None:
        return None
    unknown = muse.vocabulary.unknown(prompt)[:MOST_UNKNOWN]
    if not unknown:
        says_nothing = prompt.strip() and muse.vocabulary.words.isdisjoint(words_of(prompt))
        return f"no caption that {muse.name} learnt from holds {quoted(prompt.strip())}" if says_nothing else None
    told = " or ".join(f"{quoted(word)} (nearest: {', '.join(muse.nearest_names(word))})" for word in unknown)
    return f"no caption that {muse.name} learnt from holds {told}"


def reword(muse: Muse, prompt: str, is_literal: bool = False) -> tuple[str, str | None]:
    """The prompt to be drawn for one that may say things as no caption did, and a sentence about that, if it does:
    `Muse.reword`'s, or the same, with advice, as it also is if it is to be drawn literally.
    Raises ValueError if the prompt, or such a word, is too long."""
    drawn = prompt if is_literal else muse.reword(prompt)
    if drawn == prompt or muse.vocabulary is None:
        return prompt, advice(muse, prompt)
    still = muse.vocabulary.unknown(drawn)
    told = " or ".join(quoted(word) for word in muse.vocabulary.unknown(prompt) if word not in still)
    says = f"holds {told}" if told else "says it like that"
    return drawn, f'no caption that {muse.name} learnt from {says}, so it draws "{drawn}"'


def quoted(word: str) -> str:
    """A word as a sentence names it; of one that no language has, the beginning."""
    return f'"{word if len(word) <= LONGEST_TOLD else word[:LONGEST_TOLD] + "…"}"'


@dataclass(frozen=True)
class Drawing:
    """A picture of a prompt."""

    prompt: str
    seed: int
    negative: str | None
    options: SamplingOptions
    superres_options: SamplingOptions | None
    """None without super-resolution."""
    model: str
    precision: str
    best_of: int = 1
    """Seeds that are tried, from its own on; the best one is drawn (`Muse.choose`)."""

    @property
    def key(self) -> Hashable:
        """Steps and guidance are those of a whole batch, and a batch has negative prompts or none."""
        return Drawing, self.options, self.superres_options, self.negative is None, self.best_of

    @property
    def text(self) -> dict[str, str]:
        """What a PNG says of it."""
        return Settings(
            self.prompt,
            self.seed,
            self.options,
            self.negative,
            self.superres_options,
            self.model,
            self.precision,
            self.best_of,
        ).to_text()


@dataclass(frozen=True)
class Alteration:
    """A picture made of another one."""

    make: Make
    """Shared by all pictures of a request, which are made side by side."""
    seed: int
    prompt: str | None
    text: dict[str, str]
    """What a PNG says of it."""

    @property
    def key(self) -> Hashable:
        return Alteration, id(self.make)


def alterations(
    muse: Muse,
    verb: Callable[..., list[Image.Image]],
    name: str,
    seeds: Sequence[int],
    prompt: str | None,
    negative: str | None,
    stages: Mapping[str, Any],
    **more: str,
) -> list[Alteration]:
    """One wish for each seed, made side by side by an editing verb of which all but seeds and callback is given.
    `name`, `stages` (options by the names that the verb has for them) and `more` are for what a PNG says of it."""

    def make(seeds: Sequence[int], callback: Callable[[Progress], None]) -> list[Image.Image]:
        return verb(seeds=seeds, callback=callback)

    def text(seed: int) -> dict[str, str]:
        return to_text(prompt, seed, negative, stages, muse.name, precision=muse.precision, command=name, **more)

    return [Alteration(make, seed, prompt, text(seed)) for seed in seeds]


def draw(muse: Muse, wishes: Sequence[Wish], watch: Watch) -> list[Drawn]:
    """Fulfil wishes of one key; every picture is the one that it would be alone.
    Raises ValueError, in one sentence, for what cannot be drawn."""
    drawings = [wish for wish in wishes if isinstance(wish, Drawing)]
    alterations = [wish for wish in wishes if isinstance(wish, Alteration)]
    if drawings:
        drawings = [
            dataclasses.replace(wish, seed=seed)
            for wish, seed in zip(drawings, chosen(muse, drawings, watch), strict=True)
        ]
        images = draw_prompts(muse, drawings, watch)
    else:
        images = alterations[0].make([each.seed for each in alterations], partial(show_progress, watch))
    tokens = count_tokens(muse, drawings)
    return [
        Drawn(image, count_words(muse, wish.prompt), tokens, wish.seed)
        for image, wish in zip(images, drawings or alterations, strict=True)
    ]


def chosen(muse: Muse, drawings: Sequence[Drawing], watch: Watch) -> list[int]:
    """The seeds that are drawn: the best of those that are tried for each."""
    first = drawings[0]
    return muse.choose(
        [each.prompt for each in drawings],
        [each.seed for each in drawings],
        first.best_of,
        negatives=negatives_of(drawings),
        options=first.options,
        callback=lambda report: watch(Glimpse(0.0, lambda rows: [])),  # whoever has gone is not drawn for
    )


def negatives_of(drawings: Sequence[Drawing]) -> list[str] | None:
    """The negative prompts of drawings, which all have one, or none has."""
    return None if drawings[0].negative is None else [each.negative or "" for each in drawings]


def draw_prompts(muse: Muse, drawings: Sequence[Drawing], watch: Watch) -> list[Image.Image]:
    """Pictures of prompts, side by side."""
    first, done = drawings[0], itertools.count(1)
    size: Size = "low" if first.superres_options is None else "high"
    total = first.options.steps + (first.superres_options.steps if first.superres_options else 0)

    def paint(report: StepReport, rows: Sequence[int]) -> list[Image.Image]:
        some = list(rows)
        report = dataclasses.replace(report, tokens=report.tokens[some], is_hidden=report.is_hidden[some])
        wanted = muse.low_size if size == "low" else muse.size
        return [image.resize(wanted) for image in muse.preview(report).images]

    return muse.generate(
        [each.prompt for each in drawings],
        [each.seed for each in drawings],
        negatives=negatives_of(drawings),
        options=first.options,
        superres_options=first.superres_options,
        size=size,
        callback=lambda report: watch(Glimpse(next(done) / total, partial(paint, report))),
    )


def show_progress(watch: Watch, progress: Progress) -> None:
    """Hand a step of an editing verb on."""

    def paint(rows: Sequence[int]) -> list[Image.Image]:
        images = progress.show()
        return [images[row] for row in rows]

    watch(Glimpse(progress.done / progress.total, paint))


def count_words(muse: Muse, prompt: str | None) -> int:
    """Sub-words of a prompt."""
    return 0 if prompt is None else muse.text_encoder.num_words(prompt)


def count_tokens(muse: Muse, drawings: Sequence[Drawing]) -> int:
    """Tokens of one of some pictures, or of an alteration if there are none: in all stages that are drawn, and of all
    grids that are tried."""
    tried = drawings[0].best_of if drawings and drawings[0].best_of > 1 else 0
    is_low = muse.superres is None or (bool(drawings) and drawings[0].superres_options is None)
    networks = [muse.base] * (1 + tried) + ([] if is_low or muse.superres is None else [muse.superres])
    return sum(network.config.height * network.config.width for network in networks)
