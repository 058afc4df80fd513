"""The frozen judge: what is on a picture, told by EfficientNet-Lite0 features and the nearest real picture.

Measured on 400 real pictures, varied in size and place: at 128 px R@1 is 0.995, R@5 1.000 and style 0.998; at 160 px
the same for 2.4 times the time, so 128 px it is. A picture's style is that of its nearest real picture, whatever the
concept: looking among the prompt's concept alone is no better (0.998) and would need the prompt.

Segments were tuned on 320 counts of real art, varied and canonical, and on the same blurred and put through JPEG as a
stand-in for a VQGAN: with LEAST_DIFFERENCE and NEAR as below, 0.99 or more are counted right, and 0.97 where blurred.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from safetensors.torch import load_file
from scipy import ndimage
from torch import Tensor

from muse.checkpoint import write_tensors
from muse.images import to_tensor
from muse.shapes import Pictures
from projects.emoji import recipe
from projects.emoji.captions import BACKGROUNDS
from projects.emoji.dataset import EmojiArt, Record, read_manifest
from projects.emoji.scenes import CANONICAL_SCALE, Scene, paint

Network = Callable[[Pictures], Float[Tensor, "batch dim h w"]]
"""Pictures in [-1, 1] to feature maps."""
Features = Float[Tensor, "picture dim"]
Ranks = Int[np.ndarray, " concept"]
"""The place of every concept of the gallery, 0 for the nearest."""

JUDGE_SIZE = 128
"""Side of every picture that is judged, in pixels; others are resized to it."""
BATCH = 64

BORDER = 2
"""Width of the frame whose median colour is that of the background, in pixels."""
LEAST_DIFFERENCE = 40
"""In the channel that differs most, of 255, before a pixel is no background; lower counts smears as things."""
NEAR = 1
"""Pieces are put together if they touch once each is grown by so many pixels; 2 would join copies 4 pixels apart."""
SPECK = 0.002
"""Share of the picture below which a piece is nothing."""
LEAST_RELATIVE_AREA = 0.15
"""Share of the largest segment's area that another one has at least."""
MOST_SEGMENTS = 8
"""Of more, the largest are judged; no prompt asks for more than five."""
EIGHT_NEIGHBOURS = np.ones((3, 3), bool)

Box = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True)
class Segment:
    """One thing on a picture."""

    crop: Image.Image
    """The thing alone on white, as large as a canonical single."""
    x: float
    """Centre of its box from the left, in sides of the picture."""
    y: float
    """Centre of its box from the top, in sides of the picture."""


@dataclass(frozen=True)
class Thing:
    """A segment that was looked up in the gallery."""

    x: float
    y: float
    ranks: Ranks


@dataclass(frozen=True)
class Seen:
    """All that the judge sees on one picture; it knows nothing of the prompt."""

    background: str
    nearest: Record
    """The gallery's picture that is most like it."""
    features: Float[Tensor, " dim"]
    ranks: Ranks
    ranks_without: dict[str, Ranks]
    """Ranks in the gallery without one family, by its name."""
    things: tuple[Thing, ...]
    """The largest first."""


# -- pixels ------------------------------------------------------------------------------------------------------------


