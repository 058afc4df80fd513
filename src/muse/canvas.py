"""Where on a picture of any size the model looks, and how what it draws is put back: geometry and colours, no network.

A model draws on a canvas of one size. It sees a picture through windows of the canvas' shape, scaled to the canvas; a
window may reach beyond the picture. Of a hole, everything outside of it is known; known pixels are never changed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from muse.images import check_num_pixels, to_images, to_tensor
from muse.requests import MOST_WINDOWS, as_whole

Size = tuple[int, int]
"""Width and height, in pixels."""
Pixels = UInt8[np.ndarray, "height width 3"]
Hole = Bool[np.ndarray, "height width"]
"""True where a picture is to be filled."""
Cells = Bool[Tensor, "row column"]
"""One for each token of a grid."""
Picture = Float[Tensor, "3 row column"]
Known = Bool[Tensor, "row column"]

MOST_BEYOND = 2.0
"""No window onto a hole is longer than so many short sides of its picture; the rest of it would see nothing."""
SMALLEST_WINDOW = 32
"""Pixels of the longer side of one of several windows, however thin the picture is."""
MOST_SHRUNK = 40
"""A picture that is longer than so many of its short sides is not seen as a whole: too little of it would be left."""
DRIFT = 0.1
"""By so much, of 1, a picture may change its colours on the way through the networks; more is another picture."""
DRIFT_REACH, SEAM_REACH = 1 / 16, 1 / 64
"""How far the surroundings colour what is drawn beside them, in widths of the canvas: by a drift, and by the rest."""
OVERLAP_REACH = 1 / 8
"""How far a window shows through what the one before it has drawn, in widths of the canvas."""


@dataclass(frozen=True)
class Box:
    """A rectangle of whole pixels, by its left upper corner and its size.
    Raises ValueError for anything that is none."""

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        for name in ("x", "y", "width", "height"):
            keep_pixels(self, name, "a box")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a box of {self.width} x {self.height} pixels came; give it at least 1 x 1")

    @property
    def right(self) -> int:
        return self.x + self.width

    @property
    def bottom(self) -> int:
        return self.y + self.height

    def inside(self, size: Size) -> tuple[slice, slice]:
        """Rows and columns of what lies on a picture."""
        return (
            slice(max(self.y, 0), max(min(self.bottom, size[1]), 0)),
            slice(max(self.x, 0), max(min(self.right, size[0]), 0)),
        )


@dataclass(frozen=True)
class Margins:
    """How many pixels a picture grows at each side.
    Raises ValueError if it does not grow at all, or a margin is no whole number from 0."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def __post_init__(self) -> None:
        for name in ("left", "right", "top", "bottom"):
            value = keep_pixels(self, name, name)
            if value < 0:
                raise ValueError(f"{name} is {value}; give a whole number of pixels from 0")
        if not (self.left or self.right or self.top or self.bottom):
            raise ValueError("all margins are 0; give at least one of left, right, top and bottom")


def keep_pixels(sides: Any, name: str, what: str) -> int:
    """Keep a field of a frozen dataclass as a number of pixels, and give it.
    Raises ValueError for what is no whole number."""
    value = getattr(sides, name)
    if (whole := as_whole(value)) is None:
        raise ValueError(f"{what} has {value!r}; give whole numbers of pixels")
    object.__setattr__(sides, name, whole)
    return whole


# -- holes ------------------------------------------------------------------------------------------------------------


def box_hole(box: Box, size: Size) -> Hole:
    """A hole of a rectangle.
    Raises ValueError if it is not wholly on the picture."""
    if box.x < 0 or box.y < 0 or box.right > size[0] or box.bottom > size[1]:
        raise ValueError(
            f"the box from {box.x}, {box.y} of {box.width} x {box.height} pixels is not wholly on the picture of "
            f"{size[0]} x {size[1]}; give X Y W H within it"
        )
    is_hole = np.zeros(size[::-1], bool)
    is_hole[box.inside(size)] = True
    return is_hole


