"""PIL pictures to tensors and back, and to files that say how they were made."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from muse.requests import check_kind, check_list, fresh_file, whole_number
from muse.shapes import Pictures

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO")
"""What is read; others of Pillow's run foreign programs (EPS) or are no pictures."""
MOST_STRETCHED = 1 / 16
"""Share by which a side may be off."""
MOST_PIXELS = 80_000_000
"""Of a picture that is read: a file of a few kilobytes may hold far more than memory does."""
WITHOUT_A_RANGE = ("I", "F", "LAB")
"""Pillow's modes whose numbers say nothing of how bright they are, or that it cannot turn into RGB."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each EXIF orientation upright; it is already at 1."""
EXIF = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
"""Where Pillow finds an orientation."""


def open_image(path: Path, behind: str = "white") -> Image.Image:
    """Read a picture as `to_rgb` has it; of an animation the first frame.
    Raises OSError or ValueError, in one sentence, if it is no picture, damaged or too large."""
    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} has more than {MOST_PIXELS:,} pixels; scale it down") from error
    except UnidentifiedImageError as error:
        raise OSError(f"{path} is no picture that can be read; give a PNG, JPEG, WebP, GIF, BMP or TIFF") from error
    try:
        with image:
            check_num_pixels(image.size)
            try:
                image.load()
            except Exception as error:  # every format's reader fails in ways of its own
                raise OSError(f"{path} is damaged ({error}); get the picture again") from error
            return to_rgb(image, behind)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error


def to_rgb(image: Image.Image, behind: str = "white") -> Image.Image:
    """A picture of any mode as 8-bit RGB, upright as its EXIF says, with what is transparent laid on a colour.

    16 bits become 8; of an animation it is the frame that stands. A colour profile is kept where it still fits.
    Raises ValueError if it is no PIL picture, has too many pixels or none, or numbers without a range."""
    check_picture(image)
    check_num_pixels(image.size)
    if image.mode in WITHOUT_A_RANGE:
        raise ValueError(f"a picture of mode {image.mode} came, which cannot be shown as it is; save it as RGB, 8 bits")
    return as_rgb(image, behind)


def as_rgb(image: Image.Image, behind: str = "white") -> Image.Image:
    """What `to_rgb` makes of a picture, of any size; the numbers of a wider whole type are taken for 16 bits."""
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
    image = upright(image)
    if image.mode.startswith("I"):
        image = as_8_bits(image)
    if image.has_transparency_data:
        backdrop = Image.new("RGBA", image.size, behind)
        image = Image.alpha_composite(backdrop, image.convert("RGBA"))
    plain = image.convert("RGB")
    plain.info = {} if profile is None else {"icc_profile": profile}
    return plain


