"""From what a request says to what the model is asked for."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from muse.apps.server.errors import ApiError, bad_value
from muse.apps.server.options import Serve
from muse.apps.server.pictures import MOST_SIDE
from muse.apps.server.wire import EditRequest, GenerationRequest, ImageRequest, VariationRequest
from muse.apps.wishes import Alteration, Drawing, alterations
from muse.canvas import Box, Margins, bounds, inpainting_windows, outpainting_windows
from muse.editing import CONTEXT
from muse.pipeline import Muse
from muse.requests import random_seeds
from muse.sampling import EditOptions, SamplingOptions

OF_MASKS = ("context",)
OF_SAMPLING = ("steps", "guidance_ramp", "sampler", "choice_noise", "remask")
OF_ITERATIONS = ("iterations", "share", "most_changed")
SIDES = ("left", "right", "top", "bottom")
STRENGTH = 0.5
"""How far variations go if a request does not say."""


@dataclass(frozen=True)
class Uploads:
    """The pictures of a form."""

    image: Image.Image
    mask: Image.Image | None


def drawings(muse: Muse, serve: Serve, asked: GenerationRequest) -> list[Drawing]:
    """Pictures of a prompt.
    Raises ApiError for what cannot be."""
    check(muse, serve, asked)
    size = check_size(asked, offered_sizes(muse))
    above = superres_options(muse, serve, asked) if size == muse.size else without_superres(asked)
    options = asked.options(muse.defaults, serve)
    made_by = (muse.name, muse.precision)
    return [
        Drawing(asked.prompt, seed, asked.negative_prompt, options, above, *made_by, asked.tried)
        for seed in seeds_of(asked)
    ]


def edits(muse: Muse, serve: Serve, asked: EditRequest, uploads: Uploads) -> list[Alteration]:
    """A picture widened where there are margins, filled where a mask or the picture itself is transparent, or else
    turned as a whole into what the prompt says.
    Raises ApiError for what cannot be."""
    check(muse, serve, asked)
    image, above = uploads.image, superres_options(muse, serve, asked)
    margins = {side: value for side in SIDES if (value := getattr(asked, side))}
    more = {"negative": asked.negative_prompt, "superres_options": above}
    if margins:
        if uploads.mask is not None:
            raise bad_value("mask", "a picture is either widened by margins, or filled by a mask")
        asked.refuse(OF_MASKS + OF_ITERATIONS, "it does not go with margins")
        size = check_widened(image.size, Margins(**margins), serve)
        inner = Box(margins.get("left", 0), margins.get("top", 0), *image.size)
        windows = partial(outpainting_windows, inner, size, muse.size)
        options = asked.options(muse.defaults, serve)
        make = partial(muse.outpaint, image, Margins(**margins), asked.prompt, options=options, **more)
        verb, told = "outpaint", {"margins": json.dumps(dataclasses.asdict(Margins(**margins)))}
    elif (hole := hole_of(uploads)) is not None:
        asked.refuse(OF_ITERATIONS, "it does not go with a mask")
        size, options = image.size, asked.options(muse.defaults, serve)
        context = CONTEXT if asked.context is None else asked.context
        windows = partial(inpainting_windows, bounds(np.asarray(hole) > 0), size, muse.size, context)
        make = partial(muse.inpaint, image, hole, asked.prompt, context=context, options=options, **more)
        verb, told = "inpaint", {"context": str(context)}
    else:
        asked.refuse(OF_MASKS + OF_SAMPLING, "it does not go with an edit of a whole picture; send a mask too")
        size, options, windows = image.size, asked.options(EditOptions(), serve), None
        make = partial(muse.edit, image, asked.prompt, options=options, **more)
        verb, told = "edit", {}
    check_size(asked, [size])
    if windows is not None:
        check_windows(serve, windows)
    stages = {"options": options, "superres_options": above}
    return alterations(muse, make, verb, seeds_of(asked), asked.prompt, asked.negative_prompt, stages, **told)


def variations(muse: Muse, serve: Serve, asked: VariationRequest, uploads: Uploads) -> list[Alteration]:
    """Pictures near a given one.
    Raises ApiError for what cannot be."""
    check(muse, serve, asked)
    check_size(asked, [uploads.image.size])
    if asked.negative_prompt is not None and asked.prompt is None:
        raise bad_value("negative_prompt", "it goes with a prompt")
    strength = STRENGTH if asked.strength is None else asked.strength
    options, above = asked.options(muse.defaults, serve), superres_options(muse, serve, asked)
    make = partial(
        muse.variations,
        uploads.image,
        strength,
        prompt=asked.prompt,
        negative=asked.negative_prompt,
        options=options,
        superres_options=above,
    )
    stages = {"options": options, "superres_options": above}
    seeds, more = seeds_of(asked), {"strength": str(strength)}
    return alterations(muse, make, "vary", seeds, asked.prompt, asked.negative_prompt, stages, **more)


def seeds_of(asked: ImageRequest) -> list[int]:
    """Seeds counting up from the one that is given, or random ones."""
    return random_seeds(asked.num) if asked.seed is None else [asked.seed + i * asked.tried for i in range(asked.num)]


def superres_options(muse: Muse, serve: Serve, asked: ImageRequest) -> SamplingOptions | None:
    """The options of super-resolution, if the model has it.
    Raises ApiError if they are given and it has not."""
    if muse.superres is None:
        return without_superres(asked)
    return asked.options(muse.superres_defaults, serve, "superres_")


def without_superres(asked: ImageRequest) -> None:
    """Raises ApiError if options of super-resolution are given where none is drawn."""
    for name in asked.given(SamplingOptions, "superres_"):
        raise bad_value(f"superres_{name}", "no super-resolution is drawn")


def hole_of(uploads: Uploads) -> Image.Image | None:
    """Where a picture is to be filled, in white: where its mask is wholly transparent, or else it is itself.
    None if it is nowhere. Raises ApiError if the mask is of no use."""
    image, mask = uploads.image, uploads.mask
    if mask is not None:
        if not mask.has_transparency_data:
            raise bad_value("mask", "it has no transparency; the picture is filled where the mask is transparent")
        if mask.size != image.size:
            sizes = f"the mask has {size_name(mask.size)} pixels and the image {size_name(image.size)}"
            raise bad_value("mask", f"{sizes}; send them in one size")
    elif not image.has_transparency_data:
        return None
    alpha = np.asarray((image if mask is None else mask).convert("RGBA"))[:, :, 3]
    if (alpha > 0).all():
        if mask is not None:
            raise bad_value("mask", "nothing in it is wholly transparent, so there is nothing to fill")
        return None
    return Image.fromarray(np.where(alpha == 0, 255, 0).astype(np.uint8))


# -- looking at a request -----------------------------------------------------------------------------------------


def check(muse: Muse, serve: Serve, asked: ImageRequest) -> None:
    """Raises ApiError for what this server does not do, or for another model."""
    asked.check(serve)
    check_model(muse, asked.model)


def check_model(muse: Muse, name: str | None) -> None:
    """Raises ApiError if another model is asked for."""
    if name not in (None, muse.name):
        message = f"There is no model of that name here; leave it out, or ask for '{muse.name}'."
        raise ApiError(404, message, param="model", code="model_not_found")


def offered_sizes(muse: Muse) -> list[tuple[int, int]]:
    """Sizes that pictures of a prompt can have; the first one is the model's own."""
    return list(dict.fromkeys([muse.size, muse.low_size]))