def mask_hole(mask: Image.Image, size: Size) -> Hole:
    """A hole where an RGB mask is nearer to white than to black.
    Raises ValueError if the mask has another size than the picture, or nothing white."""
    if mask.size != size:
        raise ValueError(
            f"the mask has {mask.size[0]} x {mask.size[1]} pixels and the picture {size[0]} x {size[1]}; "
            "give a mask of the picture's size, white where it shall be filled"
        )
    is_hole = np.asarray(mask.convert("L")) > 127
    if not is_hole.any():
        raise ValueError("the mask is empty: nothing in it is white; paint white what shall be filled")
    return is_hole


def bounds(is_hole: Hole) -> Box:
    """The smallest box around a hole."""
    rows, columns = (np.flatnonzero(is_hole.any(axis)) for axis in (1, 0))
    x, y = int(columns[0]), int(rows[0])
    return Box(x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y)


def widen(image: Image.Image, margins: Margins) -> tuple[Pixels, Hole]:
    """A larger picture, black at its new margins, and these as a hole.
    Raises ValueError if it is too large."""
    size = (image.width + margins.left + margins.right, image.height + margins.top + margins.bottom)
    check_num_pixels(size)
    inner = Box(margins.left, margins.top, *image.size).inside(size)
    pixels, is_hole = np.zeros((*size[::-1], 3), np.uint8), np.ones(size[::-1], bool)
    pixels[inner], is_hole[inner] = np.asarray(image), False
    return pixels, is_hole


# -- windows ----------------------------------------------------------------------------------------------------------


def whole_window(picture: Size, canvas: Size) -> Box:
    """The smallest window that the whole picture lies in, in the middle.
    Raises ValueError if the picture is too long for that."""
    scales = [side / most for side, most in zip(picture, canvas, strict=True)]
    if max(scales) > MOST_SHRUNK * min(scales):
        raise ValueError(
            f"a picture of {picture[0]} x {picture[1]} pixels is too long to be seen as a whole: it may have at most "
            f"{MOST_SHRUNK} times as many pixels on one side as on the other; crop it"
        )
    return window_around(Box(0, 0, *picture), max(scales), picture, canvas)


def inpainting_windows(hole: Box, picture: Size, canvas: Size, context: float) -> list[Box]:
    """One window with a hole's box in its middle, `context` times as long as the box but within the picture.

    It is at least as large as the canvas, as far as the picture is. A hole longer than MOST_BEYOND short sides of the
    picture has windows one after the other, each half over the last.
    Raises ValueError if these would be too many."""
    needed = max(hole.width / canvas[0], hole.height / canvas[1])
    room = min(picture[0] / canvas[0], picture[1] / canvas[1])
    if needed > MOST_BEYOND * room:
        return overlapping_windows(hole, scale_of_many(max(room, 1), picture, canvas), picture, canvas)
    return [window_around(hole, max(needed, min(max(context * needed, 1), room)), picture, canvas)]


def outpainting_windows(inner: Box, picture: Size, canvas: Size) -> list[Box]:
    """Windows over the margins around an inner picture, the nearest to it first, each half over another.

    Each is as large as the inner picture's short side, so that the model sees it at the size it knows; but no smaller
    than the canvas, as far as the widened picture is.
    Raises ValueError if these would be too many."""
    wanted = max(min(inner.width / canvas[0], inner.height / canvas[1]), 1)
    windows = overlapping_windows(Box(0, 0, *picture), scale_of_many(wanted, picture, canvas), picture, canvas)
    return sorted(windows, key=lambda window: distance(window, inner))


def scale_of_many(wanted: float, picture: Size, canvas: Size) -> float:
    """A scale for several windows: the wanted one as far as the picture is large enough."""
    sides = picture[0] / canvas[0], picture[1] / canvas[1]
    most = max(MOST_BEYOND * min(sides), SMALLEST_WINDOW / max(canvas))
    return min(wanted, most, max(sides))


