"""A small set of synthetic pictures: one solid disc a record, its colour telling which record it is."""

import numpy as np
import pytest

from projects.emoji.dataset import EmojiArt, Record

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
