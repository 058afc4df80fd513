"""Small sets of synthetic pictures: discs whose colour tells which record they are, and blocks for a judge."""

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from projects.emoji.dataset import EmojiArt, Record
from projects.emoji.judge import Gallery, Judge
from projects.emoji.splits import held_out_pairs

SIZE = 64
CONCEPTS = (
    "red apple",
    "octopus",
    "cat",
    "pizza",
    "rocket",
    "kite",
    "grapes",
    "face with tears of joy",
    "owl",
    "cooked rice",
)
STYLES = {"fluent-3d": "fluent", "fluent-flat": "fluent", "noto": "noto", "twemoji": "twemoji"}


def disc(colour: tuple[int, int, int]) -> np.ndarray:
    """A solid disc that reaches the edges of its picture, uint8 [SIZE, SIZE, 4]."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    picture = np.zeros((SIZE, SIZE, 4), np.uint8)
    picture[x**2 + y**2 <= (SIZE / 2) ** 2] = (*colour, 255)
    return picture


def colour_of(index: int) -> tuple[int, int, int]:
    return (40 + 5 * index, 20, 10)


@pytest.fixture(scope="session")
def art() -> EmojiArt:
    records = tuple(
        Record(
            index=index,
            codepoint=f"{0x1F300 + index % len(CONCEPTS):x}",
            concept=concept,
            group="Animals & Nature",
            subgroup="",
            tags=("thing", f"{concept.split()[0]}-ish"),
            keywords=("thing", ":-)"),
            style=style,
            family=family,
            licence="MIT",
            package="none@0",
            held_out=False,
        )
        for index, (style, family, concept) in enumerate(
            (style, family, concept) for style, family in STYLES.items() for concept in CONCEPTS
        )
    )
    return EmojiArt(records, np.stack([disc(colour_of(record.index)) for record in records]))


# -- blocks, and a judge of random convolutions that tells them apart --------------------------------------------------

BLOCKS_SIZE = 128
NOUNS = (
    *("anchor", "bell", "candle", "drum", "feather", "goblet", "hammer", "ivy", "jar", "key", "ladder", "mirror"),
    *("needle", "oar", "pencil", "quilt", "rake", "saddle", "trumpet", "urn", "violin", "wagon", "yacht", "zipper"),
    *("axe", "barrel", "comb", "dagger", "easel", "fan"),
)
RIMS = (None, (250, 250, 40), (0, 250, 250), (250, 40, 250))
"""Colour of the rim in each style."""


def blocks(concept: int, style: int) -> np.ndarray:
    """Four blocks in the concept's colours, with the style's rim."""
    chooser = random.Random(concept)
    image = Image.new("RGBA", (BLOCKS_SIZE, BLOCKS_SIZE))
    pen = ImageDraw.Draw(image)
    for x in (4, 64):
        for y in (4, 64):
            colour = tuple(chooser.choice((0, 60, 140, 200)) for _ in range(3))
            pen.rectangle((x, y, x + 59, y + 59), fill=(*colour, 255), outline=RIMS[style], width=12)
    return np.array(image)


@pytest.fixture(scope="session")
def block_art() -> EmojiArt:
    held_out = held_out_pairs({noun: set(STYLES.values()) for noun in NOUNS})
    pairs = [(style, noun) for style in STYLES for noun in NOUNS]
    records = tuple(
        Record(
            index=index,
            codepoint=f"{NOUNS.index(noun):x}",
            concept=noun,
            group="Objects",
            subgroup="",
            tags=(),
            keywords=(),
            style=style,
            family=STYLES[style],
            licence="MIT",
            package="none@0",
            held_out=(noun, STYLES[style]) in held_out,
        )
        for index, (style, noun) in enumerate(pairs)
    )
    pictures = [blocks(NOUNS.index(noun), list(STYLES).index(style)) for style, noun in pairs]
    return EmojiArt(records, np.stack(pictures))


@pytest.fixture(scope="session")
def block_judge(block_art) -> Judge:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 24, 8, stride=8), nn.Tanh(), nn.AdaptiveAvgPool2d(4))
        # The places are made channels, so that the mean over places does not blur what stands where.
        network = nn.Sequential(*layers, nn.Flatten(), nn.Unflatten(1, (-1, 1, 1)))
    return Judge(network, Gallery.of(block_art, network))
