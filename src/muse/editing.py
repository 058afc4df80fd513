"""The verbs of `Muse` that start from a picture: fill a hole, widen, edit without a mask, vary.
Muse (arXiv:2301.00704), its section on image editing. None of them trains anything or inverts the picture."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from muse.canvas import (
    Box,
    Hole,
    Margins,
    Pixels,
    Size,
    View,
    bounds,
    box_hole,
    crop,
    hidden_cells,
    inpainting_windows,
    mask_hole,
    outpainting_windows,
    paste,
    view,
    whole_view,
    whole_window,
    widen,
    windows_in_use,
)
from muse.images import to_rgb
from muse.models.layers import Texts, Words
from muse.models.superres import SuperResConfig, SuperResTransformer
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN
from muse.requests import check_guidance, check_kind, check_request, check_seeds, is_number, random_seeds
from muse.sampling import EditOptions, SamplingOptions, StepReport, edit, generators_for, given_or, hide_share
from muse.shapes import LowTokens, Predict, Step, Tokens

CONTEXT = 2.0
"""Sides of a window for each side of its hole."""
HIDING_STREAM = 1 << 30
"""Flipped in a seed, it gives the choice of what a variation hides other noise than drawing has."""
WINDOW_STREAM = 0x9E3779B1
"""Added to a seed for each further window; a generator reads 32 bits of its seed."""


@dataclass(frozen=True)
class Preview:
    """What a picture looks like after one step; tokens still hidden are grey."""

    step: Step
    images: list[Image.Image]


@dataclass(frozen=True)
class Progress:
    """How far an edit is after a step of either network."""

    done: int
    total: int
    stage: Literal["base", "superres"]
    """The network whose step it was; a mask-free edit that stops early goes on to super-resolution at once."""
    show: Callable[[], list[Image.Image]]
    """Paints what stands now, at the size of the result, as long as the callback has not returned.
    What is still hidden is grey; what super-resolution has not seen yet is coarse."""


Watcher = Callable[[Progress], None]
Watch = Callable[[StepReport], None] | None
Options = tuple[SamplingOptions, SamplingOptions]
"""Of the base and of super-resolution."""
Views = dict[Size, list[View]]
"""What each picture shows through one window, at the size of each canvas."""


@dataclass(frozen=True)
class Wish:
    """What shall be drawn: a prompt and perhaps a negative one, read, and a seed for each picture."""

    text: Texts
    """Prompts of all pictures, then their negatives if there are any; none at all if there is no prompt."""
    is_word: Words
    seeds: tuple[int, ...]

    def at_window(self, turn: int) -> "Wish":
        """The same with other noise for each window; that of the first is the seed's own."""
        return replace(self, seeds=tuple((seed + turn * WINDOW_STREAM) % 2**63 for seed in self.seeds))


@dataclass(frozen=True)
class Draft:
    """A picture that is edited update by update."""

    tokens: Tokens
    """Its low-resolution tokens."""
    window: Box
    size: Size


