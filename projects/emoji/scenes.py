"""Scenes composed of emoji: one, several of one, or two in a relation, on a plain background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image

from projects.emoji.captions import BACKGROUNDS, is_countable
from projects.emoji.dataset import EmojiArt
from projects.emoji.splits import is_held_out_count, is_held_out_pair

Kind = Literal["single", "count", "pair"]
Relation = Literal["left", "right", "above", "below", "and"]
RELATIONS: tuple[Relation, ...] = get_args(Relation)

MOST_COPIES = 5
CANONICAL_SCALE = 0.92
SMALLEST_SCALE = 0.82
SMALLEST_COPY = 0.85  # of the room a copy has
GAP = 0.03  # least distance between two copies, in sides of the picture

ATTEMPTS = 2_000  # held-out compositions are a tenth of all, and some draws have no partner
PARTNER_ATTEMPTS = 100

LEAST_VISIBLE = 0.5  # of a picture, before a background may be put behind it
LEAST_CONTRAST = 56  # in the channel that differs most, of 255


@dataclass(frozen=True)
class Scene:
    """What is to be painted; everything that a caption may say is here."""

    kind: Kind
    items: tuple[int, ...]
    """Record indexes: two for a pair, else one."""
    count: int = 1
    """Copies of the item; 1 unless the kind is "count"."""
    relation: Relation | None = None
    """Where the first item of a pair is, seen from the second."""
    background: str | None = None
    """A name in BACKGROUNDS; None is white that no caption mentions."""

    def __post_init__(self) -> None:
        if len(self.items) != (2 if self.kind == "pair" else 1):
            raise ValueError(f"a {self.kind} scene cannot have {len(self.items)} items")
        if not 1 <= self.count <= MOST_COPIES or (self.kind != "count" and self.count != 1):
            raise ValueError(f"a {self.kind} scene cannot have {self.count} copies; a count has 1 to {MOST_COPIES}")
        if (self.relation is not None) != (self.kind == "pair"):
            raise ValueError(
                f"a {self.kind} scene cannot have the relation {self.relation}; a pair has one, others none"
            )
        if self.background is not None and self.background not in BACKGROUNDS:
            raise ValueError(f"background {self.background!r} is unknown; choose from {', '.join(BACKGROUNDS)}")


@dataclass(frozen=True)
class SceneWeights:
    """How often each sort of scene is drawn."""

    single: float = 0.6
    count: float = 0.2
    pair: float = 0.2
    background: float = 0.5
    """Probability of a named background."""
    copies: tuple[float, ...] = (0.1, 0.3, 0.3, 0.2, 0.1)
    """Weights of 1, 2, ... copies in a count scene."""


def random_scene(
    art: EmojiArt,
    rng: np.random.Generator,
    pictures: Sequence[int],
    weights: SceneWeights | None = None,
    *,
    held_out: bool = False,
) -> Scene:
    """Draw a scene of the given record indexes, all of one style.

    Never a held-out composition; with `held_out` always one, so never a single.
    ValueError when `pictures` allow none."""
    weights = weights or SceneWeights()
    shares = np.array([0.0 if held_out else weights.single, weights.count, weights.pair])
    if not len(pictures) or shares.sum() <= 0:
        raise ValueError("no scene can be drawn: there are no pictures, or every sort of scene has weight 0")
    for _ in range(ATTEMPTS):
        kind = ("single", "count", "pair")[pick_weighted(shares, rng)]
        first = pick_picture(pictures, rng)
        if kind == "single":
            scene = Scene("single", (first,))
        elif kind == "count":
            scene = Scene("count", (first,), count=1 + pick_weighted(np.array(weights.copies), rng))
        else:
            second = pick_partner(art, first, pictures, rng)
            if second is None:
                continue
            scene = Scene("pair", (first, second), relation=RELATIONS[int(rng.integers(len(RELATIONS)))])
        if is_sensible(scene, art) and is_held_out(scene, art) == held_out:
            return with_background(scene, art, rng) if rng.random() < weights.background else scene
    raise ValueError(
        f"no {'held-out ' if held_out else ''}scene found among {len(pictures)} pictures; give more of them"
    )


def is_sensible(scene: Scene, art: EmojiArt) -> bool:
    """Whether the scene's picture and words agree: only what can be counted is counted."""
    return scene.kind != "count" or is_countable(art.records[scene.items[0]].concept)


