"""PIL pictures to tensors and back, and to files that say how they were made."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, PngImagePlugin
from torch import Tensor

from muse.shapes import Pictures


def to_tensor(image: Image.Image) -> Float[Tensor, "3 height width"]:
    """One picture as colours in [0, 1], channels first."""
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1).float() / 255


def to_images(pictures: Pictures) -> list[Image.Image]:
    """Pictures in [0, 1] as 8-bit RGB images."""
    rows = (pictures.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(row) for row in rows]


def contact_sheet(images: Sequence[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    """Images of one size on a white sheet, row by row.
    Raises ValueError if there are none."""
    if not images:
        raise ValueError("a contact sheet needs at least one picture; none came")
    width, height = images[0].size
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (gap + i % columns * (width + gap), gap + i // columns * (height + gap)))
    return sheet


@contextmanager
def fresh_file(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the name `path` once it is whole; if anything goes wrong, nothing is left."""
    fresh = path.with_name(path.name + ".tmp")
    try:
        yield fresh
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def save_png(image: Image.Image, path: Path, text: Mapping[str, str]) -> None:
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
    Raises OSError if there is no such file, or it is no PNG."""
    with Image.open(path, formats=["PNG"]) as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        return {name: str(content) for name, content in image.text.items()}  # also those behind the pixels


def save_animation(images: Sequence[Image.Image], path: Path, seconds: float = 3.0) -> None:
    """Write pictures as an animated WebP that shows them once in `seconds`, rests on the last and starts again.
    Raises OSError if it cannot be written; nothing half-written is left."""
    durations = [max(1000 * seconds / len(images), 20)] * (len(images) - 1) + [1500]
    with fresh_file(path) as fresh:
        images[0].save(
            fresh, format="WEBP", save_all=True, append_images=images[1:], duration=[*map(int, durations)], loop=0
        )
