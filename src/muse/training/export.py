"""A run's weights as a model that `Muse.from_pretrained` loads."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from muse.checkpoint import CONFIG, CheckpointError, count_parameters, load_module, read_json, read_weights, write_whole
from muse.models.superres import SuperResConfig, SuperResTransformer
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import INDEX, Muse, parts_of

PARTS = "parts.json"
"""Where a run of a transformer remembers the folders of what it was trained with: the base its `vqgan` and
`text_encoder`, super-resolution the `model` that it enlarges and its own `vqgan_superres`. Relative ones are seen from
the run's folder; ABSOLUTE has the same where they lay when they were noted, for a run that was taken away alone."""
README = "README.md"
"""Where a model's card is."""
CARD = """---
pipeline_tag: text-to-image
tags: [muse, masked-generative-transformer]
---

# {name}

Text to image by masked generative transformers (Muse, arXiv:2301.00704). It draws {width} x {height} pixels:

```sh
muse generate "a prompt" --model {name}
```

| part | parameters |
| --- | --- |
{rows}

What it was trained on, what it draws well and what it does not, and under which licence it may be used, is for you to
say here.
"""
ABSOLUTE = "absolute"
"""The field of PARTS whose places are tried second."""
DECAY = 0.7
Network = TypeVar("Network", MaskedTransformer, SuperResTransformer)


def remember_parts(run: Path, **folders: Path) -> None:
    """Note the folders of the other parts of the model, by the names in PARTS: as seen from the run where they lie
    beside it, or below what does, so that they may be moved together, and where they are now."""
    run.mkdir(parents=True, exist_ok=True)
    parts = {name: str(seen_from(run.absolute(), folder.absolute())) for name, folder in folders.items()}
    absolute = {name: os.path.normpath(folder.absolute()) for name, folder in folders.items()}
    write_whole(run / PARTS, json.dumps({**parts, ABSOLUTE: absolute}, indent=2) + "\n")


def seen_from(run: Path, folder: Path) -> Path:
    """The path of a folder from a run's, if it is below the folder that the run lies in; else as it is."""
    folder, run = Path(os.path.normpath(folder)), Path(os.path.normpath(run))
    return Path(os.path.relpath(folder, run)) if folder.is_relative_to(run.parent) else folder


def remembered_part(run: Path, name: str) -> Path:
    """The folder of another part of the model, which `remember_parts` noted.
    Raises CheckpointError if the run notes none, or it is gone."""
    parts = read_json(run / PARTS)
    if not isinstance(parts.get(name), str):
        raise CheckpointError(f"{run / PARTS} does not say where the run's {name} is; write its folder there")
    absolute = parts.get(ABSOLUTE)  # runs of before have none
    places = [parts[name], absolute.get(name) if isinstance(absolute, dict) else None]
    for place in places:
        if isinstance(place, str) and (folder := Path(os.path.normpath(run.absolute() / place))).is_dir():
            return folder
    raise CheckpointError(
        f"{run / PARTS} says that the run's {name} is {parts[name]}, which is gone; put it back, or write there "
        "where it is now"
    )


def enlarges(run: Path) -> bool:
    """Whether a run is one of super-resolution, which enlarges what a model draws.
    Raises CheckpointError if it notes no parts, as one of a VQGAN, which is whole by itself."""
    if not (run / PARTS).is_file() and (run / "vqgan" / CONFIG).is_file():
        raise CheckpointError(
            f"{run} is a run of a VQGAN, which needs no export: it is {run / 'vqgan'}; give a run of a transformer"
        )
    return "model" in read_json(run / PARTS)


def average_of_folders(folders: Sequence[Path], decay: float = DECAY) -> dict[str, Tensor]:
    """The moving average of weights, oldest first: what came before keeps `decay` of its weight at each.
    Muse, appendix: checkpoints every 5000 steps, averaged offline with 0.7."""
    average = {name: tensor.float() for name, tensor in read_weights(folders[0]).items()}
    for folder in folders[1:]:
        for name, tensor in read_weights(folder).items():
            average[name].lerp_(tensor.float(), 1 - decay)
    return average