def is_held_out(scene: Scene, art: EmojiArt) -> bool:
    """Whether the scene's composition is kept for testing, whatever its style."""
    concepts = [art.records[item].concept for item in scene.items]
    if scene.kind == "count":
        return is_held_out_count(concepts[0], scene.count)
    if scene.relation is not None:
        return is_held_out_pair(concepts[0], concepts[1], scene.relation)
    return False


def pick_weighted(weights: np.ndarray, rng: np.random.Generator) -> int:
    cumulative = np.cumsum(weights)
    return int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))


def pick_picture(pictures: Sequence[int], rng: np.random.Generator) -> int:
    return int(pictures[int(rng.integers(len(pictures)))])


def pick_partner(art: EmojiArt, first: int, pictures: Sequence[int], rng: np.random.Generator) -> int | None:
    """Another concept in the style of the first; None where a fair number of draws finds none."""
    style, concept = art.records[first].style, art.records[first].concept
    for _ in range(PARTNER_ATTEMPTS):
        second = pick_picture(pictures, rng)
        if art.records[second].style == style and art.records[second].concept != concept:
            return second
    return None


def with_background(scene: Scene, art: EmojiArt, rng: np.random.Generator) -> Scene:
    """The scene on a random named background that it stands out from, or unchanged where it does from none."""
    visible = [
        name
        for name, colour in BACKGROUNDS.items()
        if all(stands_out(art.pictures[item], colour) for item in scene.items)
    ]
    if not visible:
        return scene
    background = visible[int(rng.integers(len(visible)))]
    return Scene(scene.kind, scene.items, scene.count, scene.relation, background)


