"""Train the parts of the shipped model, one command a part; each goes on where it was stopped.

The recipe suits two cores. `--steps` and `--batch` make a run longer and its batches larger, for a GPU."""

import copy
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
import tyro

from muse.checkpoint import CONFIG, load_module
from muse.data.batches import TokenBatch
from muse.images import contact_sheet
from muse.models.superres import SuperResConfig, SuperResTransformer, Upsampling
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import Muse, find_model
from muse.processes import local_rank
from muse.shapes import Pictures, Tokens
from muse.training.base import train_base
from muse.training.decoder import DecoderTraining, Drawn, train_decoder
from muse.training.masked import MaskedTraining
from muse.training.perceptual import PerceptualLoss
from muse.training.pictures import PictureTraining
from muse.training.redraw import Redraw, fingerprints
from muse.training.superres import train_superres
from muse.training.vqgan import VQGANTraining, train_vqgan
from projects.emoji import dataset, networks, recipe, tokens
from projects.emoji.captions import NO_MEANINGS, caption
from projects.emoji.files import run_command
from projects.emoji.painter import Painter
from projects.emoji.recipe import PLACES, Places, Scale, in_steps
from projects.emoji.scenes import paint, random_scene
from projects.emoji.vocabulary import load_meanings

PictureRun = TypeVar("PictureRun", bound=PictureTraining)
MaskedRun = TypeVar("MaskedRun", bound=MaskedTraining)

SEEN, WATCHED = 1, 2
"""Streams of random numbers: training, and the pictures that are watched."""


def usable(art: dataset.EmojiArt, *, held_out: bool, styles: Collection[str] = recipe.STYLES) -> tuple[int, ...]:
    """The pictures of the styles that the model is for, or of others, either the held-out ones or the rest."""
    return tuple(i for i in art.indexes(held_out=held_out) if art.records[i].style in styles)


class PicturesOfStep:
    """Painted scenes without captions, drawn by the number of the step."""

    def __init__(
        self,
        art: dataset.EmojiArt,
        batch: int,
        stream: int,
        held_out: bool = False,
        canonical_share: float = recipe.CANONICAL_SHARE,
        distinct: int | None = None,
    ):
        """Of `distinct` batches, again and again, if that is given."""
        self.art, self.canonical_share, self.distinct = art, canonical_share, distinct
        self.pictures = usable(self.art, held_out=held_out)
        self.batch, self.stream = batch, stream

    def __call__(self, step: int) -> Pictures:
        rng = np.random.default_rng((self.stream, step if self.distinct is None else step % self.distinct))
        scenes = [random_scene(self.art, rng, self.pictures, recipe.SCENES) for _ in range(self.batch)]
        is_canonical = rng.random(self.batch) < self.canonical_share
        painted = np.stack(
            [
                paint(scene, self.art, None if is_plain else rng)
                for scene, is_plain in zip(scenes, is_canonical, strict=True)
            ]
        )
        return torch.from_numpy(painted).permute(0, 3, 1, 2).float() / 255


class TokensOfStep:
    """Token grids and newly worded captions, drawn by the number of the step."""

    def __init__(
        self,
        art: dataset.EmojiArt,
        cache: tokens.TokenCache,
        batch: int,
        scale: Scale = recipe.PLACES.of_scale,
        meanings: Mapping[str, Sequence[str]] = NO_MEANINGS,
    ):
        self.art, self.cache, self.batch, self.scale, self.meanings = art, cache, batch, scale, meanings
        is_single = np.array([scene.kind == "single" for scene in cache.scenes])
        self.singles, self.others = np.flatnonzero(is_single), np.flatnonzero(~is_single)

    def __call__(self, step: int) -> TokenBatch:
        rows, captions = self.draw(step)
        return TokenBatch(grids(self.cache, rows), captions)

    def draw(self, step: int) -> tuple[np.ndarray, list[str]]:
        """The rows of a step's batch and their captions."""
        rng = np.random.default_rng((SEEN, step))
        takes_single = rng.random(self.batch) < self.scale.single_share
        rows = np.where(takes_single, rng.choice(self.singles, self.batch), rng.choice(self.others, self.batch))
        is_plain = rng.random(self.batch) < recipe.PLAIN_CAPTIONS
        scenes = (self.cache.scenes[row] for row in rows)
        return rows, [
            caption(each, self.art, None if plain else rng, self.scale.style_mistaken, self.meanings)
            for each, plain in zip(scenes, is_plain, strict=True)
        ]