def window_around(box: Box, scale: float, picture: Size, canvas: Size) -> Box:
    """A window of the canvas' shape with a box in its middle, moved onto the picture as far as there is room."""
    width, height = window_size(scale, canvas)
    width, height = max(width, box.width), max(height, box.height)
    return Box(
        start_within(box.x + (box.width - width) // 2, width, picture[0]),
        start_within(box.y + (box.height - height) // 2, height, picture[1]),
        width,
        height,
    )


def window_size(scale: float, canvas: Size) -> Size:
    """`scale` times the canvas, rounded up but for what floats leave over."""
    width, height = (max(math.ceil(scale * side - 1e-6), 1) for side in canvas)
    return width, height


def start_within(start: int, length: int, whole: int) -> int:
    """Where a stretch begins so that it lies within the whole, or the whole in its middle."""
    return (whole - length) // 2 if length > whole else min(max(start, 0), whole - length)


def overlapping_windows(box: Box, scale: float, picture: Size, canvas: Size) -> list[Box]:
    """Windows that cover a box, row by row, each half over its neighbours.
    Raises ValueError if these would be too many."""
    width, height = window_size(scale, canvas)
    columns, rows = starts(box.x, box.width, width), starts(box.y, box.height, height)
    if len(columns) * len(rows) > MOST_WINDOWS:
        raise ValueError(
            f"{box.width} x {box.height} pixels are {len(columns) * len(rows):,} windows of {width} x {height} and at "
            f"most {MOST_WINDOWS:,} are drawn; give a smaller hole, smaller margins or a smaller picture"
        )
    return [
        Box(start_within(x, width, picture[0]), start_within(y, height, picture[1]), width, height)
        for y in rows
        for x in columns
    ]


def windows_in_use(windows: Sequence[Box], is_hole: Hole) -> list[Box]:
    """The windows that have something to fill once those before them are filled."""
    is_left, in_use = is_hole.copy(), []
    for window in windows:
        inside = window.inside((is_hole.shape[1], is_hole.shape[0]))
        if is_left[inside].any():
            in_use.append(window)
            is_left[inside] = False
    return in_use


def starts(begin: int, length: int, window: int) -> list[int]:
    """Where windows begin that cover a stretch evenly, at most half a window apart."""
    rest = length - window
    if rest <= 0:
        return [begin - (window - length) // 2]
    num_gaps = math.ceil(rest / max(window // 2, 1))
    return [begin + round(i * rest / num_gaps) for i in range(num_gaps + 1)]


def distance(window: Box, inner: Box) -> float:
    """From the middle of a window to the nearest point of a box."""
    across = (window.x + window.right) / 2
    down = (window.y + window.bottom) / 2
    return math.hypot(
        max(inner.x - across, 0, across - inner.right),
        max(inner.y - down, 0, down - inner.bottom),
    )


# -- what is seen through a window, and put back ----------------------------------------------------------------------


@dataclass(frozen=True)
class View:
    """What the model sees through a window."""

    picture: Picture
    """In [0, 1], at the size of the canvas; where nothing is known it goes on smoothly from what is."""
    is_known: Known
    is_given: Known
    """Known from the start, and not drawn through another window."""


def view(pixels: Pixels, is_left: Hole, window: Box, canvas: Size, is_drawn: Hole | None = None) -> View:
    """Scale what a window shows to a canvas; neither a hole's pixels nor what is beyond the picture bleed into it.
    `is_left` is what is still to be filled, and `is_drawn` what other windows have filled."""
    inside = window.inside((pixels.shape[1], pixels.shape[0]))
    colours, is_known = onto_canvas(pixels[inside], ~is_left[inside], inside, window, canvas)
    is_given = is_known
    if is_drawn is not None:
        _, is_given = onto_canvas(pixels[inside], ~(is_left | is_drawn)[inside], inside, window, canvas)
    return View(continued(colours, is_known), is_known, is_given)


def onto_canvas(
    part: Pixels, is_known: Hole, inside: tuple[slice, slice], window: Box, canvas: Size
) -> tuple[Picture, Known]:
    """The part of a picture inside a window, and what is known of it, scaled to where it lies on the canvas."""
    down = stretch_on_canvas(inside[0], window.y, window.height, canvas[1])
    across = stretch_on_canvas(inside[1], window.x, window.width, canvas[0])
    patch = np.zeros((down.last - down.first, across.last - across.first, 4), np.uint8)
    rows, columns = (
        slice(each.inset, each.inset + side) for each, side in ((down, len(part)), (across, part.shape[1]))
    )
    patch[rows, columns, :3] = part
    patch[rows, columns, 3] = np.where(is_known, 255, 0)
    # Pillow weighs colours by alpha when it resizes, and copies at the same size. Lanczos would ring around a hole.
    size, box = (across.stop - across.start, down.stop - down.start), (across.begin, down.begin, across.end, down.end)
    scaled = Image.new("RGBA", canvas)
    scaled.paste(Image.fromarray(patch).resize(size, Image.Resampling.HAMMING, box), (across.start, down.start))
    levels = np.asarray(scaled)
    return to_tensor(Image.fromarray(levels[..., :3])), torch.from_numpy(levels[..., 3] > 127)


@dataclass(frozen=True)
class Stretch:
    """Along one side: the pixels of a canvas that a part of a picture reaches, and where these lie on the window."""

    start: int
    stop: int
    first: int
    """The pixel of the window where the first of the canvas begins."""
    last: int
    inset: int
    """How many pixels further on the part of the picture begins."""
    begin: float
    """From `first` to where the first pixel of the canvas begins exactly."""
    end: float


def stretch_on_canvas(part: slice, window_start: int, window_length: int, side: int) -> Stretch:
    """Where the part of a picture within a window lies on a canvas with so many pixels a side."""
    start = (part.start - window_start) * side // window_length
    stop = -(-(part.stop - window_start) * side // window_length)
    first, last = start * window_length // side, -(-stop * window_length // side)
    return Stretch(
        start=start,
        stop=stop,
        first=first,
        last=last,
        inset=part.start - window_start - first,
        begin=start * window_length / side - first,
        end=stop * window_length / side - first,
    )


def whole_view(image: Image.Image, window: Box, canvas: Size) -> View:
    """What is seen of a picture without a hole."""
    return view(np.asarray(image), np.zeros(image.size[::-1], bool), window, canvas)


def hidden_cells(is_hole: Hole, window: Box, rows: int, columns: int) -> Cells:
    """Which tokens of a grid over a window touch the hole, or what lies beyond the picture."""
    inside = window.inside((is_hole.shape[1], is_hole.shape[0]))
    part, (across, down) = is_hole[inside], (inside[1].start - window.x, inside[0].start - window.y)
    in_rows = np.stack([any_within(part, span, down) for span in spans(window.height, rows)])
    return torch.from_numpy(np.stack([any_within(in_rows.T, span, across) for span in spans(window.width, columns)]).T)


def any_within(part: Bool[np.ndarray, "along across"], span: slice, start: int) -> Bool[np.ndarray, " across"]:
    """Whether there is a hole in each column between two rows, or these go beyond the part that begins at `start`."""
    first, last = span.start - start, span.stop - start
    if first < 0 or last > len(part):
        return np.ones(part.shape[1], bool)
    return np.logical_or.reduce(part[first:last], axis=0)


def spans(length: int, num: int) -> Iterator[slice]:
    """The pixels, whole or in part, of each of `num` equal stretches."""
    for i in range(num):
        yield slice(i * length // num, -(-(i + 1) * length // num))


def paste(
    pixels: Pixels, is_left: Hole, window: Box, seen: View, drawn: Image.Image, is_drawn: Hole | None = None
) -> None:
    """Fill what is left of a hole within a window with what was drawn on the canvas, in place.

    Of what other windows have drawn, the rim is faded over, so that no edge is seen; all other pixels stay as they are.
    """
    size = (pixels.shape[1], pixels.shape[0])
    inside = window.inside(size)
    part = np.asarray(crop(to_image(matched_to_surroundings(to_tensor(drawn), seen)), window, size))
    result = np.where(is_left[inside][..., None], part, pixels[inside])
    if is_drawn is not None and is_drawn[inside].any():
        fading = nearness(~seen.is_known, OVERLAP_REACH).expand(3, -1, -1)
        weight = np.asarray(crop(to_image(fading), window, size)) / np.float32(255)
        faded = pixels[inside] + weight * (part.astype(np.float32) - pixels[inside])
        result = np.where((is_drawn & ~is_left)[inside][..., None], faded.round().astype(np.uint8), result)
    pixels[inside] = result


def crop(drawn: Image.Image, window: Box, picture: Size) -> Image.Image:
    """The part of a drawn canvas that lies on the picture, at the picture's scale."""
    rows, columns = window.inside(picture)
    across, down = drawn.width / window.width, drawn.height / window.height
    box = (
        (columns.start - window.x) * across,
        (rows.start - window.y) * down,
        (columns.stop - window.x) * across,
        (rows.stop - window.y) * down,
    )
    size = (columns.stop - columns.start, rows.stop - rows.start)
    return drawn.resize(size, Image.Resampling.LANCZOS, box)


def matched_to_surroundings(drawn: Picture, seen: View) -> Picture:
    """What was drawn, its colours moved near the given pixels by as much as it misses these: so that no seam is seen.

    Where it misses them by more than a drift it is another picture there, and only a narrow rim is moved so far.
    What stood in the hole plays no part. After Poisson image editing (Perez et al., 2003), with an end to its reach."""
    missed = torch.where(seen.is_given, seen.picture - drawn, 0)
    drift = missed.clamp(-DRIFT, DRIFT)
    moved = drawn + nearness(seen.is_given, DRIFT_REACH) * continued(drift, seen.is_given)
    return (moved + nearness(seen.is_given, SEAM_REACH) * continued(missed - drift, seen.is_given)).clamp(0, 1)


def nearness(is_there: Known, reach: float) -> Float[Tensor, "1 row column"]:
    """1 within a part and beside it, falling to 0 as far away as `reach`, in widths of the canvas."""
    pixels = max(round(reach * is_there.shape[1]), 1)
    share, side = is_there[None].float(), 2 * pixels + 1
    for kernel, padding in (((1, side), (0, pixels)), ((side, 1), (pixels, 0))):  # a square's mean is that of its rows'
        share = F.avg_pool2d(share, kernel, 1, padding, count_include_pad=False)
    return (2 * share).clamp(max=1)


def to_image(picture: Picture) -> Image.Image:
    """A single picture in [0, 1] as 8 bits."""
    return to_images(picture[None])[0]


def continued(picture: Picture, is_known: Known) -> Picture:
    """A picture whose known pixels go on smoothly over the unknown ones; grey where nothing is known.
    The pull-push of The Lumigraph (Gortler et al., 1996)."""
    return _continued(picture[None] * is_known, is_known[None, None].float())[0]


def _continued(
    weighted: Float[Tensor, "1 3 height width"], weight: Float[Tensor, "1 1 height width"]
) -> Float[Tensor, "1 3 height width"]:
    colours = torch.where(weight > 0, weighted / weight.clamp(min=1e-9), 0.5)
    if (weight > 0).all() or weight.numel() == 1:
        return colours
    coarse = _continued(F.avg_pool2d(weighted, 2, ceil_mode=True), F.avg_pool2d(weight, 2, ceil_mode=True))
    size = (weight.shape[2], weight.shape[3])
    return torch.where(weight > 0, colours, F.interpolate(coarse, size, mode="bilinear", align_corners=False))