def stands_out(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Whether enough of a picture [size, size, 4] differs from a colour: a red heart does not from red."""
    sample = picture[::4, ::4].astype(np.int16)
    solid = sample[..., 3] > 127
    differs = np.abs(sample[..., :3] - np.array(colour, np.int16)).max(axis=-1) > LEAST_CONTRAST
    return int((differs & solid).sum()) >= LEAST_VISIBLE * int(solid.sum())


# Layouts: cells as (centre x, centre y), in sides of the picture, and the side of a cell. The first is canonical.

Layout = tuple[float, tuple[tuple[float, float], ...]]

ROW_OF_TWO: Layout = (1 / 2, ((1 / 4, 1 / 2), (3 / 4, 1 / 2)))
COLUMN_OF_TWO: Layout = (1 / 2, ((1 / 2, 1 / 4), (1 / 2, 3 / 4)))

LAYOUTS: dict[int, tuple[Layout, ...]] = {
    1: ((CANONICAL_SCALE + GAP, ((1 / 2, 1 / 2),)),),
    2: (
        ROW_OF_TWO,
        COLUMN_OF_TWO,
        (1 / 2, ((1 / 4, 1 / 4), (3 / 4, 3 / 4))),
        (1 / 2, ((1 / 4, 3 / 4), (3 / 4, 1 / 4))),
    ),
    3: (
        (1 / 2, ((1 / 2, 1 / 4), (1 / 4, 3 / 4), (3 / 4, 3 / 4))),
        (1 / 2, ((1 / 4, 1 / 4), (3 / 4, 1 / 4), (1 / 2, 3 / 4))),
        (1 / 3, ((1 / 6, 1 / 2), (1 / 2, 1 / 2), (5 / 6, 1 / 2))),
        (1 / 3, ((1 / 2, 1 / 6), (1 / 2, 1 / 2), (1 / 2, 5 / 6))),
    ),
    4: (
        (1 / 2, ((1 / 4, 1 / 4), (3 / 4, 1 / 4), (1 / 4, 3 / 4), (3 / 4, 3 / 4))),
        (1 / 3, ((1 / 2, 1 / 6), (1 / 6, 1 / 2), (5 / 6, 1 / 2), (1 / 2, 5 / 6))),
    ),
    5: (
        (1 / 3, ((1 / 6, 1 / 6), (5 / 6, 1 / 6), (1 / 2, 1 / 2), (1 / 6, 5 / 6), (5 / 6, 5 / 6))),
        (1 / 3, ((1 / 6, 1 / 3), (1 / 2, 1 / 3), (5 / 6, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 2 / 3))),
    ),
}


@dataclass(frozen=True)
class Placement:
    """One copy of a picture on the canvas, all in sides of the canvas."""

    item: int
    centre_x: float
    centre_y: float
    side: float


def paint(scene: Scene, art: EmojiArt, rng: np.random.Generator | None = None) -> np.ndarray:
    """Paint a scene to uint8 [size, size, 3]: canonical and centred, or with a generator varied in size and place."""
    size = art.size
    canvas = Image.new("RGB", (size, size), BACKGROUNDS[scene.background or "white"])
    for placement in place(scene, rng):
        side = max(1, int(placement.side * size))
        picture = Image.fromarray(np.ascontiguousarray(art.pictures[placement.item]))
        if side != size:
            picture = picture.resize((side, side), Image.Resampling.LANCZOS)  # Pillow premultiplies RGBA here
        corner = (round(placement.centre_x * size - side / 2), round(placement.centre_y * size - side / 2))
        canvas.paste(picture, corner, picture)
    return np.array(canvas)


def place(scene: Scene, rng: np.random.Generator | None) -> list[Placement]:
    """Where each copy goes; copies never overlap."""
    if scene.kind == "single":
        return [place_single(scene.items[0], rng)]
    if scene.kind == "count":
        layouts = LAYOUTS[scene.count]
        layout = layouts[0] if rng is None else layouts[int(rng.integers(len(layouts)))]
        return place_in_cells(scene.items * scene.count, layout, rng, equal=True)
    layout, items = pair_layout(scene, rng)
    return place_in_cells(items, layout, rng, equal=False)


def place_single(item: int, rng: np.random.Generator | None) -> Placement:
    if rng is None:
        return Placement(item, 1 / 2, 1 / 2, CANONICAL_SCALE)
    side = rng.uniform(SMALLEST_SCALE, 1.0)
    shift_x, shift_y = rng.uniform(-0.5, 0.5, size=2) * (1 - side)
    return Placement(item, 1 / 2 + shift_x, 1 / 2 + shift_y, side)


def pair_layout(scene: Scene, rng: np.random.Generator | None) -> tuple[Layout, tuple[int, ...]]:
    """The two cells, and the items in the order of the cells: leftmost or topmost first."""
    if scene.relation == "and":
        if rng is None:
            return ROW_OF_TWO, scene.items
        layout = ROW_OF_TWO if rng.random() < 0.5 else COLUMN_OF_TWO
        return layout, scene.items if rng.random() < 0.5 else scene.items[::-1]
    layout = ROW_OF_TWO if scene.relation in ("left", "right") else COLUMN_OF_TWO
    return layout, scene.items if scene.relation in ("left", "above") else scene.items[::-1]


def place_in_cells(
    items: Sequence[int], layout: Layout, rng: np.random.Generator | None, *, equal: bool
) -> list[Placement]:
    """One item a cell, with at least GAP between any two; `equal` gives all one size."""
    cell, centres = layout
    room = cell - GAP
    if rng is None:
        return [Placement(item, x, y, room) for item, (x, y) in zip(items, centres, strict=True)]
    sides = room * rng.uniform(SMALLEST_COPY, 1.0, size=1 if equal else len(items))
    sides = np.broadcast_to(sides, len(items))
    shift = group_shift(layout, rng)
    jitter = rng.uniform(-0.5, 0.5, size=(len(items), 2)) * (room - sides[:, None])
    places = np.array(centres) + shift + jitter
    return [
        Placement(item, float(x), float(y), float(side))
        for item, (x, y), side in zip(items, places, sides, strict=True)
    ]


def group_shift(layout: Layout, rng: np.random.Generator) -> np.ndarray:
    """A shift (x, y) of the whole group by up to half the way to the edges."""
    cell, centres = layout
    margin = np.clip(np.min(centres, axis=0) - cell / 2, 0.0, None)
    return rng.uniform(-0.5, 0.5, size=2) * margin