class PairsOfStep(TokensOfStep):
    """The same with the large token grids of the same scenes.
    Raises ValueError if the two caches hold other scenes."""

    def __init__(
        self,
        art: dataset.EmojiArt,
        cache: tokens.TokenCache,
        large: tokens.TokenCache,
        batch: int,
        scale: Scale = recipe.PLACES.of_scale,
    ):
        check_pairs(cache, large)
        super().__init__(art, cache, batch, scale)
        self.large = large

    def __call__(self, step: int) -> TokenBatch:
        rows, captions = self.draw(step)
        return TokenBatch(grids(self.cache, rows), captions, grids(self.large, rows))


def grids(cache: tokens.TokenCache, rows: np.ndarray) -> Tokens:
    """The token grids of some rows of a cache."""
    return torch.from_numpy(cache.tokens[rows].astype(np.int64))


def check_pairs(cache: tokens.TokenCache, large: tokens.TokenCache) -> None:
    """Raises ValueError if two caches do not hold the same scenes row by row."""
    if cache.scenes != large.scenes:
        raise ValueError("the two token caches hold other scenes; delete both folders and train again")


def vqgan(
    places: Places = PLACES,
    steps: int | None = None,
    batch: int = recipe.VQGAN_BATCH,
    decoder_from: Path | None = None,
) -> None:
    """Train the f=16 VQGAN.

    Args:
        places: where the project keeps what it makes.
        steps: of the whole run, its phases at the same shares of it; the recipe's if not given.
        batch: pictures in a batch.
        decoder_from: folder of a trained VQGAN whose decoder the first step starts from.
    """
    training = replace(in_steps(recipe.vqgan(places), steps), decoder_from=decoder_from)
    train_pictures(places, training, recipe.VQGAN_DATA, batch)


def vqgan_superres(places: Places = PLACES, steps: int | None = None, batch: int = recipe.LARGE_BATCH) -> None:
    """Train the f=8 VQGAN of the large pictures.

    Args:
        places: where the project keeps what it makes.
        steps: of the whole run, its phases at the same shares of it; the recipe's if not given.
        batch: pictures in a batch.
    """
    train_pictures(places, in_steps(recipe.vqgan_superres(places), steps), recipe.VQGAN_LARGE_DATA, batch)


def scenes_for(art: dataset.EmojiArt, batch: int, training: PictureRun) -> tuple[Callable[[int], Pictures], PictureRun]:
    """Batches of painted scenes, and the training that takes them: painted on the GPU where there is one, as no number
    of worker processes would keep up with it, else by a worker beside the training."""
    if not torch.cuda.is_available():
        return PicturesOfStep(art, batch, SEEN), training
    device = f"cuda:{local_rank()}"  # the engine, which sets this process's, comes later
    painter = Painter(art, usable(art, held_out=False), batch, seed=SEEN, device=device)
    return painter, replace(training, engine=replace(training.engine, workers=0))


def train_pictures(places: Places, training: VQGANTraining, data: str, batch: int) -> None:
    """Train a VQGAN on painted scenes of one data set."""
    networks.prepare(places.folder)
    art = dataset.load(places.folder, data)
    watched = PicturesOfStep(art, 32, WATCHED, held_out=True)(0)
    batches, training = scenes_for(art, batch, training)
    train_vqgan(training, batches, watched, PerceptualLoss.from_file(places.perceptual))


def decoder(places: Places = PLACES, steps: int | None = None, batch: int = recipe.LARGE_BATCH) -> None:
    """Train a larger decoder for the f=8 VQGAN, and put it into the model if there is a cascade.

    Args:
        places: where the project keeps what it makes.
        steps: of the whole run, its phases at the same shares of it; the recipe's if not given.
        batch: pictures in a batch.
    """
    networks.prepare(places.folder)
    art = dataset.load(places.folder, places.of_scale.large_data)
    watched = PicturesOfStep(art, 32, WATCHED, held_out=True)(0)
    batches, training = scenes_for(art, batch, in_steps(recipe.decoder(places), steps))
    train_decoder_of(places, training, places.vqgan_superres, batches, watched)


def decoder_low(places: Places = PLACES, steps: int | None = None, batch: int = recipe.LARGE_BATCH) -> None:
    """Train the decoder of the f=16 VQGAN on at the size of the small pictures, and put it into the model if there is a
    cascade.

    Args:
        places: where the project keeps what it makes.
        steps: of the whole run; the recipe's if not given.
        batch: pictures in a batch.
    """
    networks.prepare(places.folder)
    art = dataset.load(places.folder, places.of_scale.data)
    batches = PicturesOfStep(art, batch, SEEN, canonical_share=recipe.CANONICAL_LAST)
    watched = PicturesOfStep(art, 32, WATCHED, held_out=True)(0)
    train_decoder_of(places, in_steps(recipe.decoder_low(places), steps), places.vqgan, batches, watched)


