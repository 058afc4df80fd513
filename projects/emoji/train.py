"""Train the parts of the shipped model, one command a part; each goes on where it was stopped."""

import logging

import numpy as np
import torch
import tyro

from muse.shapes import Pictures
from muse.training.perceptual import PerceptualLoss
from muse.training.vqgan import train_vqgan
from projects.emoji import dataset, networks, recipe
from projects.emoji.recipe import Places
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


def vqgan(places: Places = Places()) -> None:
    """Train the f=16 VQGAN."""
    networks.prepare(places.folder)
    watched = PicturesOfStep(places, 32, WATCHED, held_out=True)(0)
    batches = PicturesOfStep(places, recipe.BATCH, SEEN)
    train_vqgan(recipe.vqgan(places), batches, watched, PerceptualLoss.from_file(places.perceptual))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    tyro.extras.subcommand_cli_from_dict({"vqgan": vqgan})
