"""What the pretrained language model brings: base transformers trained alike, one of which learns to read as well.

    python -m projects.emoji.reading --out FOLDER

All see the same pictures in the same number of steps, of half the paper's size. `pretrained` reads the states of the
frozen text encoder, as everywhere else; `scratch` the sub-words of the same tokenizer, through a text encoder of
the same width and depth that is trained with it and begins at random; `mixed` the same as `pretrained`, with captions
that are mixed and such as say what a thing is. Each is then judged by things that it has seen, by those in a held-out
style, and by words that were in no caption (`synonyms`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro
from PIL import Image
from torch import nn

from muse.checkpoint import load_module
from muse.evaluation.evaluate import draw_with
from muse.evaluation.intervals import Figure
from muse.evaluation.report import git_commit, markdown_table
from muse.images import contact_sheet
from muse.models.layers import Context
from muse.models.text_encoder import LONGEST, TextEncoder
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import SHIPPED, Muse
from muse.shapes import TextMask, TextStates
from muse.training.base import BaseStage
from projects.emoji import bench, dataset, recipe, synonyms
from projects.emoji.files import run_command, write_results
from projects.emoji.judge import Judge
from projects.emoji.recipe import Places, in_steps
from projects.emoji.splits import stable_fraction
from projects.emoji.train import TokensOfStep, base_tokens, validation_batches
from projects.emoji.vocabulary import meanings_of
from projects.emoji.wordnet import WordNet

VOCABULARY = 30_522
"""Sub-words that the tokenizer of all-MiniLM-L6-v2 knows."""
HEAD = 64
"""Features of a head of the base."""
DEPTH, HEADS = 6, 12
"""Layers of all-MiniLM-L6-v2 and their attention heads; its width is the `text_dim` of the base."""


class SubWords(TextEncoder):
    """The tokenizer of a text encoder without its language model: a prompt's sub-words as numbers."""

    @torch.no_grad()
    def forward(self, prompts: Sequence[str]) -> tuple[TextStates, TextMask]:
        """Numbers of the sub-words [prompt, word, 1], exact in float32, and which are words and not padding."""
        numbers, is_word = self.sub_words(prompts)
        return numbers[..., None].float(), is_word