def decoder_drawn(
    places: Places = PLACES, model: str = "", steps: int | None = None, batch: int = recipe.DRAWN_BATCH
) -> None:
    """Train the decoder of the large pictures on what super-resolution draws of pictures' own small tokens, and put it
    into the model if there is a cascade.

    Args:
        places: where the project keeps what it makes.
        model: whose decoder, and what draws: a name or folder; the run's own if not given.
        steps: of the whole run; the recipe's if not given.
        batch: pictures in a batch.
    """
    networks.prepare(places.folder)
    art = dataset.load(places.folder, places.of_scale.large_data)
    folder = find_model(model or places.model)
    distinct = max(recipe.DRAWN_PICTURES // batch, 1)
    batches = PicturesOfStep(art, batch, SEEN, canonical_share=recipe.CANONICAL_LAST, distinct=distinct)
    watched = PicturesOfStep(art, 16, WATCHED, held_out=True)(0)
    training = in_steps(recipe.decoder_drawn(places), steps)
    train_decoder_of(places, training, folder / "vqgan_superres", batches, watched, Muse.from_pretrained(folder))


def train_decoder_of(
    places: Places,
    training: DecoderTraining,
    folder: Path,
    batches: Callable[[int], Pictures],
    watched: Pictures,
    drawn_by: Muse | None = None,
) -> None:
    """Train the decoder of the VQGAN in a folder, on what a model draws of pictures if one is given, and put it into
    the run's model if there is a cascade."""
    vqgan = load_module(VQGAN, VQGANConfig, folder)
    drawn = Remembered(Redraw(drawn_by, vqgan, watched.shape[-1])) if drawn_by else None
    train_decoder(training, vqgan, batches, watched, PerceptualLoss.from_file(places.perceptual), drawn)
    renew_model(places)


class Remembered:
    """What is drawn of pictures, drawn once for each, as they come again: whatever the step, so that a run that goes on
    draws the same."""

    def __init__(self, draw: Drawn):
        self.draw = draw
        self.drawn: dict[int, Tokens] = {}

    def __call__(self, pictures: Pictures, step: int) -> Tokens:
        names = fingerprints(pictures)
        new = [row for row, name in enumerate(names) if name not in self.drawn]
        if new:
            for row, tokens in zip(new, self.draw(pictures[new], 0), strict=True):
                self.drawn[names[row]] = tokens
        return torch.stack([self.drawn[name] for name in names])


def cached(
    places: Places,
    art: dataset.EmojiArt,
    vqgan: VQGAN | None,
    options: tokens.CacheOptions,
    *,
    held_out: bool = False,
    larger: dataset.EmojiArt | None = None,
) -> tokens.TokenCache:
    """The token cache of the training or of the held-out pictures, built if it is not there; without the VQGAN it must
    be."""
    folder = places.runs / "tokens" / tokens.cache_name(options, (larger or art).size, held_out=held_out)
    styles = recipe.STYLES if held_out else places.of_scale.styles
    if vqgan is not None:
        tokens.build(art, usable(art, held_out=held_out, styles=styles), vqgan, options, folder, larger)
    elif not (folder / "cache.json").is_file():
        raise SystemExit(f"{folder} holds no token cache, and there is no VQGAN to make it; train that first")
    return tokens.load(folder)


@dataclass(frozen=True)
class Lent:
    """How to use a machine that is lent for a while."""

    minutes: float | None = None
    """End the run after so many, wherever it is by then; its learning rate falls with the time."""
    workers: int = 1
    """Processes that word captions and gather tokens."""
    save_every: int | None = None
    """Steps between checkpoints; the recipe's if not given."""
    graph: bool = False
    """Each step as one CUDA graph of compiled layers."""

    def of(self, training: MaskedRun) -> MaskedRun:
        """The same run on such a machine."""
        save_every = self.save_every or training.engine.save_every
        engine = replace(
            training.engine,
            minutes=self.minutes,
            workers=self.workers,
            save_every=save_every,
            graph=self.graph,
            compile=self.graph,
        )
        return replace(training, engine=engine)


def base_tokens(
    places: Places, art: dataset.EmojiArt, vqgan: VQGAN | None
) -> tuple[tokens.TokenCache, tokens.TokenCache]:
    """The token caches of the base: of the training and of the held-out pictures."""
    scale = places.of_scale
    seen = cached(places, art, vqgan, scale.tokens)
    return seen, cached(places, art, vqgan, scale.held_out, held_out=True)


def meanings_for(places: Places, art: dataset.EmojiArt) -> Mapping[str, Sequence[str]]:
    """What the names of things mean that the model is for."""
    return load_meanings(places.folder, [art.records[item] for item in usable(art, held_out=False)])


def superres_tokens(
    places: Places, art: dataset.EmojiArt, larger: dataset.EmojiArt, vqgan: VQGAN, vqgan_large: VQGAN
) -> tuple[tuple[tokens.TokenCache, tokens.TokenCache], ...]:
    """The pairs of token caches, small and large, of super-resolution: of the training and of the held-out pictures."""
    scale = places.of_scale
    return tuple(
        (
            cached(places, art, vqgan, options, held_out=held_out),
            cached(places, art, vqgan_large, options, held_out=held_out, larger=larger),
        )
        for options, held_out in ((scale.paired, False), (scale.held_out, True))
    )


def art_of(places: Places) -> tuple[dataset.EmojiArt, dataset.EmojiArt]:
    """The pictures before and after super-resolution; with token caches they need not be there."""
    data = (places.of_scale.data, places.of_scale.large_data)
    art, larger = (dataset.load(places.folder, each, needs_pictures=False) for each in data)
    return art, larger


def encode(places: Places = PLACES, parts: tuple[Literal["base", "superres"], ...] = ("base", "superres")) -> None:
    """Build the token caches of both transformers, which their training does otherwise.

    Args:
        places: where the project keeps what it makes.
        parts: whose.
    """
    vqgan = load_module(VQGAN, VQGANConfig, places.vqgan)
    if "base" in parts:
        base_tokens(places, dataset.load(places.folder, places.of_scale.data), vqgan)
    if "superres" in parts:
        superres_tokens(places, *art_of(places), vqgan, load_module(VQGAN, VQGANConfig, places.vqgan_superres))


def base(
    places: Places = PLACES,
    steps: int | None = None,
    batch: int = recipe.BASE_BATCH,
    vqgan_from: Path | None = None,
    base_from: Path | None = None,
    learning_rate: float | None = None,
    caption_mix: float = 0.0,
    meanings: bool = False,
    lent: Lent = Lent(),
) -> None:
    """Train the base transformer on the tokens of the trained VQGAN.

    Args:
        places: where the project keeps what it makes.
        steps: of the whole run; the recipe's if not given.
        batch: token grids in a batch.
        vqgan_from: folder of another VQGAN than the run's, such as the one that ships.
        base_from: folder of a trained base transformer that the first step starts from.
        learning_rate: its peak, the recipe's if not given; lower for weights that know much already.
        caption_mix: share of the captions that is mixed with another one (docs/log.md).
        meanings: let captions say at times what a thing is, out of WordNet, instead of its name.
        lent: for a machine that is lent for a while; there token caches are enough, without pictures and VQGAN.
    """
    art = dataset.load(places.folder, places.of_scale.data, needs_pictures=False)
    vqgan_folder = vqgan_from or places.painter
    vqgan = load_module(VQGAN, VQGANConfig, vqgan_folder) if (vqgan_folder / CONFIG).is_file() else None
    text_encoder = TextEncoder.from_folder(places.text_encoder)
    seen, unseen = base_tokens(places, art, vqgan)
    training = replace(in_steps(recipe.base(places), steps), start_from=base_from, caption_mix=caption_mix)
    training = lent.of(training)
    if learning_rate is not None:
        training = replace(training, engine=replace(training.engine, learning_rate=learning_rate))

    def watch(base: MaskedTransformer, step: int) -> None:
        if vqgan is None:
            return
        on_cpu = copy.deepcopy(base).cpu()
        muse = Muse(text_encoder, vqgan, on_cpu, name="emoji", defaults=recipe.DEFAULTS)
        leave(muse, places.model, training.engine.folder / f"drawn-{step:06}.png")

    told = meanings_for(places, art) if meanings else NO_MEANINGS
    batches = TokensOfStep(art, seen, batch, places.of_scale, told)
    train_base(training, text_encoder, seen.vqgan_fingerprint, batches, validation_batches(art, unseen), watch)


def superres(
    places: Places = PLACES,
    run: str = "superres",
    low_corruption: float | None = None,
    steps: int | None = None,
    batch: int = recipe.SUPERRES_BATCH,
    superres_from: Path | None = None,
    lent: Lent = Lent(),
) -> None:
    """Train the super-resolution transformer on the tokens that both trained VQGANs make of the same scenes.

    Args:
        places: where the project keeps what it makes.
        run: the name of the run's folder; the model of another one than superres is left beside the shipped one's.
        low_corruption: share of the low-resolution tokens drawn anew, the recipe's if not given.
        steps: of the whole run; the recipe's if not given.
        batch: pairs of token grids in a batch.
        superres_from: folder of a trained transformer that the first step starts from; its grid may be another one.
        lent: for a machine that is lent for a while.
    """
    art, larger = art_of(places)
    vqgan, vqgan_large = (load_module(VQGAN, VQGANConfig, each) for each in (places.painter, places.vqgan_superres))
    (seen, seen_large), (unseen, unseen_large) = superres_tokens(places, art, larger, vqgan, vqgan_large)
    parts = np.array_split(np.arange(len(unseen.scenes)), len(unseen.scenes) // recipe.SUPERRES_BATCH + 1)
    validation = [held_out_pairs(art, unseen, unseen_large, part) for part in parts]
    training = lent.of(replace(in_steps(recipe.superres(places), steps), start_from=superres_from))
    training = replace(training, engine=replace(training.engine, folder=places.runs / run))
    if low_corruption is not None:
        training = replace(training, low_corruption=low_corruption)
    model = places.model if run == "superres" else places.runs / f"model-{run}"

    def watch(superres: SuperResTransformer, step: int) -> None:
        if (places.base / CONFIG).is_file():
            leave(cascade(places, superres), model, training.engine.folder / f"drawn-{step:06}.png")

    train_superres(
        training,
        TextEncoder.from_folder(places.text_encoder),
        seen_large.vqgan_fingerprint,
        seen.vqgan_fingerprint,
        PairsOfStep(art, seen, seen_large, batch, places.of_scale),
        validation,
        watch,
        Upsampling.of(training.model, vqgan, vqgan_large),
    )


def cascade(places: Places, superres: SuperResTransformer) -> Muse:
    """The whole model of the run, with the last of its decoders that are trained."""
    return Muse(
        TextEncoder.from_folder(places.text_encoder),
        load_module(VQGAN, VQGANConfig, places.painter),
        load_module(MaskedTransformer, TransformerConfig, places.base),
        superres,
        load_module(VQGAN, VQGANConfig, places.large_painter),
        name="emoji",
        defaults=recipe.DEFAULTS,
        superres_defaults=recipe.SUPERRES_DEFAULTS,
    )


def renew_model(places: Places) -> None:
    """Leave the whole model with decoders that were trained since, if there is a cascade."""
    if (places.superres / CONFIG).is_file():
        superres = load_module(SuperResTransformer, SuperResConfig, places.superres)
        cascade(places, superres).save_pretrained(places.model, torch.float16)


def leave(muse: Muse, model: Path, sheet: Path) -> None:
    """Leave the whole model where the bench can load it, and draw the recipe's prompts with it as a person would."""
    muse.save_pretrained(model, torch.float16)
    images = Muse.from_pretrained(model).generate(recipe.WATCHED_PROMPTS, list(range(len(recipe.WATCHED_PROMPTS))))
    contact_sheet(images, columns=8).save(sheet)


def held_out_batch(art: dataset.EmojiArt, cache: tokens.TokenCache, rows: np.ndarray) -> TokenBatch:
    """Token grids of held-out pictures with their plain captions."""
    return TokenBatch(grids(cache, rows), [caption(cache.scenes[row], art) for row in rows])


def validation_batches(art: dataset.EmojiArt, cache: tokens.TokenCache) -> list[TokenBatch]:
    """All held-out pictures in four batches, as the base is validated on them."""
    return [held_out_batch(art, cache, part) for part in np.array_split(np.arange(len(cache.scenes)), 4)]


def held_out_pairs(
    art: dataset.EmojiArt, cache: tokens.TokenCache, large: tokens.TokenCache, rows: np.ndarray
) -> TokenBatch:
    """The same with the large token grids.
    Raises ValueError if the two caches hold other scenes."""
    check_pairs(cache, large)
    small = held_out_batch(art, cache, rows)
    return TokenBatch(small.tokens, small.captions, grids(large, rows))


COMMANDS = {
    "vqgan": vqgan,
    "base": base,
    "vqgan-superres": vqgan_superres,
    "tokens": encode,
    "superres": superres,
    "decoder": decoder,
    "decoder-low": decoder_low,
    "decoder-drawn": decoder_drawn,
}

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    run_command(lambda: tyro.extras.subcommand_cli_from_dict(COMMANDS))