class Editing(ABC):
    """Edits pictures of any size with networks that draw at one size; `Muse` brings the networks.

    Every picture is read by `muse.images.to_rgb` first: upright, 8-bit RGB, what is transparent laid on white; to be
    exactly as it was means as it was read. Seeds are random if none are given, and each picture is what it would be
    if it were drawn alone."""

    text_encoder: TextEncoder
    vqgan: VQGAN
    base: MaskedTransformer
    superres: SuperResTransformer | None
    defaults: SamplingOptions
    superres_defaults: SamplingOptions

    # -- the verbs ----------------------------------------------------------------------------------------------------

    def inpaint(
        self,
        image: Image.Image,
        mask: Image.Image | Box,
        prompt: str,
        seeds: Sequence[int] | None = None,
        *,
        negative: str | None = None,
        context: float = CONTEXT,
        options: SamplingOptions | None = None,
        superres_options: SamplingOptions | None = None,
        callback: Watcher | None = None,
    ) -> list[Image.Image]:
        """Fill the white part of a mask, or a box, with what the prompt says: one picture for each seed.

        The model sees a window `context` times as long as the hole (`muse.canvas.inpainting_windows`). Outside the hole
        every pixel is exactly what it was; inside, colours are led over to those around.
        Raises ValueError if the mask has another size or is empty, the box is not wholly on the picture, or the picture
        or the request cannot be used."""
        picture = to_rgb(image)
        check_kind("the mask", mask, Image.Image | Box, "a PIL picture, white where it shall be filled, or a Box")
        is_box = isinstance(mask, Box)
        is_hole = box_hole(mask, picture.size) if is_box else mask_hole(to_rgb(mask, "black"), picture.size)
        check_context(context)
        windows = inpainting_windows(bounds(is_hole), picture.size, self.size, float(context))
        wish, both = self._wish(prompt, negative, seeds), self._options(options, superres_options)
        return with_profile(self._fill(np.asarray(picture), is_hole, windows, wish, both, callback), picture)

    def outpaint(
        self,
        image: Image.Image,
        margins: Margins,
        prompt: str,
        seeds: Sequence[int] | None = None,
        *,
        negative: str | None = None,
        options: SamplingOptions | None = None,
        superres_options: SamplingOptions | None = None,
        callback: Watcher | None = None,
    ) -> list[Image.Image]:
        """Widen a picture by margins that show what the prompt says: one picture for each seed.

        Margins of any size are filled window by window, from the picture outwards, each half over what is known already
        (`muse.canvas.outpainting_windows`). Every pixel of the picture itself is exactly what it was.
        Raises ValueError if the result is too large, or the picture or the request cannot be used."""
        picture = to_rgb(image)
        check_kind("margins", margins, Margins, "muse.canvas.Margins")
        pixels, is_hole = widen(picture, margins)
        inner = Box(margins.left, margins.top, *picture.size)
        windows = outpainting_windows(inner, (pixels.shape[1], pixels.shape[0]), self.size)
        wish, both = self._wish(prompt, negative, seeds), self._options(options, superres_options)
        return with_profile(self._fill(pixels, is_hole, windows, wish, both, callback), picture)

    def edit(
        self,
        image: Image.Image,
        prompt: str,
        seeds: Sequence[int] | None = None,
        *,
        negative: str | None = None,
        options: EditOptions | None = None,
        superres_options: SamplingOptions | None = None,
        callback: Watcher | None = None,
    ) -> list[Image.Image]:
        """Turn a whole picture into what the prompt says, little by little and without a mask: one for each seed.

        The prompt says what the result shows. Each iteration draws a few of the low-resolution tokens again; at the end
        all high-resolution tokens are drawn. Fewer iterations keep more of the picture.
        Raises ValueError if the picture or the request cannot be used. Muse, on mask-free editing."""
        picture = to_rgb(image)
        options, above = given_or("options", options, EditOptions()), self._above(superres_options)
        wish, draft = self._wish(prompt, negative, seeds), self.draft(picture)
        watch = self._watch(callback, options.iterations, above, draft)
        low = self._iterate(draft.tokens.repeat(len(wish.seeds), 1), wish, options, watch)
        return with_profile(cropped(self._finish(low, wish, above, watch), draft), picture)

    def variations(
        self,
        image: Image.Image,
        strength: float = 0.5,
        seeds: Sequence[int] | None = None,
        *,
        prompt: str | None = None,
        negative: str | None = None,
        options: SamplingOptions | None = None,
        superres_options: SamplingOptions | None = None,
        callback: Watcher | None = None,
    ) -> list[Image.Image]:
        """Pictures near a given one, one for each seed, drawn from a part of its tokens.

        The strength is the share of tokens that are drawn again: at 0 none are, and the picture is only encoded and
        decoded; at 1 all are. What one strength draws again, every greater one does too, for the same seed.
        Without a prompt nothing but the kept tokens says what is drawn.
        Raises ValueError if the strength is not in [0, 1], or the picture or the request cannot be used."""
        picture = to_rgb(image)
        options, above = self._options(options, superres_options)
        if prompt is None and negative is not None:
            raise ValueError("a negative prompt came without a prompt; give both, or neither")
        wish = self._no_wish(seeds) if prompt is None else self._wish(prompt, negative, seeds)
        draft = self.draft(picture)
        watch = self._watch(callback, options.steps, above, draft)
        hiding = generators_for([seed ^ HIDING_STREAM for seed in wish.seeds])
        mask_id = self.base.config.mask_id
        start = hide_share(draft.tokens.repeat(len(wish.seeds), 1), strength, mask_id, hiding)
        low = self.draw_base(wish.text, wish.is_word, wish.seeds, options, watch, start)
        images = self._finish(low, wish, above, watch, self._kept(picture, draft, start == mask_id))
        return with_profile(cropped(images, draft), picture)

    # -- update by update ---------------------------------------------------------------------------------------------

    def draft(self, image: Image.Image) -> Draft:
        """A picture to be edited update by update.
        Raises ValueError if it is too large, or too long to be seen as a whole."""
        picture = to_rgb(image)
        window = whole_window(picture.size, self.size)
        tokens = self._encode(self.vqgan, [whole_view(picture, window, self.low_size)])
        return Draft(tokens, window, picture.size)

    def update(
        self,
        draft: Draft,
        prompt: str,
        seed: int,
        *,
        negative: str | None = None,
        options: EditOptions | None = None,
        superres_options: SamplingOptions | None = None,
    ) -> tuple[Draft, Image.Image]:
        """One iteration of `edit`, and the picture: one pass of the base and those of super-resolution, 8 by default.
        Give each update another seed. Its quick counterpart with a mask is `inpaint` with one step of the base.
        Raises ValueError if the request cannot be used. Muse, on interactive editing."""
        check_kind("the draft", draft, Draft, "what Muse.draft made")
        options, above = given_or("options", options, EditOptions()), self._above(superres_options)
        wish = self._wish(prompt, negative, [seed])
        low = self._iterate(draft.tokens, wish, replace(options, iterations=1))
        images = self._finish(low, wish, above)
        return replace(draft, tokens=low), cropped(images, draft)[0]

    # -- what the verbs share -----------------------------------------------------------------------------------------

    def _wish(self, prompt: str, negative: str | None, seeds: Sequence[int] | None) -> Wish:
        """Raises ValueError for what cannot be drawn."""
        seeds = own_seeds(seeds)
        num = len(seeds)
        check_request([prompt] * num, seeds, None if negative is None else [negative] * num)
        text, is_word = self.text_encoder.read_each([prompt] if negative is None else [prompt, negative])
        return Wish(text.repeat_interleave(num, 0), is_word.repeat_interleave(num, 0), tuple(seeds))

    def _no_wish(self, seeds: Sequence[int] | None) -> Wish:
        """A wish for anything. Raises ValueError for seeds that are none."""
        text = torch.zeros(0, 1, self.base.config.text_dim, device=self.device)
        is_word = torch.zeros(0, 1, dtype=torch.bool, device=self.device)
        return Wish(text, is_word, tuple(own_seeds(seeds)))

    def _options(self, options: SamplingOptions | None, above: SamplingOptions | None) -> Options:
        """Raises ValueError for options of another kind."""
        return given_or("options", options, self.defaults), self._above(above)

    def _above(self, options: SamplingOptions | None) -> SamplingOptions:
        """Options of super-resolution. Raises ValueError for those of another kind."""
        return given_or("superres_options", options, self.superres_defaults)

    def _fill(
        self,
        pixels: Pixels,
        is_hole: Hole,
        windows: Sequence[Box],
        wish: Wish,
        options: Options,
        callback: Watcher | None,
    ) -> list[Image.Image]:
        """Fill a hole window by window; what one has filled is known to the next."""
        results, is_left = [pixels.copy() for _ in wish.seeds], is_hole.copy()
        windows = windows_in_use(windows, is_hole)
        total = len(windows) * self._num_steps(options[0].steps, options[1])
        for turn, window in enumerate(windows):
            is_drawn = is_hole & ~is_left
            views = {size: [view(each, is_left, window, size, is_drawn) for each in results] for size in self._scales}
            show = partial(self._show_hole, results, is_left, is_drawn, window, views)
            watch = watcher(callback, turn * total // len(windows), total, show)
            images = self._draw_hole(views, is_left, window, wish.at_window(turn), options, watch)
            paste_all(results, is_left, is_drawn, window, views[self.size], images)
            is_left[window.inside((pixels.shape[1], pixels.shape[0]))] = False
        return [Image.fromarray(each) for each in results]

    def _draw_hole(
        self, views: Views, is_hole: Hole, window: Box, wish: Wish, options: Options, watch: Watch
    ) -> list[Image.Image]:
        """Draw the tokens of both scales that touch a hole, the others as they are; pictures at the model's size."""
        start = self._start(self.base.config, self.vqgan, views[self.low_size], is_hole, window)
        low = self.draw_base(wish.text, wish.is_word, wish.seeds, options[0], watch, start)
        if self.superres is None:
            return self.to_images(low)
        superres, vqgan = self.high
        start = self._start(superres.config, vqgan, views[self.size], is_hole, window)
        return self._finish(low, wish, options[1], watch, start)

    def _start(
        self,
        config: TransformerConfig | SuperResConfig,
        vqgan: VQGAN,
        views: Sequence[View],
        is_hole: Hole,
        window: Box,
    ) -> Tokens:
        """The tokens of each view, hidden where they touch the hole."""
        cells = hidden_cells(is_hole, window, config.height, config.width).to(self.device)
        return self._encode(vqgan, views).masked_fill(cells.flatten(), config.mask_id)

    def _show_hole(
        self,
        results: Sequence[Pixels],
        is_left: Hole,
        is_drawn: Hole,
        window: Box,
        views: Views,
        report: StepReport,
    ) -> list[Image.Image]:
        """What stands after a step, pasted into copies of the results."""
        copies = [each.copy() for each in results]
        seen = views[self.low_size if report.stage == "base" else self.size]
        paste_all(copies, is_left, is_drawn, window, seen, self.preview(report).images)
        return [Image.fromarray(each) for each in copies]

    @torch.no_grad()
    def _iterate(self, tokens: Tokens, wish: Wish, options: EditOptions, watch: Watch = None) -> Tokens:
        """The mask-free loop on low-resolution tokens."""
        check_guidance(options.guidance, has_negatives=len(wish.text) == 2 * len(wish.seeds))
        guidance = SamplingOptions(guidance=options.guidance, guidance_ramp="constant", refresh=options.refresh)
        predict = self.predict_base(wish.text, wish.is_word, len(tokens), guidance)
        return edit(tokens, predict, options, generators_for(wish.seeds), self.base.config.mask_id, watch)

    def _finish(
        self, low: LowTokens, wish: Wish, options: SamplingOptions, watch: Watch = None, start: Tokens | None = None
    ) -> list[Image.Image]:
        """Pictures of low-resolution tokens, through super-resolution if there is one."""
        if self.superres is None:
            return self.to_images(low)
        return self.to_large_images(self.draw_superres(low, wish.text, wish.is_word, wish.seeds, options, watch, start))

    def _kept(self, picture: Image.Image, draft: Draft, is_hidden: Bool[Tensor, "batch low"]) -> Tokens | None:
        """High-resolution tokens of a picture, hidden where its low-resolution ones are; None without super-resolution.
        The high-resolution grid is the low-resolution one, some whole or broken number of times as large."""
        if self.superres is None:
            return None
        (superres, vqgan), low = self.high, self.base.config
        rows = torch.arange(superres.config.height, device=self.device) * low.height // superres.config.height
        columns = torch.arange(superres.config.width, device=self.device) * low.width // superres.config.width
        cells = is_hidden.reshape(len(is_hidden), low.height, low.width)[:, rows][:, :, columns].flatten(1)
        own = self._encode(vqgan, [whole_view(picture, draft.window, self.size)])
        return own.repeat(len(cells), 1).masked_fill(cells, superres.config.mask_id)

    @torch.no_grad()
    def _encode(self, vqgan: VQGAN, views: Sequence[View]) -> Tokens:
        """Tokens of each view, encoded alone: beside others a latent between two codes might fall to the other one."""
        return torch.cat([vqgan.encode(each.picture[None].to(self.device)) for each in views])

    @property
    def _scales(self) -> set[Size]:
        """One size of canvas, or with super-resolution two."""
        return {self.low_size, self.size}

    def _num_steps(self, base_steps: int, above: SamplingOptions) -> int:
        return base_steps + (above.steps if self.superres is not None else 0)

    def _watch(self, callback: Watcher | None, base_steps: int, above: SamplingOptions, draft: Draft) -> Watch:
        """What shows the steps of an edit of a whole picture."""

        def show(report: StepReport) -> list[Image.Image]:
            return cropped(self.preview(report).images, draft)

        return watcher(callback, 0, self._num_steps(base_steps, above), show)

    # -- what `Muse` brings -------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abstractmethod
    def size(self) -> Size:
        """Width and height of the pictures that are drawn, in pixels."""

    @property
    @abstractmethod
    def low_size(self) -> Size:
        """The same before super-resolution."""

    @property
    @abstractmethod
    def high(self) -> tuple[SuperResTransformer, VQGAN]:
        """Super-resolution and its VQGAN. Raises ValueError if there are none."""

    @abstractmethod
    def predict_base(self, text: Texts, is_word: Words, num: int, options: SamplingOptions) -> Predict: ...

    @abstractmethod
    def draw_base(
        self,
        text: Texts,
        is_word: Words,
        seeds: Sequence[int],
        options: SamplingOptions,
        callback: Watch = None,
        start: Tokens | None = None,
    ) -> Tokens: ...

    @abstractmethod
    def draw_superres(
        self,
        low: LowTokens,
        text: Texts,
        is_word: Words,
        seeds: Sequence[int],
        options: SamplingOptions,
        callback: Watch = None,
        start: Tokens | None = None,
    ) -> Tokens: ...

    @abstractmethod
    def to_images(self, tokens: Tokens) -> list[Image.Image]: ...

    @abstractmethod
    def to_large_images(self, tokens: Tokens) -> list[Image.Image]: ...

    @abstractmethod
    def preview(self, report: StepReport) -> Preview: ...


def own_seeds(seeds: Sequence[int] | None) -> list[int]:
    """The seeds of some pictures, or a random one.
    Raises ValueError if there are none, or one is none."""
    if seeds is None:
        return random_seeds(1)
    if not (own := check_seeds(seeds)):
        raise ValueError("no seed came; give one for each picture, or leave them out")
    return own


def paste_all(
    results: Sequence[Pixels],
    is_left: Hole,
    is_drawn: Hole,
    window: Box,
    views: Sequence[View],
    images: Sequence[Image.Image],
) -> None:
    """Paste each picture into its result, in place."""
    for pixels, seen, image in zip(results, views, images, strict=True):
        paste(pixels, is_left, window, seen, image, is_drawn)


def cropped(images: Sequence[Image.Image], draft: Draft) -> list[Image.Image]:
    """Pictures of the model's size at that of the picture that they came from."""
    return [crop(image, draft.window, draft.size) for image in images]


def watcher(callback: Watcher | None, done: int, total: int, show: Callable[[StepReport], list[Image.Image]]) -> Watch:
    """What tells a callback of every step, counted on from `done`."""
    if callback is None:
        return None
    counter = itertools.count(done + 1)

    def watch(report: StepReport) -> None:
        callback(Progress(next(counter), total, report.stage, lambda: show(report)))

    return watch


def with_profile(images: list[Image.Image], picture: Image.Image) -> list[Image.Image]:
    """Pictures with the colour profile of another."""
    for image in images:
        image.info.update(picture.info)
    return images


def check_context(context: float) -> None:
    """Raises ValueError for what is no number from 1."""
    if not is_number(context) or not 1 <= context < math.inf:
        raise ValueError(
            f"context is {context!r}; give a number of at least 1: sides of the window for one of the hole"
        )