def background_of(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    """Name of the background colour nearest to the frame's, in RGB: the ceiling is 1.000, so Lab has nothing to add."""
    distances = ((np.array(list(BACKGROUNDS.values())) - border_colour(picture)) ** 2).sum(axis=1)
    return list(BACKGROUNDS)[int(distances.argmin())]


def border_colour(picture: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "3"]:
    """Median colour of the frame of a picture."""
    is_frame = np.ones(picture.shape[:2], bool)
    is_frame[BORDER:-BORDER, BORDER:-BORDER] = False
    return np.median(picture[is_frame], axis=0)


def segments(picture: UInt8[np.ndarray, "h w 3"]) -> list[Segment]:
    """The things on a picture, the largest first: pieces that differ from the background,
    put together where they are near or their boxes overlap."""
    is_thing = np.abs(picture - border_colour(picture)).max(axis=-1) > LEAST_DIFFERENCE
    boxes = merge_overlapping(boxes_of_pieces(is_thing))
    areas = [int(is_thing[box].sum()) for box in boxes]
    largest_first = sorted(zip(areas, boxes, strict=True), key=lambda pair: -pair[0])[:MOST_SEGMENTS]
    return [cut_out(picture, is_thing, box) for area, box in largest_first if area >= LEAST_RELATIVE_AREA * max(areas)]


def boxes_of_pieces(is_thing: Bool[np.ndarray, "h w"]) -> list[Box]:
    """The box of each connected piece that is more than a speck."""
    grown = ndimage.binary_dilation(is_thing, EIGHT_NEIGHBOURS, iterations=NEAR)
    labels = np.zeros(is_thing.shape, np.int32)
    ndimage.label(grown, EIGHT_NEIGHBOURS, output=labels)
    labels *= is_thing
    areas = np.bincount(labels.ravel())
    boxes = enumerate(ndimage.find_objects(labels), start=1)
    return [box for label, box in boxes if box is not None and areas[label] >= SPECK * is_thing.size]


def merge_overlapping(boxes: Sequence[Box]) -> list[Box]:
    """Boxes put together until no two overlap."""
    apart: list[Box] = []
    for box in boxes:
        while touching := [other for other in apart if overlap(box, other)]:
            apart = [other for other in apart if other not in touching]
            for other in touching:
                box = around(box, other)
        apart.append(box)
    return apart


def overlap(one: Box, other: Box) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def around(one: Box, other: Box) -> Box:
    """The box around two boxes."""
    rows, columns = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return rows, columns


def cut_out(picture: UInt8[np.ndarray, "h w 3"], is_thing: Bool[np.ndarray, "h w"], box: Box) -> Segment:
    """What a box holds, on white, its longer side as long as a canonical single's."""
    thing = Image.fromarray(np.where(is_thing[box][..., None], picture[box], 255).astype(np.uint8))
    factor = CANONICAL_SCALE * JUDGE_SIZE / max(thing.size)
    width, height = (max(1, round(side * factor)) for side in thing.size)
    crop = Image.new("RGB", (JUDGE_SIZE, JUDGE_SIZE), "white")
    resized = thing.resize((width, height), Image.Resampling.LANCZOS)
    crop.paste(resized, ((JUDGE_SIZE - width) // 2, (JUDGE_SIZE - height) // 2))
    y, x = ((side.start + side.stop) / 2 / whole for side, whole in zip(box, picture.shape[:2], strict=True))
    return Segment(crop, x, y)


def is_one_piece(art: EmojiArt, item: int) -> bool:
    """Whether a real picture, painted canonically, is a single segment: only then can copies of it be counted."""
    return len(segments(paint(Scene("single", (item,)), art))) == 1


# -- features ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def features_of(network: Network, images: Sequence[Image.Image]) -> Features:
    """Mean features of images, resized to JUDGE_SIZE where they have another size."""
    batches = []
    for start in range(0, len(images), BATCH):
        pictures = torch.stack([to_tensor(at_judge_size(image)) for image in images[start : start + BATCH]])
        batches.append(network(pictures * 2 - 1).mean((2, 3)))
    return torch.cat(batches)


def at_judge_size(image: Image.Image) -> Image.Image:
    size = (JUDGE_SIZE, JUDGE_SIZE)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


# -- the judge ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gallery:
    """Real pictures to compare with, and the judge's features of them."""

    records: tuple[Record, ...]
    features: Features

    @classmethod
    def of(cls, art: EmojiArt, network: Network) -> "Gallery":
        """Every picture of the recipe's styles, held out or not, painted canonically on white."""
        records = gallery_records(art)
        scenes = (Scene("single", (record.index,)) for record in records)
        return cls(records, features_of(network, [Image.fromarray(paint(scene, art)) for scene in scenes]))

    @cached_property
    def concepts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(record.concept for record in self.records))

    @cached_property
    def place_of(self) -> dict[str, int]:
        """Where a concept stands among `concepts`."""
        return {concept: place for place, concept in enumerate(self.concepts)}

    @cached_property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(record.family for record in self.records))

    @cached_property
    def directions(self) -> Features:
        """The features at length 1."""
        return F.normalize(self.features, dim=1)

    @cached_property
    def concept_places(self) -> Int[Tensor, " picture"]:
        return torch.tensor([self.place_of[record.concept] for record in self.records])

    def is_of(self, family: str) -> Bool[Tensor, " picture"]:
        return torch.tensor([record.family == family for record in self.records])


def gallery_records(art: EmojiArt) -> tuple[Record, ...]:
    return tuple(record for record in art.records if record.style in recipe.STYLES)


class Judge:
    """A frozen network and the real pictures whose features it compares with."""

    def __init__(self, network: Network, gallery: Gallery):
        self.network, self.gallery = network, gallery

    @classmethod
    def load(cls, folder: Path, art: EmojiArt) -> "Judge":
        """EfficientNet-Lite0 and the gallery of `art`, the data set built in `folder`; half a minute the first time.
        The gallery's features stay in FOLDER/judge for the next.
        Raises FileNotFoundError, which says how to fetch it, if there is no network."""
        weights = folder / "networks" / "judge" / "model.safetensors"
        if not weights.is_file():
            raise FileNotFoundError(
                f"there is no judge in {weights.parent}; run `python -m projects.emoji.networks --folder {folder}`"
            )
        network = efficientnet_lite0(weights)
        key = hashlib.sha256(weights.read_bytes() + json.dumps([read_manifest(folder), recipe.STYLES]).encode())
        cache = folder / "judge" / f"{key.hexdigest()[:16]}.safetensors"
        if not cache.exists():
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_tensors(cache, {"features": Gallery.of(art, network).features})
        return cls(network, Gallery(gallery_records(art), load_file(cache)["features"]))

    def features(self, images: Sequence[Image.Image]) -> Features:
        """Features of images, at the length the network gives them."""
        return features_of(self.network, images)

    def nearest(self, features: Features, k: int = 5) -> list[list[str]]:
        """The k nearest concepts, the best first; a concept is as near as its nearest picture."""
        scores = self.concept_scores(self.similarities(features))
        return [[self.gallery.concepts[place] for place in row] for row in scores.topk(k).indices.tolist()]

    def look(self, images: Sequence[Image.Image]) -> list[Seen]:
        """What is on each image, at whatever size."""
        images = [at_judge_size(image.convert("RGB")) for image in images]
        features = self.features(images)
        similarities = self.similarities(features)
        nearest = similarities.argmax(dim=1).tolist()
        ranks = self.ranks(similarities)
        without = {family: self.ranks(similarities, family) for family in self.gallery.families}
        things = self.things_on(images)
        return [
            Seen(
                background=background_of(np.asarray(image)),
                nearest=self.gallery.records[nearest[i]],
                features=features[i],
                ranks=ranks[i],
                ranks_without={family: rows[i] for family, rows in without.items()},
                things=things[i],
            )
            for i, image in enumerate(images)
        ]

    def things_on(self, images: Sequence[Image.Image]) -> list[tuple[Thing, ...]]:
        """The segments of each image, looked up in the gallery."""
        found = [segments(np.asarray(image)) for image in images]
        crops = [segment.crop for group in found for segment in group]
        ranks = iter(self.ranks(self.similarities(self.features(crops))) if crops else ())
        return [tuple(Thing(segment.x, segment.y, next(ranks)) for segment in group) for group in found]

    def similarities(self, features: Features) -> Float[Tensor, "batch picture"]:
        """Cosine to every picture of the gallery."""
        return F.normalize(features, dim=1) @ self.gallery.directions.T

    def concept_scores(self, similarities: Float[Tensor, "batch picture"]) -> Float[Tensor, "batch concept"]:
        """A concept's score is that of its best picture."""
        places = self.gallery.concept_places.expand_as(similarities)
        scores = similarities.new_full((len(similarities), len(self.gallery.concepts)), -torch.inf)
        return scores.scatter_reduce(1, places, similarities, "amax")

    def ranks(
        self, similarities: Float[Tensor, "batch picture"], without_family: str | None = None
    ) -> Int[np.ndarray, "batch concept"]:
        """The place of every concept; of equals each gets the worst."""
        if without_family is not None:
            similarities = similarities.masked_fill(self.gallery.is_of(without_family), -torch.inf)
        scores = self.concept_scores(similarities)
        num_below = torch.searchsorted(scores.sort(dim=1).values, scores)
        return (len(self.gallery.concepts) - 1 - num_below).numpy()


def efficientnet_lite0(weights: Path) -> Network:
    """EfficientNet-Lite0 without its classifier.
    Raises ImportError if its package is missing."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            "the judge needs a package; run `pip install --no-deps efficientnet-lite-pytorch==0.1.0`"
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(load_file(weights), strict=True)
    return network.eval().requires_grad_(False).extract_features