def check_size(asked: ImageRequest, offered: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size that is asked for, by default the first one.
    Raises ApiError if it is not offered, or too large for the format."""
    names = [size_name(size) for size in offered]
    if asked.size not in (None, "auto", *names):
        raise bad_value("size", f"ask for {' or '.join(names)}, or for 'auto'")
    size = offered[names.index(asked.size) if asked.size in names else 0]
    most = MOST_SIDE.get(asked.format, math.inf)
    if max(size) > most:
        problem = f"the picture has {size_name(size)} pixels and {asked.format} has room for {most} a side; ask for png"
        raise bad_value("output_format", problem)
    return size


def check_widened(size: tuple[int, int], margins: Margins, serve: Serve) -> tuple[int, int]:
    """The size that a picture grows to.
    Raises ApiError if that is too large."""
    wide = (size[0] + margins.left + margins.right, size[1] + margins.top + margins.bottom)
    if wide[0] * wide[1] > serve.max_megapixels * 1e6:
        problem = f"the picture would grow to {size_name(wide)}, and at most {serve.max_megapixels:g} million pixels go"
        side = next(side for side in SIDES if getattr(margins, side))
        raise bad_value(side, problem)
    return wide


def check_windows(serve: Serve, windows: Callable[[], Sequence[Box]]) -> None:
    """Raises ApiError if a picture would be drawn in more windows than this server draws."""
    try:
        num = len(windows())
    except ValueError as error:
        raise bad_value("image", str(error)) from error
    if num > serve.max_windows:
        problem = f"it would be drawn in {num:,} windows one after the other, and at most {serve.max_windows:,} go"
        raise bad_value("image", f"{problem}; send a picture that is less long and thin, or fill less of it")


def size_name(size: tuple[int, int]) -> str:
    """Width and height as the API writes them."""
    return f"{size[0]}x{size[1]}"
