"""The prompts and real pictures of `muse evaluate --protocol emoji`, as the folder that it takes.

    python -m projects.emoji.protocol --out runs-local/emoji/protocol
    muse evaluate emoji --protocol emoji --data runs-local/emoji/protocol

1,000 prompts of the bench in the groups of Muse's Figure 6: cardinality (counts), composition (pairs and positions),
style (the same thing in every style), the whole prompt (a thing, its background and its style), and single things. The
real pictures are the same art painted for other prompts of the same kinds. With them come the judge's network, so that
its figures are called frechet_judge, and the alignment towers if they are trained (`projects/emoji/alignment.py`).
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from muse.evaluation.alignment import FEATURES
from muse.evaluation.sources import REFERENCE
from projects.emoji import dataset, recipe
from projects.emoji.alignment import export_judge
from projects.emoji.bench import BenchOptions, Category, Prompt, make_prompts
from projects.emoji.captions import caption
from projects.emoji.dataset import EmojiArt
from projects.emoji.files import run_command, write_atomically
from projects.emoji.scenes import Scene, paint
from projects.emoji.train import usable

GROUPS: dict[Category, str] = {
    "single": "single",
    "background": "whole prompt",
    "count": "cardinality",
    "pair": "composition",
    "position": "composition",
}
STYLED = "style"


@dataclass(frozen=True)
class ProtocolOptions:
    """How many prompts and real pictures."""

    per_category: int = 92
    """Prompts of each of the bench's five categories, on seen and on held-out."""
    styled: int = 20
    """Concepts that are asked for in every style."""
    real_per_category: int = 200
    """Real pictures of each category, on seen and on held-out."""
    seed: int = 0


def prompts(art: EmojiArt, options: ProtocolOptions) -> Iterator[tuple[str, str]]:
    """Every prompt and its group."""
    bench = make_prompts(art, BenchOptions(per_category=options.per_category, seed=options.seed))
    yield from ((prompt.text, GROUPS[prompt.category]) for prompt in bench)
    yield from ((text, STYLED) for text in styled_prompts(art, options))


def styled_prompts(art: EmojiArt, options: ProtocolOptions) -> Iterator[str]:
    """Concepts that no style holds out, each in all of the recipe's styles.
    Raises ValueError if there are too few."""
    pictures = set(usable(art, held_out=False))
    by_style = {
        concept: {art.records[i].style: i for i in art.by_concept(concept) if i in pictures} for concept in art.concepts
    }
    complete = [rows for rows in by_style.values() if len(rows) == len(recipe.STYLES)]
    if len(complete) < options.styled:
        raise ValueError(f"{len(complete)} concepts are there in every style; {options.styled} were asked for")
    for place in np.random.default_rng(options.seed).permutation(len(complete))[: options.styled]:
        yield from (caption(Scene("single", (complete[place][style],)), art) for style in recipe.STYLES)


def real_prompts(art: EmojiArt, options: ProtocolOptions) -> list[Prompt]:
    """Prompts of the same kinds by another seed."""
    return make_prompts(art, BenchOptions(per_category=options.real_per_category, seed=options.seed + 1))


def write(art: EmojiArt, options: ProtocolOptions, out: Path) -> int:
    """OUT/prompts.jsonl and OUT/reference/; how many prompts there are."""
    shutil.rmtree(out / REFERENCE, ignore_errors=True)
    (out / REFERENCE).mkdir(parents=True)
    for i, prompt in enumerate(real_prompts(art, options)):
        picture = Image.fromarray(paint(prompt.scene, art, np.random.default_rng(prompt.seed)))
        picture.save(out / REFERENCE / f"{i:05}.png")
    rows = [json.dumps({"prompt": text, "group": group}) for text, group in prompts(art, options)]
    write_atomically(out / "prompts.jsonl", "\n".join(rows) + "\n")
    return len(rows)


@dataclass(frozen=True)
class Command:
    """Write the folder of the emoji protocol."""

    out: Path = Path("runs-local/emoji/protocol")
    folder: Path = Path("runs-local/emoji")
    """Where the data set, the networks and the alignment towers are."""
    options: tyro.conf.OmitArgPrefixes[ProtocolOptions] = ProtocolOptions()


def main(command: Command) -> None:
    """Prompts, pictures and networks."""
    art = dataset.load(command.folder)
    num = write(art, command.options, command.out)
    export_judge(command.folder, command.out / "judge.pt2")
    has_towers = (command.folder / "alignment").is_dir()
    if has_towers:
        shutil.copytree(command.folder / "alignment", command.out / "alignment", dirs_exist_ok=True)
        # The same file, so that its features are computed once.
        shutil.copyfile(command.out / "judge.pt2", command.out / "alignment" / FEATURES)
    print(f"{command.out}: {num:,} prompts, {'with' if has_towers else 'without'} alignment")


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
