"""What super-resolution and its VQGAN are worth: how true reconstructions are, whether the small tokens are kept, and
how near to real pictures the large ones come.

    python -m projects.emoji.cascade_bench --model MODEL --out FOLDER

- Reconstructions of the held-out pictures, by the f=16 VQGAN at the size before super-resolution and by the f=8 one at
  the size after it; and by the f=8 one before its decoder was enlarged, if that is named.
- Agreement: super-resolution of real pictures' small tokens, halved and encoded again. How many of the tokens are the
  same; beside it the same of the real picture through the f=8 VQGAN, which no super-resolution can pass, and chance,
  which is the tokens of another picture of the set.
- Frechet distance, on the judge's features at full size, of what the cascade draws of seen prompts and of what the base
  draws, upsampled bicubically, from the real pictures of the same styles.
- sheet.png: prompts at low resolution, upsampled, and after super-resolution, with each decoder.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from muse.checkpoint import load_module
from muse.evaluation.intervals import CONFIDENCE_Z, Figure, around, mean_of
from muse.evaluation.metrics import FrechetReference, as_array, psnr, ssim
from muse.evaluation.report import git_commit
from muse.images import contact_sheet, to_images, to_tensor
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import Muse
from muse.shapes import Pictures, Tokens
from muse.training.perceptual import PerceptualLoss
from projects.emoji import dataset, recipe
from projects.emoji.bench import BenchOptions, frechet_interval, frechet_resamples, make_prompts
from projects.emoji.dataset import EmojiArt
from projects.emoji.files import run_command, write_atomically
from projects.emoji.judge import efficientnet_lite0, gallery_records
from projects.emoji.scenes import Scene, paint
from projects.emoji.train import usable

BATCH = 16
Features = Float[Tensor, "picture dim"]
Describe = Callable[[Pictures], Features]
"""Pictures in [0, 1] to features."""


@dataclass(frozen=True)
class Reconstruction:
    """How true a VQGAN is to pictures: means over them, and the Frechet distance of the two sets."""

    name: str
    size: int
    num: int
    psnr: Figure
    ssim: Figure
    perceptual: Figure
    frechet: Figure


@dataclass(frozen=True)
class Agreement:
    """Shares of small tokens that stay the same on the way to a large picture and back."""

    num: int
    superres: Figure
    through_vqgan: float
    chance: float


@dataclass(frozen=True)
class Distances:
    """Frechet distances from real pictures, of equally many pictures each."""

    num: int
    num_reference: int
    cascade: Figure
    base_bicubic: Figure
    real: float


@torch.no_grad()
def through(vqgan: VQGAN, pictures: Pictures) -> Pictures:
    """Pictures as a VQGAN gives them back."""
    return torch.cat([vqgan.reconstruct(some) for some in pictures.split(BATCH)])


@torch.no_grad()
def reconstruction(
    name: str,
    vqgan: VQGAN,
    pictures: Pictures,
    perceptual: PerceptualLoss,
    describe: Describe,
    options: BenchOptions,
) -> Reconstruction:
    """What a VQGAN makes of pictures, in figures."""
    redrawn, rng = through(vqgan, pictures), np.random.default_rng(options.seed)
    scores = {
        "psnr": torch.cat([psnr(*pair) for pair in in_pairs(redrawn, pictures, BATCH)]),
        "ssim": torch.cat([ssim(*pair) for pair in in_pairs(redrawn, pictures, BATCH)]),
        "perceptual": torch.stack([perceptual(*pair) for pair in in_pairs(redrawn, pictures, 1)]),
    }
    means = {metric: mean_of(as_array(values), options.resamples, rng) for metric, values in scores.items()}
    real, painted = describe(pictures), describe(redrawn)
    distance = around(
        lambda rows: FrechetReference.of(real[rows]).distance(painted[rows]),  # the same pictures, on either side
        len(pictures),
        frechet_resamples(options),
        rng,
    )
    return Reconstruction(name, pictures.shape[-1], len(pictures), **means, frechet=distance)


def in_pairs(these: Pictures, those: Pictures, num: int) -> Iterator[tuple[Pictures, Pictures]]:
    """Equally many pictures of two rows, `num` at a time."""
    yield from zip(these.split(num), those.split(num), strict=True)


@torch.no_grad()
def agreement(muse: Muse, pictures: Pictures, captions: list[str], seed: int) -> Agreement:
    """How many small tokens of large pictures survive super-resolution."""
    _, vqgan_large = muse.high
    smaller = [image.resize(muse.low_size, Image.Resampling.LANCZOS) for image in to_images(pictures)]
    low = encode(muse, smaller)
    large: list[Image.Image] = []
    for at in tqdm(range(0, len(smaller), BATCH), desc="super-resolution"):
        some = slice(at, at + BATCH)
        seeds = list(range(seed + at, seed + at + len(smaller[some])))
        large += muse.upscale(smaller[some], captions[some], seeds)
    again = encode(muse, large)
    redrawn = encode(muse, to_images(through(vqgan_large, pictures)))
    shares = (again == low).double().mean(1)
    reach = CONFIDENCE_Z * float(shares.std()) / len(shares) ** 0.5
    mean = float(shares.mean())
    chance = float((low == low.roll(1, 0)).double().mean())
    through_vqgan = float((redrawn == low).double().mean())
    return Agreement(len(low), Figure(mean, mean - reach, mean + reach), through_vqgan, chance)


def encode(muse: Muse, images: list[Image.Image]) -> Tokens:
    """Small tokens of images of any size."""
    return torch.cat([muse.to_tokens(images[at : at + BATCH]) for at in range(0, len(images), BATCH)])


def distances(cascade: Features, bicubic: Features, real: Features, options: BenchOptions) -> Distances:
    """Frechet distances of drawn pictures' features from those of the real ones that are not set aside as the floor."""
    rng = np.random.default_rng(options.seed)
    features = real[rng.permutation(len(real))]
    num = min(len(cascade), len(features) // 2)
    reference = FrechetReference.of(features[num:])
    of_cascade, of_bicubic = (frechet_interval(reference, each[:num], options, rng) for each in (cascade, bicubic))
    return Distances(num, len(features) - num, of_cascade, of_bicubic, reference.distance(features[:num]))


def painted(art: EmojiArt, rows: list[int]) -> Pictures:
    """The pictures of some rows, canonically on white."""
    pictures = np.stack([paint(Scene("single", (row,)), art) for row in rows])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


@dataclass(frozen=True)
class Command:
    """Measure a cascade: a table on the screen, cascade.json and sheet.png in a folder."""

    model: str
    """A model folder, a model that ships, or a hub name."""
    out: Path
    """Folder for the results."""
    plain: Path | None = None
    """Folder of the f=8 VQGAN before its decoder was enlarged."""
    num: int = 100
    """Prompts drawn for the Frechet distance, and pictures whose small tokens are super-resolved."""
    reference: int = 10_000
    """Real pictures that the Frechet distance takes at most."""
    places: recipe.Places = recipe.PLACES


def drawn_both(muse: Muse, prompts: list[str], seeds: list[int]) -> tuple[list[Image.Image], Tokens]:
    """What the base draws of prompts, and the large tokens that super-resolution draws of the same small ones."""
    small, large = [], []
    for at in tqdm(range(0, len(prompts), BATCH), desc="drawing"):
        text, is_word = muse.text_encoder(prompts[at : at + BATCH])
        some = seeds[at : at + BATCH]
        low = muse.draw_base(text, is_word, some, muse.defaults)
        small += muse.to_images(low)
        large.append(muse.draw_superres(low, text, is_word, some, muse.superres_defaults))
    return small, torch.cat(large)


@torch.no_grad()
def main(command: Command) -> None:
    """Load, draw, measure, write."""
    muse = Muse.from_pretrained(command.model)
    superres, vqgan = muse.high
    places, options = command.places, BenchOptions(per_category=command.num, only=("single",))
    data = (places.of_scale.data, places.of_scale.large_data)
    art, large_art = (dataset.load(places.folder, each) for each in data)
    network = efficientnet_lite0(places.folder / "networks" / "judge" / "model.safetensors")
    perceptual = PerceptualLoss.from_file(places.perceptual)

    def describe(pictures: Pictures) -> Features:
        return torch.cat([network(some * 2 - 1).mean((2, 3)) for some in pictures.split(BATCH)])

    held_out = list(usable(art, held_out=True))
    small_pictures, large_pictures = painted(art, held_out), painted(large_art, held_out)
    rows = [
        reconstruction("f=16", muse.vqgan, small_pictures, perceptual, describe, options),
        reconstruction("f=8", vqgan, large_pictures, perceptual, describe, options),
    ]
    decoders = [vqgan]
    if command.plain is not None:
        plain = load_module(VQGAN, VQGANConfig, command.plain)
        rows.insert(1, reconstruction("f=8, first decoder", plain, large_pictures, perceptual, describe, options))
        decoders.insert(0, plain)
    chosen = make_prompts(art, options)
    seen = [prompt for prompt in chosen if prompt.split == "seen"]
    captions = [prompt.text for prompt in chosen if prompt.split == "held-out"]
    of_captions = [prompt.scene.items[0] for prompt in chosen if prompt.split == "held-out"]
    kept = agreement(muse, painted(large_art, of_captions), captions, options.seed)
    small, tokens = drawn_both(muse, [prompt.text for prompt in seen], [prompt.seed for prompt in seen])
    enlarged = [image.resize(muse.size, Image.Resampling.BICUBIC) for image in small]
    large = [
        to_images(torch.cat([each.decode(some, superres.config.height) for some in tokens.split(BATCH)]))
        for each in decoders
    ]
    ours, bicubic = (describe(torch.stack([to_tensor(image) for image in images])) for images in (large[-1], enlarged))
    real = [record.index for record in gallery_records(large_art)]
    real = np.random.default_rng(options.seed).permutation(real)[: command.reference].tolist()
    parts = (real[at : at + BATCH] for at in range(0, len(real), BATCH))
    theirs = torch.cat([describe(painted(large_art, part)) for part in parts])
    far = distances(ours, bicubic, theirs, options)
    command.out.mkdir(parents=True, exist_ok=True)
    columns = [
        image for group in zip(enlarged[:24], *(images[:24] for images in large), strict=True) for image in group
    ]
    contact_sheet(columns, columns=4 * (1 + len(large))).save(command.out / "sheet.png")
    report: dict[str, Any] = {
        "model": command.model,
        "commit": git_commit(),
        "superres_sampling": asdict(muse.superres_defaults),
        "reconstructions": [asdict(row) for row in rows],
        "agreement": asdict(kept),
        "distances": asdict(far),
        "prompts_of_sheet": [prompt.text for prompt in seen[:24]],
    }
    write_atomically(command.out / "cascade.json", json.dumps(report, indent=1) + "\n")
    print(as_markdown(rows, kept, far))


def as_markdown(rows: list[Reconstruction], kept: Agreement, far: Distances) -> str:
    """The tables."""
    lines = [
        f"| VQGAN, {rows[0].num} held-out pictures | px | PSNR, dB | SSIM | perceptual | Frechet |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row.name} | {row.size} | {interval(row.psnr, places=2)} | {interval(row.ssim, places=4)} "
            f"| {interval(row.perceptual, places=4)} | {interval(row.frechet)} |"
            for row in rows
        ),
        "",
        f"Small tokens kept by super-resolution of {kept.num} held-out pictures: {interval(kept.superres, 100)}%; "
        f"through the f=8 VQGAN alone {100 * kept.through_vqgan:.1f}%, chance {100 * kept.chance:.1f}%.",
        "",
        f"Frechet distance at {rows[-1].size} px, {far.num} seen prompts against {far.num_reference} real pictures: "
        f"cascade {interval(far.cascade)}, base upsampled bicubically {interval(far.base_bicubic)}; "
        f"{far.num} other real pictures {far.real:.1f}.",
    ]
    return "\n".join(lines)


def interval(figure: Figure, factor: float = 1, places: int = 1) -> str:
    value, low, high = (f"{factor * each:.{places}f}" for each in (figure.value, figure.low, figure.high))
    return f"{value} ({low}–{high})"


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Command)))
