"""The frozen judge: what is on a picture, told by EfficientNet-Lite0 features and the nearest real picture.

The network never sees the model's training. It runs at 128 px: at 160 px it costs 2.4 times as much and the ceilings are the same
(single R@5 1.000, style 0.998, both sizes, 400 pictures). A picture's style is that of its nearest real picture whatever the
concept: looking within the prompt's concept alone gives the same ceiling and needs the prompt.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor

from muse.shapes import Pictures
from projects.emoji import recipe
from projects.emoji.captions import BACKGROUNDS
from projects.emoji.dataset import EmojiArt, read_manifest
from projects.emoji.scenes import CANONICAL_SCALE, Scene, paint

Picture = np.ndarray
"""uint8 [size, size, 3]."""
Network = Callable[[Pictures], Float[Tensor, "batch dim h w"]]
"""Pictures in [-1, 1] to feature maps."""

JUDGE_SIZE = 128
"""Side of what the network sees, in pixels."""
BATCH = 64

BORDER = 2
"""Width of the frame whose median colour is the background's, in pixels of 128; so are all lengths here."""
LEAST_DIFFERENCE = 28
"""In the channel that differs most, of 255, before a pixel is no background."""
NEAR = 2
"""Pieces closer than about twice this belong together."""
LEAST_AREA = 0.006
"""Share of the picture that a segment covers at least."""
LEAST_RELATIVE_AREA = 0.15
"""Share of the largest segment's area that a segment has at least."""
MOST_SEGMENTS = 8
"""Of more, the largest are judged; no prompt asks for more than five."""


@dataclass(frozen=True)
class Segment:
    """One thing on a picture."""

    crop: Picture
    """The thing alone, on white, as large as a canonical single."""
    x: float
    """Centre of its box, in sides of the picture, from the left."""
    y: float
    """From the top."""


def border_colour(picture: Picture) -> Int[np.ndarray, "3"]:
    """Median colour of the frame of a picture."""
    width = scaled(BORDER, picture)
    top_and_bottom = np.concatenate([picture[:width], picture[-width:]]).reshape(-1, 3)
    sides = np.concatenate([picture[:, :width], picture[:, -width:]]).reshape(-1, 3)
    return np.median(np.concatenate([top_and_bottom, sides]), axis=0).astype(np.int16)


def background_of(picture: Picture) -> str:
    """Name of the background colour nearest to the frame's, in RGB."""
    colours = np.array(list(BACKGROUNDS.values()), np.int32)
    distances = ((colours - border_colour(picture)) ** 2).sum(axis=1)
    return list(BACKGROUNDS)[int(distances.argmin())]


def scaled(length: int, picture: Picture) -> int:
    """A length in pixels of 128, in the picture's own."""
    return max(1, round(length * picture.shape[0] / 128))


def foreground_of(picture: Picture) -> Bool[np.ndarray, "size size"]:
    """Where a picture differs from its background."""
    return np.abs(picture.astype(np.int16) - border_colour(picture)).max(axis=-1) > LEAST_DIFFERENCE


def segments(picture: Picture) -> list[Segment]:
    """The things on a picture, the largest first: connected pieces, put together where they are near or their boxes overlap."""
    foreground = foreground_of(picture)
    near = ndimage.binary_dilation(foreground, np.ones((3, 3), bool), iterations=scaled(NEAR, picture))
    labels, _ = ndimage.label(near, np.ones((3, 3), bool))
    labels = labels * foreground
    boxes = [box for box in ndimage.find_objects(labels) if box is not None]
    areas = [int(foreground[box].sum()) for box in boxes]
    boxes = [box for box, area in zip(boxes, areas, strict=True) if area >= LEAST_AREA / 4 * foreground.size]
    boxes = merge_overlapping(boxes)
    areas = [int(foreground[box].sum()) for box in boxes]
    least = max(LEAST_AREA * foreground.size, LEAST_RELATIVE_AREA * max(areas, default=0))
    kept = sorted((-area, i) for i, area in enumerate(areas) if area >= least)[:MOST_SEGMENTS]
    return [cut_out(picture, foreground, boxes[i]) for _, i in kept]


Box = tuple[slice, slice]


def merge_overlapping(boxes: Sequence[Box]) -> list[Box]:
    """Boxes put together until no two overlap."""
    done: list[Box] = []
    for box in boxes:
        while touching := [other for other in done if overlap(box, other)]:
            done = [other for other in done if other not in touching]
            for other in touching:
                box = around(box, other)
        done.append(box)
    return done


def overlap(one: Box, other: Box) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def around(one: Box, other: Box) -> Box:
    """The box around two boxes."""
    rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return rows, columns


def cut_out(picture: Picture, foreground: Bool[np.ndarray, "size size"], box: Box) -> Segment:
    """What a box holds, on white, its longer side as long as a canonical single's."""
    thing = np.where(foreground[box][..., None], picture[box], 255).astype(np.uint8)
    size = picture.shape[0]
    height, width = thing.shape[:2]
    factor = CANONICAL_SCALE * size / max(height, width)
    new = (max(1, round(width * factor)), max(1, round(height * factor)))
    canvas = Image.new("RGB", (size, size), "white")
    resized = Image.fromarray(thing).resize(new, Image.Resampling.LANCZOS)
    canvas.paste(resized, ((size - new[0]) // 2, (size - new[1]) // 2))
    rows, columns = box
    return Segment(np.array(canvas), (columns.start + columns.stop) / 2 / size, (rows.start + rows.stop) / 2 / size)