def as_8_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits in 8, with alpha if one of its levels is transparent."""
    levels, clear = np.asarray(image), image.info.get("transparency")
    grey = Image.fromarray(np.round(levels.astype(np.float32) / 257).astype(np.uint8))
    if clear is None:
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(levels == clear, 0, 255).astype(np.uint8))))


def upright(image: Image.Image) -> Image.Image:
    """A copy of a picture turned as its EXIF says, and rid of that, so that nobody turns it again."""
    image.load()
    turn = TURNS.get(orientation(image))
    turned = image.copy() if turn is None else image.transpose(turn)
    turned.info = {name: value for name, value in turned.info.items() if name not in EXIF}
    return turned


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a picture, 1 to 8; 1, upright, if there is none or it cannot be read."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow's reader of EXIF fails in as many ways as there are broken ones
        return 1
    return found if found in TURNS else 1


def check_picture(image: Any) -> None:
    """Raises ValueError for what is no PIL picture."""
    check_kind("the picture", image, Image.Image, "one of PIL, as muse.images.open_image reads it")


def check_pictures(images: Any) -> None:
    """Raises ValueError for what is no list of PIL pictures, or an empty one."""
    check_list("images", images)
    if len(images) == 0:
        raise ValueError("at least one picture is wanted and none came; give some")
    for image in images:
        check_picture(image)


def check_num_pixels(size: tuple[int, int]) -> None:
    """Raises ValueError for a picture of no pixels, or of too many."""
    width, height = size
    if not 0 < width * height <= MOST_PIXELS:
        wish = "scale it down" if width and height else "give one that has some"
        raise ValueError(f"a picture of {width} x {height} pixels came, wanted 1 to {MOST_PIXELS:,} of them; {wish}")


def to_tensor(image: Image.Image) -> Float[Tensor, "3 height width"]:
    """One picture as colours in [0, 1], channels first."""
    return to_batch([image])[0]


def to_batch(images: Sequence[Image.Image]) -> Pictures:
    """Pictures of one size as a batch in [0, 1], channels first; in memory the channels come last."""
    rows = [np.asarray(image if image.mode == "RGB" else image.convert("RGB")) for image in images]
    return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).float() / 255


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture, read by `to_rgb`, at another width and height.
    Raises ValueError if the picture has another shape: nothing is cut off or stretched."""
    opaque = to_rgb(image)
    (width, height), (wanted_width, wanted_height) = opaque.size, size
    # A side may be off by the pixel that rounding makes, unless that is much of it.
    across, down = width * wanted_height, height * wanted_width
    if abs(across - down) > min(max(wanted_width, wanted_height), MOST_STRETCHED * max(across, down)):
        raise ValueError(
            f"the picture has {width} x {height} pixels and the model draws {wanted_width} x {wanted_height}; "
            "crop it to that shape"
        )
    return opaque if opaque.size == size else opaque.resize(size, Image.Resampling.LANCZOS)


def to_images(pictures: Pictures) -> list[Image.Image]:
    """Pictures in [0, 1] as 8-bit RGB images."""
    rows = (pictures.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(row) for row in rows]


def contact_sheet(images: Sequence[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    """Images of one size on a white sheet, row by row.
    Raises ValueError if there are none, or no columns."""
    check_pictures(images)
    width, height = images[0].size
    columns = min(whole_number("columns", columns), len(images))
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (gap + i % columns * (width + gap), gap + i // columns * (height + gap)))
    return sheet


def save_png(image: Image.Image, path: Path | str, text: Mapping[str, str]) -> None:
    """Write a picture and what there is to say of it, as the text chunks of a PNG; a file of that name is replaced.
    Raises OSError if it cannot be written; nothing half-written is left."""
    with fresh_file(path) as fresh:
        image.save(fresh, format="PNG", pnginfo=text_chunks(text))


def text_chunks(text: Mapping[str, str]) -> PngImagePlugin.PngInfo:
    """What there is to say of a picture, as Pillow writes it into a PNG."""
    chunks = PngImagePlugin.PngInfo()
    for name, content in text.items():
        chunks.add_text(name, content)
    return chunks


def read_png_text(path: Path) -> dict[str, str]:
    """What `save_png` wrote beside the picture.
    Raises OSError if there is no such file, or it is no PNG, or one that is damaged or too large."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            assert isinstance(image, PngImagePlugin.PngImageFile)
            return {name: str(content) for name, content in image.text.items()}  # also those behind the pixels
    except UnidentifiedImageError as error:
        raise OSError(f"{path} is no PNG, or a damaged one; give a PNG that Muse has written") from error
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise OSError(f"{path} is damaged or too large ({error}); get the picture again") from error


def save_animation(images: Sequence[Image.Image], path: Path | str, seconds: float = 3.0) -> None:
    """Write pictures as an animated WebP that shows them once in `seconds`, rests on the last and starts again.
    Raises ValueError if there are none, OSError if it cannot be written; nothing half-written is left."""
    check_pictures(images)
    durations = [max(1000 * seconds / len(images), 20)] * (len(images) - 1) + [1500]
    with fresh_file(path) as fresh:
        images[0].save(
            fresh, format="WEBP", save_all=True, append_images=images[1:], duration=[*map(int, durations)], loop=0
        )
