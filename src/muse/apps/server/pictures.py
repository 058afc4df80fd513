"""Pictures on the wire: uploads opened with care, answers encoded, and those that are handed out by address."""

import io
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal

from PIL import Image

from muse.apps.server.errors import ApiError, bad_value
from muse.images import text_chunks, upright

Format = Literal["png", "webp", "jpeg"]
READABLE = ("PNG", "WEBP", "JPEG")
"""What the API takes. Nothing else is even tried: no SVG, no PostScript."""
MOST_SIDE: Mapping[Format, int] = {"webp": 16_383, "jpeg": 65_500}
"""Pixels of a side that a format has room for, JPEG in libjpeg; a PNG has room for all that is drawn."""


def open_picture(file: BinaryIO, param: str, max_pixels: float) -> Image.Image:
    """An uploaded picture, turned as its EXIF data says; of an animation the first frame.
    Raises ApiError if it is none, is damaged, or has too many pixels; those are counted before any is unpacked."""
    try:
        image = Image.open(file, formats=READABLE)
        if image.width * image.height > max_pixels:
            limit = f"at most {max_pixels / 1e6:g} million pixels are taken"
            raise bad_value(param, f"the picture has {image.width} x {image.height} pixels; {limit}")
        return upright(image)
    except ApiError:
        raise
    except Image.DecompressionBombError as error:
        raise bad_value(param, "the picture has far too many pixels") from error
    except Exception as error:  # a damaged picture fails in as many ways as Pillow has decoders
        raise bad_value(param, "it is no PNG, WebP or JPEG picture, or a damaged one") from error


def encode(image: Image.Image, format_: Format, quality: int, text: Mapping[str, str]) -> bytes:
    """A picture as a file, with its colour profile; a PNG also says how it was made. `quality` is for the others, 0 to
    100."""
    file = io.BytesIO()
    if format_ == "png":
        image.save(file, format="PNG", pnginfo=text_chunks(text))
    else:
        profile = image.info.get("icc_profile")
        image.convert("RGB").save(file, format=format_.upper(), quality=quality, icc_profile=profile)
    return file.getvalue()


@dataclass(frozen=True)
class StoredPicture:
    """A file that can be had by address until a time."""

    content: bytes
    media_type: str
    until: float


class PictureStore:
    """Pictures by names that nobody guesses, in bounded memory and for a bounded time; the oldest go first."""

    def __init__(self, max_bytes: float, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.max_bytes, self.seconds, self.clock = max_bytes, seconds, clock
        self.num_bytes = 0
        self._pictures: OrderedDict[str, StoredPicture] = OrderedDict()

    def put(self, content: bytes, format_: Format) -> str:
        """Keep a picture; its name."""
        name = f"{secrets.token_urlsafe(24)}.{format_}"
        self._pictures[name] = StoredPicture(content, f"image/{format_}", self.clock() + self.seconds)
        self.num_bytes += len(content)
        self._forget_old()
        return name

    def get(self, name: str) -> StoredPicture | None:
        """The picture of a name, if it is still there."""
        self._forget_old()
        return self._pictures.get(name)

    def _forget_old(self) -> None:
        while self._pictures:
            oldest = next(iter(self._pictures.values()))
            if oldest.until > self.clock() and self.num_bytes <= self.max_bytes:
                return
            self._pictures.popitem(last=False)
            self.num_bytes -= len(oldest.content)
