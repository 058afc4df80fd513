"""Any picture file as an 8-bit RGB square: what is converted, what is skipped, and a count of both."""

import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, features

from muse.images import FORMATS, as_rgb, orientation

SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".gif", ".bmp"),
        *(".tif", ".tiff", ".avif", ".jp2", ".ppm", ".tga"),
    )
)
"""How the names of picture files end."""
DATA_FORMATS = (*FORMATS, "AVIF", "JPEG2000", "TGA")
"""What is read of pictures to learn from or to compare with, whatever their names are; none runs foreign programs."""
NOT_READ = frozenset(
    (
        *(".heic", ".heif", ".hif", ".jxl", ".psd", ".xcf", ".svg", ".svgz"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw"),
        *(() if features.check("avif") else (".avif",)),
    )
)
"""Endings of pictures that are none of these, or that this Pillow was built without."""

CONVERTED = ("animated", "rotated", "transparent", "16-bit", "CMYK", "palette", "grey")
SKIPPED = ("damaged", "too large", "without a picture", "without a range")
"""The kinds of pictures, as they are counted."""
OF_16_BITS = ("PNG", "PPM")
"""Formats whose greys have 16 bits where Pillow gives them more."""
LONG = 16
"""Times as long as it is wide, from which a picture is scaled only where the square lies: it may be thousands."""


class Unusable(ValueError):
    """A picture or row that is skipped; the message is its kind, as it is counted."""


@dataclass
class Tally:
    """How many rows there were, and what was skipped, converted or cut."""

    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    converted: Counter[str] = field(default_factory=Counter)
    captions_cut: int = 0
    """Captions that are longer than the text encoder reads."""

    def add(self, other: "Tally") -> None:
        """Count what another has counted."""
        self.rows += other.rows
        self.skipped += other.skipped
        self.converted += other.converted
        self.captions_cut += other.captions_cut

    @property
    def used(self) -> int:
        """Rows that were not skipped."""
        return self.rows - self.skipped.total()

    def sentence(self, what: str = "pictures used") -> str:
        """All counts in one line; `what` says what the first two are of."""
        parts = [f"{self.used:,} of {self.rows:,} {what}"]
        for verb, counts in (("skipped", self.skipped), ("converted", self.converted)):
            if counts:
                parts.append(f"{verb} " + ", ".join(f"{num:,} {kind}" for kind, num in sorted(counts.items())))
        if self.captions_cut:
            parts.append(f"cut {self.captions_cut:,} captions to what the text encoder reads")
        return "; ".join(parts)


def read_picture(source: bytes | Path) -> tuple[Image.Image, frozenset[str]]:
    """A file as an upright 8-bit RGB picture, and the kinds of conversion that took.

    It is one of DATA_FORMATS, whatever its name. Of an animation the first frame; transparent parts are laid on white;
    16-bit greys are rounded to 8 bits; the camera's note of which way is up is obeyed. Raises Unusable if it cannot
    be read to its end, or holds numbers of which nobody says what white is."""
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=DATA_FORMATS) as image:
            kinds = kinds_of(image)
            image.load()
            if image.mode == "F" or (image.mode == "I" and image.format not in OF_16_BITS):
                raise Unusable("without a range")
            return as_rgb(image), kinds
    except Image.DecompressionBombError as error:
        raise Unusable("too large") from error
    except Unusable:
        raise
    except Exception as error:  # Pillow's readers raise as many kinds as there are formats
        raise Unusable("damaged") from error


def kinds_of(image: Image.Image) -> frozenset[str]:
    """How a picture differs from an upright 8-bit RGB one."""
    kinds = {
        "animated": getattr(image, "n_frames", 1) > 1,
        "rotated": orientation(image) != 1,
        "transparent": image.has_transparency_data,
        "16-bit": image.mode.startswith("I"),
        "CMYK": image.mode == "CMYK",
        "palette": image.mode == "P",
        "grey": image.mode in ("L", "1", "LA"),
    }
    return frozenset(kind for kind, is_so in kinds.items() if is_so)


def fit(image: Image.Image, size: int, place: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """A square of `size` pixels: the shorter side is scaled to it (Lanczos), then the longer one is cropped.
    `place` says where along the part that is too much, in [0, 1] from the left and from the top; half is the centre."""
    scale = size / min(image.size)
    width, height = (max(round(side * scale), size) for side in image.size)
    left, top = round((width - size) * place[0]), round((height - size) * place[1])
    if max(image.size) > LONG * min(image.size):
        (x0, y0), (x1, y1) = np.array([(left, top), (left + size, top + size)]) * image.size / (width, height)
        return image.resize((size, size), Image.Resampling.LANCZOS, (x0, y0, x1, y1), reducing_gap=3.0)
    scaled = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return scaled.crop((left, top, left + size, top + size))


def clean(captions: Iterable[str]) -> list[str]:
    """Captions without surrounding blanks, and without those that say nothing or hold NULs, as no text does."""
    stripped = (" ".join(caption.split()) for caption in captions)
    return [caption for caption in stripped if caption and "\0" not in caption]
