"""Train the parts of the shipped model, one command a part; each goes on where it was stopped."""

import logging

import numpy as np
import torch
import tyro

from muse.checkpoint import load_module
from muse.images import contact_sheet
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import Muse
from muse.shapes import Pictures
from muse.training.base import train_base
from muse.training.masked import TokenBatch
from muse.training.perceptual import PerceptualLoss
from muse.training.vqgan import train_vqgan
from projects.emoji import dataset, networks, recipe, tokens
from projects.emoji.captions import caption
from projects.emoji.recipe import PLACES, Places
from projects.emoji.scenes import paint, random_scene

SEEN, WATCHED = 1, 2
"""Streams of random numbers: training, and the pictures that are watched."""


def usable(art: dataset.EmojiArt, *, held_out: bool) -> tuple[int, ...]:
    """The pictures of the recipe's styles, either the held-out ones or the others."""
    return tuple(i for i in art.indexes(held_out=held_out) if art.records[i].style in recipe.STYLES)


class PicturesOfStep:
    """Painted scenes without captions, drawn by the number of the step."""

    def __init__(self, places: Places, batch: int, stream: int, held_out: bool = False):
        self.art = dataset.load(places.folder)
        self.pictures = usable(self.art, held_out=held_out)
        self.batch, self.stream = batch, stream

    def __call__(self, step: int) -> Pictures:
        rng = np.random.default_rng((self.stream, step))
        scenes = [random_scene(self.art, rng, self.pictures, recipe.SCENES) for _ in range(self.batch)]
        painted = np.stack([paint(scene, self.art, rng) for scene in scenes])
        return torch.from_numpy(painted).permute(0, 3, 1, 2).float() / 255


class TokensOfStep:
    """Token grids and newly worded captions, drawn by the number of the step."""

    def __init__(self, art: dataset.EmojiArt, cache: tokens.TokenCache, batch: int):
        self.art, self.cache, self.batch = art, cache, batch
        is_single = np.array([scene.kind == "single" for scene in cache.scenes])
        self.singles, self.others = np.flatnonzero(is_single), np.flatnonzero(~is_single)

    def __call__(self, step: int) -> TokenBatch:
        rng = np.random.default_rng((SEEN, step))
        takes_single = rng.random(self.batch) < recipe.SINGLE_SHARE
        rows = np.where(takes_single, rng.choice(self.singles, self.batch), rng.choice(self.others, self.batch))
        captions = [caption(self.cache.scenes[row], self.art, rng) for row in rows]
        return TokenBatch(torch.from_numpy(self.cache.tokens[rows].astype(np.int64)), captions)


def vqgan(places: Places = PLACES) -> None:
    """Train the f=16 VQGAN."""
    networks.prepare(places.folder)
    watched = PicturesOfStep(places, 32, WATCHED, held_out=True)(0)
    batches = PicturesOfStep(places, recipe.VQGAN_BATCH, SEEN)
    train_vqgan(recipe.vqgan(places), batches, watched, PerceptualLoss.from_file(places.perceptual))


def cached(places: Places, art: dataset.EmojiArt, vqgan: VQGAN, *, held_out: bool) -> tokens.TokenCache:
    """The token cache of the training or of the held-out pictures, built if it is not there."""
    options = recipe.HELD_OUT_TOKENS if held_out else recipe.SEEN_TOKENS
    folder = places.folder / "tokens" / ("held-out" if held_out else "seen")
    tokens.build(art, usable(art, held_out=held_out), vqgan, options, folder)
    return tokens.load(folder)


def base(places: Places = PLACES) -> None:
    """Train the base transformer on the tokens of the trained VQGAN."""
    art = dataset.load(places.folder)
    vqgan = load_module(VQGAN, VQGANConfig, places.folder / "vqgan" / "vqgan")
    text_encoder = TextEncoder.from_folder(places.folder / "networks" / "text_encoder")
    seen, unseen = (cached(places, art, vqgan, held_out=held_out) for held_out in (False, True))
    validation = [held_out_batch(art, unseen, part) for part in np.array_split(np.arange(len(unseen.scenes)), 4)]
    training = recipe.base(places)

    def watch(base: MaskedTransformer, step: int) -> None:
        """Draw the recipe's prompts, and leave the whole model where the bench can load it."""
        muse = Muse(text_encoder, vqgan, base, name="emoji", defaults=recipe.DEFAULTS)
        muse.save_pretrained(places.model, torch.float16)
        images = muse.generate(recipe.WATCHED_PROMPTS, list(range(len(recipe.WATCHED_PROMPTS))))
        contact_sheet(images, columns=8).save(training.engine.folder / f"drawn-{step:06}.png")

    batches = TokensOfStep(art, seen, recipe.BASE_BATCH)
    train_base(training, text_encoder, vqgan.fingerprint(), batches, validation, watch)


def held_out_batch(art: dataset.EmojiArt, cache: tokens.TokenCache, rows: np.ndarray) -> TokenBatch:
    """Token grids of held-out pictures with their plain captions."""
    captions = [caption(cache.scenes[row], art) for row in rows]
    return TokenBatch(torch.from_numpy(cache.tokens[rows].astype(np.int64)), captions)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    tyro.extras.subcommand_cli_from_dict({"vqgan": vqgan, "base": base})
