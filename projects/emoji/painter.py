"""Pictures for VQGAN training, painted where the network is: no processor paints fast enough for a GPU.

The scenes are those of `scenes.py` in kind and share (one thing, or two to four in cells, on white or a named colour),
without words and without its fine rules of placement: a VQGAN reads no captions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from muse.shapes import Pictures
from projects.emoji.captions import BACKGROUNDS
from projects.emoji.dataset import EmojiArt
from projects.emoji.scenes import GAP, SMALLEST_COPY, SMALLEST_SCALE

CELLS = 4
"""Things in a picture at most; each scene leaves those that it has not unpainted."""


@dataclass(frozen=True)
class Placements:
    """What is painted where, all in sides of the picture; things are painted in order and need not all be there."""

    items: Int[Tensor, "batch cell"]
    centres: Float[Tensor, "batch cell 2"]
    """x and y."""
    sides: Float[Tensor, "batch cell"]
    is_there: Bool[Tensor, "batch cell"]
    backgrounds: Float[Tensor, "batch 3"]


class Painter:
    """Batches of painted pictures in [0, 1], a function of the step alone: `batch_at` of a VQGAN's training."""

    def __init__(
        self,
        art: EmojiArt,
        pictures: Sequence[int],
        batch: int,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        singles: float = 0.6,
        named_background: float = 0.5,
    ):
        self.batch, self.seed, self.device = batch, seed, torch.device(device)
        self.singles, self.named_background = singles, named_background
        whole = torch.from_numpy(np.stack([art.pictures[index] for index in pictures])).permute(0, 3, 1, 2)
        self.whole: UInt8[Tensor, "item 4 size size"] = premultiplied(whole).to(self.device)
        # Things in cells are at most half as large; a picture of half the size keeps them free of jagged edges.
        self.half: UInt8[Tensor, "item 4 half half"] = halved(self.whole)
        self.colours = torch.tensor(list(BACKGROUNDS.values()), device=self.device) / 255

    @property
    def size(self) -> int:
        """Side of a picture in pixels."""
        return self.whole.shape[-1]

    def __call__(self, step: int) -> Pictures:
        """The batch of a step."""
        generator = torch.Generator(self.device).manual_seed(hash((self.seed, step)))
        return self.paint(self.place(generator))

    def place(self, generator: torch.Generator) -> Placements:
        """Draw what is painted where."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(self.batch, *shape, generator=generator, device=self.device)

        is_single = uniform() < self.singles
        cells, is_there = self._cells(uniform(), uniform())
        room = torch.where(is_single, 1.0, 0.5 - GAP)
        smallest = torch.where(is_single, SMALLEST_SCALE, SMALLEST_COPY)
        sides = room[:, None] * (smallest[:, None] + (1 - smallest[:, None]) * uniform(CELLS))
        centres = torch.where(is_single[:, None, None], 0.5, cells)
        centres = centres + (uniform(CELLS, 2) - 0.5) * (room[:, None] - sides)[..., None]
        first_only = torch.arange(CELLS, device=self.device) == 0
        colours = self.colours[(uniform() * len(self.colours)).long()]
        return Placements(
            items=(uniform(CELLS) * len(self.whole)).long(),
            centres=centres,
            sides=sides,
            is_there=torch.where(is_single[:, None], first_only, is_there),
            backgrounds=torch.where(uniform(1) < self.named_background, colours, 1.0),
        )

    def _cells(self, layout: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        """Centres of cells, in a row, in a column or in two of each, and which of them hold something."""
        row = torch.tensor([[0.25, 0.5], [0.75, 0.5], [0.5, 0.5], [0.5, 0.5]], device=self.device)
        corners = torch.tensor([[0.25, 0.25], [0.75, 0.75], [0.75, 0.25], [0.25, 0.75]], device=self.device)
        kinds = torch.stack([row, row.flip(-1), corners])
        kind = (layout * len(kinds)).long()
        most = torch.where(kind == 2, 4, 2)
        count = 2 + (number * (most - 1)).long()
        return kinds[kind], torch.arange(CELLS, device=self.device) < count[:, None]

    @torch.no_grad()
    def paint(self, placements: Placements) -> Pictures:
        """Paint things over plain backgrounds, bilinearly scaled."""
        size = self.size
        canvas = placements.backgrounds[:, :, None, None].expand(-1, -1, size, size)
        for cell in range(placements.items.shape[1]):
            items, sides = placements.items[:, cell], placements.sides[:, cell]
            is_small = (sides <= 0.5)[:, None, None, None]
            grid = sampling_grid(placements.centres[:, cell], sides, size)
            large, small = (
                F.grid_sample(art[items].float() / 255, grid, padding_mode="zeros", align_corners=False)
                for art in (self.whole, self.half)
            )
            thing = torch.where(is_small, small, large) * placements.is_there[:, cell, None, None, None]
            canvas = thing[:, :3] + canvas * (1 - thing[:, 3:])
        return canvas.clamp(0, 1)


def premultiplied(pictures: UInt8[Tensor, "item 4 h w"]) -> UInt8[Tensor, "item 4 h w"]:
    """Colours times alpha, so that scaling mixes no colour of what cannot be seen."""
    alpha = pictures[:, 3:].float() / 255
    return torch.cat([(pictures[:, :3] * alpha).round().to(torch.uint8), pictures[:, 3:]], dim=1)


def halved(pictures: UInt8[Tensor, "item 4 h w"]) -> UInt8[Tensor, "item 4 h2 w2"]:
    """Pictures at half the size, a thousand at a time, as all of them in float32 are four times as large."""
    parts = [F.avg_pool2d(part.float(), 2).round().to(torch.uint8) for part in pictures.split(1000)]
    return torch.cat(parts)


def sampling_grid(
    centres: Float[Tensor, "batch 2"], sides: Float[Tensor, " batch"], size: int
) -> Float[Tensor, "batch size size 2"]:
    """For each pixel of a picture, where in the thing it looks, in [-1, 1] within the thing."""
    pixels = (torch.arange(size, device=centres.device) + 0.5) / size
    x, y = ((pixels - centre[:, None]) * 2 / sides[:, None] for centre in centres.unbind(-1))
    return torch.stack(
        [x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)],
        dim=-1,
    )
