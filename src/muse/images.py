"""PIL pictures to tensors and back."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from jaxtyping import Float
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