def exported(
    cls: type[Network], config_class: type, run: Path, name: str, decay: float = DECAY, last: int | None = None
) -> Network:
    """The transformer of a run: the average of the weights that it kept whole, or, if it kept none, its moving average.
    Raises CheckpointError if the run has left neither, ValueError if fewer than 1 of them are to count, or more than
    there are."""
    if last is not None and last < 1:
        raise ValueError(f"the last {last} weights that were kept are to be averaged; give at least 1")
    whole = sorted(config.parent for config in (run / "kept").glob(f"step-*/{name}/{CONFIG}"))  # written last
    if last is not None and last > len(whole):
        raise ValueError(
            f"the last {last} weights that were kept are to be averaged and {run} kept {len(whole) or 'none'}; leave "
            "--last out, or train with --engine.keep-every"
        )
    kept = whole[-last if last else None :]
    if not kept:
        if not (run / name / CONFIG).is_file():
            raise CheckpointError(f"{run} has no weights yet; a run leaves some at its first checkpoint")
        return load_module(cls, config_class, run / name)
    network = load_module(cls, config_class, kept[-1])
    network.load_state_dict(average_of_folders(kept, decay), strict=True)
    return network


def export(
    run: Path,
    folder: Path,
    *,
    decay: float = DECAY,
    last: int | None = None,
    dtype: torch.dtype | None = None,
    vqgan: Path | None = None,
) -> Muse:
    """Write the model of a run of either transformer, with the parts that it was trained with: of super-resolution,
    with the model that it enlarges. `vqgan` is the folder of another VQGAN of the same tokens; parts that a model in
    the folder has besides go.
    Raises CheckpointError if a part is missing, or the parts do not fit each other."""
    if enlarges(run):
        superres = exported(SuperResTransformer, SuperResConfig, run, "superres", decay, last)
        high = load_module(VQGAN, VQGANConfig, vqgan or remembered_part(run, "vqgan_superres"))
        model = Muse.from_pretrained(remembered_part(run, "model"), "cpu", "float32")
        muse = enlarging(model, superres, high, folder.absolute().name)
    else:
        base = exported(MaskedTransformer, TransformerConfig, run, "base", decay, last)
        low = load_module(VQGAN, VQGANConfig, vqgan or remembered_part(run, "vqgan"))
        text_encoder = TextEncoder.from_folder(remembered_part(run, "text_encoder"))
        muse = Muse(text_encoder, low, base, name=folder.absolute().name)
    before = parts_in(folder)
    muse.save_pretrained(folder, dtype)
    if not (folder / README).exists():
        write_whole(folder / README, card_of(muse, folder))
    for part in before - parts_in(folder):
        shutil.rmtree(folder / part)
    return muse


def card_of(muse: Muse, folder: Path) -> str:
    """A model card to go on from, of a model that is in a folder: what a hub looks for, what the parts are, and how to
    draw."""
    width, height = muse.size
    parts = parts_of(read_json(folder / INDEX), folder)
    rows = [f"| {part} | {count_parameters(folder / part):,} |" for part in parts]
    return CARD.format(name=muse.name, width=width, height=height, rows="\n".join(rows))


def parts_in(folder: Path) -> set[str]:
    """The parts of the model in a folder; none if there is no whole one."""
    try:
        return set(parts_of(read_json(folder / INDEX), folder))
    except CheckpointError:
        return set()


def enlarging(muse: Muse, superres: SuperResTransformer, vqgan: VQGAN, name: str) -> Muse:
    """A model with super-resolution, or another one, behind it; what either stage draws with stays.
    Raises CheckpointError if the parts do not fit each other."""
    return Muse(
        muse.text_encoder,
        muse.vqgan,
        muse.base,
        superres,
        vqgan,
        name=name,
        defaults=muse.defaults,
        superres_defaults=muse.superres_defaults,
        vocabulary=muse.vocabulary,
    )