class ReadingTransformer(MaskedTransformer):
    """A base transformer with a text encoder of its own, which is trained with it."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        dim = config.text_dim
        self.word, self.place = nn.Embedding(VOCABULARY, dim), nn.Embedding(LONGEST, dim)
        for table in (self.word, self.place):
            nn.init.normal_(table.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            dim, HEADS, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.reader = nn.TransformerEncoder(layer, DEPTH, nn.LayerNorm(dim), enable_nested_tensor=False)

    def read(self, text: TextStates, is_word: TextMask) -> Context:
        """What the layers need of the numbers of sub-words, [text, word, 1]."""
        numbers = text[..., 0].long()
        states = self.word(numbers) + self.place.weight[: numbers.shape[1]]
        return super().read(self.reader(states, src_key_padding_mask=~is_word), is_word)


class ReadingStage(BaseStage):
    """One run of a base transformer that learns to read."""

    network_class = ReadingTransformer


@dataclass(frozen=True)
class Arm:
    """One way to read."""

    encoder: type[TextEncoder]
    stage: type[BaseStage]
    caption_mix: float = 0.0
    """`MaskedTraining.caption_mix`; sub-words have no states that could be mixed."""
    meanings: bool = False
    """Whether captions say at times what a thing is (`projects.emoji.vocabulary`)."""


ArmName = Literal["pretrained", "scratch", "mixed"]
ARMS: Mapping[ArmName, Arm] = {
    "pretrained": Arm(TextEncoder, BaseStage),
    "scratch": Arm(SubWords, ReadingStage),
    "mixed": Arm(TextEncoder, BaseStage, caption_mix=0.4, meanings=True),
}


@dataclass(frozen=True)
class Command:
    """Train each and judge it: reading.json, reading.md and a sheet of each in a folder."""

    out: Path
    """Folder for the runs and the results; each run goes on where it was stopped."""
    vqgan: Path = SHIPPED / "emoji" / "vqgan"
    """Folder of the f=16 VQGAN of all."""
    steps: int = 1500
    """Of each run."""
    batch: int = recipe.BASE_BATCH
    """Token grids in a batch."""
    dim: int = 384
    """Features of a position; a head has 64 of them, and an MLP four times as many."""
    depth: int = 6
    """Layers of the base."""
    concepts: int | None = None
    """How many things there are, those first for which there are new words; all if not given. Few are soon known."""
    num: int = 100
    """Prompts of each kind."""
    only: tuple[ArmName, ...] = tuple(ARMS)
    """Which ways to read."""
    folder: Path = Path("runs-local/emoji")
    """Where the data set, the text encoder and the judge are."""

    def __post_init__(self) -> None:
        if not self.only:
            raise ValueError(f"no way to read came; give some of {', '.join(ARMS)}")
        if self.dim < HEAD or self.dim % HEAD:
            raise ValueError(f"dim is {self.dim}; give a multiple of {HEAD}")
        if self.concepts is not None and self.concepts < 2:
            raise ValueError(f"concepts is {self.concepts}; give at least 2")

    @property
    def shape(self) -> dict[str, int]:
        """How large the base transformers are, as their config says it."""
        return {"dim": self.dim, "depth": self.depth, "heads": self.dim // HEAD, "mlp_dim": 4 * self.dim}


def narrowed(art: dataset.EmojiArt, num: int, first: Collection[str]) -> dataset.EmojiArt:
    """The same pictures, of which only those of `num` concepts are of any style; some concepts come first."""
    known = {record.concept for record in synonyms.seen_records(art)}
    order = sorted(known, key=lambda concept: (concept not in first, stable_fraction("reading", concept)))
    chosen = set(order[:num])
    records = (record if record.concept in chosen else replace(record, style="none") for record in art.records)
    return replace(art, records=tuple(records))


def trained(command: Command, name: ArmName, vqgan: VQGAN, art: dataset.EmojiArt) -> Muse:
    """The model that reads in one way, trained if it is not yet.
    SystemExit if its training is stopped; it goes on with the same command."""
    places = Places(command.folder, "half")
    arm = ARMS[name]
    encoder = arm.encoder.from_folder(places.text_encoder)
    seen, unseen = base_tokens(Places(command.out, "half"), art, vqgan)
    training = in_steps(recipe.base(places), command.steps)
    training = replace(
        training,
        engine=replace(training.engine, folder=command.out / name),
        model=replace(training.model, vqgan_fingerprint=seen.vqgan_fingerprint, **command.shape),
        caption_mix=arm.caption_mix,
    )
    told = meanings_of(WordNet.fetch(command.folder / "packages"), synonyms.seen_records(art)) if arm.meanings else {}
    batches = TokensOfStep(art, seen, command.batch, places.of_scale, told)
    stage = arm.stage(training, encoder)
    folder = stage.run(batches, validation_batches(art, unseen), None)
    if stage.engine.step < command.steps:
        raise SystemExit(f"stopped at step {stage.engine.step} of {command.steps}; the same command goes on")
    base = load_module(arm.stage.network_class, TransformerConfig, folder)
    return Muse(encoder, vqgan, base, name=name, defaults=recipe.DEFAULTS)


def figures_of(
    muse: Muse, options: bench.BenchOptions, art: dataset.EmojiArt, judge: Judge, words: Sequence[synonyms.Synonym]
) -> tuple[dict[str, Figure], Sequence[Image.Image]]:
    """R@5 by kind of prompt, and the pictures of the words beside those of the names."""
    draw = draw_with(muse, muse.defaults)
    report = bench.run_bench(draw, art, judge, options)
    told = synonyms.run(draw, words, judge)
    figures = {split: report.row("single", "R@5", split).score for split in ("seen", "held-out")} | told.figures
    return figures, told.images


def as_markdown(rows: Mapping[str, Mapping[str, Figure]]) -> str:
    """A row for each reader."""
    kinds = list(next(iter(rows.values())))
    lines = [[name, *(bench.per_cent(figures[kind]) for kind in kinds)] for name, figures in rows.items()]
    return "\n".join(markdown_table(["text encoder", *(f"{kind}, R@5 %" for kind in kinds)], lines))


def main(command: Command) -> None:
    """Train, draw, judge, write."""
    options = bench.BenchOptions(per_category=command.num, only=("single",))
    vqgan = load_module(VQGAN, VQGANConfig, command.vqgan)
    art = dataset.load(command.folder)
    judge = Judge.load(command.folder, art)
    if command.concepts is not None:
        asked = {word.record.concept for word in synonyms.new_words(command.folder, art)}
        art = narrowed(art, command.concepts, asked)
    words = synonyms.new_words(command.folder, art)[: command.num]
    about = {"commit": git_commit(), "steps": command.steps, "batch": command.batch, **command.shape}
    about |= {"concepts": len({record.concept for record in synonyms.seen_records(art)}), "words": len(words)}
    rows: dict[str, dict[str, Figure]] = {}
    for name in command.only:
        rows[name], images = figures_of(trained(command, name, vqgan, art), options, art, judge, words)
        contact_sheet(list(images), columns=20).save(command.out / f"{name}.png")
        written = {arm: {kind: asdict(figure) for kind, figure in figures.items()} for arm, figures in rows.items()}
        write_results(command.out, "reading", about | {"R@5": written}, as_markdown(rows))
    print(as_markdown(rows))


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
