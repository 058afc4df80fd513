"""A run's weights as a model that `Muse.from_pretrained` loads."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from muse.checkpoint import CheckpointError, load_module, read_json, read_weights, write_whole
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import Muse

PARTS = "parts.json"
"""Where a run of a transformer remembers the folders of the VQGAN and the text encoder that it was trained with."""
DECAY = 0.7


def remember_parts(run: Path, vqgan: Path, text_encoder: Path) -> None:
    """Note the folders of the other parts of the model."""
    run.mkdir(parents=True, exist_ok=True)
    parts = {"vqgan": str(vqgan.absolute()), "text_encoder": str(text_encoder.absolute())}
    write_whole(run / PARTS, json.dumps(parts, indent=2) + "\n")


def average_of_folders(folders: Sequence[Path], decay: float = DECAY) -> dict[str, Tensor]:
    """The moving average of weights, oldest first: what came before keeps `decay` of its weight at each.
    Muse, appendix: checkpoints every 5000 steps, averaged offline with 0.7."""
    average = {name: tensor.float() for name, tensor in read_weights(folders[0]).items()}
    for folder in folders[1:]:
        for name, tensor in read_weights(folder).items():
            average[name].lerp_(tensor.float(), 1 - decay)
    return average


def exported(run: Path, decay: float = DECAY, last: int | None = None) -> MaskedTransformer:
    """The transformer of a run: the average of the weights that it kept, or, if it kept none, its moving average.
    Raises CheckpointError if the run has left neither."""
    kept = sorted((run / "kept").glob("step-*/base"))[-last if last else None :]
    if not kept:
        if not (run / "base").is_dir():
            raise CheckpointError(f"{run} has no weights yet; a run leaves some at its first checkpoint")
        return load_module(MaskedTransformer, TransformerConfig, run / "base")
    base = load_module(MaskedTransformer, TransformerConfig, kept[-1])
    base.load_state_dict(average_of_folders(kept, decay), strict=True)
    return base


def export(
    run: Path, folder: Path, *, decay: float = DECAY, last: int | None = None, dtype: torch.dtype | None = None
) -> Muse:
    """Write the model of a run of the base transformer, with the VQGAN and the text encoder that it was trained with.
    Raises CheckpointError if a part is missing, or the parts do not fit each other."""
    parts = read_json(run / PARTS)
    muse = Muse(
        TextEncoder.from_folder(Path(parts["text_encoder"])),
        load_module(VQGAN, VQGANConfig, Path(parts["vqgan"])),
        exported(run, decay, last),
        name=folder.name,
    )
    muse.save_pretrained(folder, dtype)
    return muse
