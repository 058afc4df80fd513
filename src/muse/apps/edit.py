"""The commands that start from a picture: `muse inpaint`, `muse outpaint`, `muse edit` and `muse vary`."""

import dataclasses
import json
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from muse.apps.drawing import (
    BATCH,
    MOST_FRAMES,
    NEGATIVE,
    Drawing,
    SamplingFlags,
    Stages,
    SuperresFlags,
    Watch,
    given,
    preview_size,
)
from muse.requests import told_path

if TYPE_CHECKING:
    from PIL import Image
    from tqdm import tqdm

    from muse.canvas import Box, Margins
    from muse.editing import Progress
    from muse.pipeline import Muse
    from muse.sampling import EditOptions

MOST_SIDE_BY_SIDE = 40_000_000
"""Pixels of all pictures of a batch, so that large ones do not fill the memory."""
BOX = tyro.conf.arg(metavar="X Y W H", help_behavior_hint="(or --mask)")
MASK = tyro.conf.arg(metavar="PATH", help_behavior_hint="(or --box)")
AT = tyro.conf.arg(metavar="INT INT ...", help_behavior_hint="(optional)")
CHANGED = tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: never)")
TOP_K = tyro.conf.arg(metavar="INT")


@dataclass(frozen=True, kw_only=True)
class FromPicture(Drawing):
    """What every command that starts from a picture shares."""

    if TYPE_CHECKING:
        image: Path  # each command's own, before its prompt

    def run(self) -> None:
        self.check()
        super().run()

    def check(self) -> None:
        """Raises ValueError or OSError for what is wrong with a command before its model is known."""
        _ = self.picture

    @cached_property  # as what is drawn may take the file's name
    def picture(self) -> "Image.Image":
        """Raises OSError or ValueError if there is none."""
        from muse.images import open_image

        return open_image(self.image)

    @property
    def drawn_size(self) -> tuple[int, int]:
        """Width and height of what is drawn."""
        return self.picture.size

    @property
    def side_by_side(self) -> int:
        width, height = self.drawn_size
        return max(1, min(BATCH, MOST_SIDE_BY_SIDE // (width * height)))

    def stages(self, muse: "Muse") -> Stages:
        return {"options": dataclasses.replace(muse.defaults, **given(self))}

    def images(self, muse: "Muse", seeds: Sequence[int], **details: Any) -> "list[Image.Image]":
        del details["negatives"]
        return self.edited(muse, self.picture, seeds, negative=self.negative, **details)

    @abstractmethod
    def edited(self, muse: "Muse", picture: "Image.Image", seeds: Sequence[int], **more: Any) -> "list[Image.Image]":
        """Draw a batch."""

    def details(self) -> dict[str, str]:
        return {"command": type(self).__name__.lower(), "image": told_path(self.image.name)} | self.told()

    @abstractmethod
    def told(self) -> dict[str, str]:
        """What a picture should say of this command alone."""

    def watch(self, muse: "Muse", bar: "tqdm") -> Watch:
        return ProgressWatch(muse, bar, self.previews, num_batches=math.ceil(self.n / self.side_by_side))


@dataclass(frozen=True, kw_only=True)
class Inpaint(SuperresFlags, SamplingFlags, FromPicture):
    """Fill a part of a picture with what a prompt says; every pixel outside of it stays exactly as it is.

    Pictures may have any size. The model sees a square around the part (--context), scaled to its own size."""

    image: tyro.conf.Positional[Path]
    """The picture; of an animation the first frame. What is transparent is laid on white."""
    prompt: tyro.conf.Positional[str]
    """What the part shall show, with what is around it, in quotation marks."""
    mask: Annotated[Path | None, MASK] = None
    """A picture of the same size, white where it shall be filled and black or transparent elsewhere."""
    box: Annotated[tuple[int, int, int, int] | None, BOX] = None
    """The part as a box: its left upper corner, its width and its height, in pixels."""
    context: float = 2.0
    """How much the model sees: sides of its square for one of the part, as far as the picture goes."""

    def check(self) -> None:
        from muse.canvas import Box, box_hole, mask_hole
        from muse.editing import check_context

        check_context(self.context)
        size, hole = self.picture.size, self.hole
        _ = box_hole(hole, size) if isinstance(hole, Box) else mask_hole(hole, size)

    @cached_property
    def hole(self) -> "Image.Image | Box":
        """Raises ValueError or OSError if there is none, or no single one."""
        from muse.canvas import Box
        from muse.images import open_image

        if (self.mask is None) == (self.box is None):
            came = "neither --mask nor --box" if self.mask is None else "both --mask and --box"
            raise ValueError(f"{came} came; give one of them to say which part is filled")
        return open_image(self.mask, "black") if self.mask is not None else Box(*(self.box or ()))

    def stages(self, muse: "Muse") -> Stages:
        return super().stages(muse) | self.superres_stage(muse)

    def edited(self, muse: "Muse", picture: "Image.Image", seeds: Sequence[int], **more: Any) -> "list[Image.Image]":
        return muse.inpaint(picture, self.hole, self.prompt, seeds, context=self.context, **more)

    def told(self) -> dict[str, str]:
        part = {"mask": told_path(self.mask.name)} if self.mask else {"box": " ".join(map(str, self.box or ()))}
        return part | {"context": str(self.context)}


@dataclass(frozen=True, kw_only=True)
class Outpaint(SuperresFlags, SamplingFlags, FromPicture):
    """Widen a picture by margins that show what a prompt says; every pixel of it stays exactly as it is.

    Margins may have any size: they are drawn square by square, each half over what is there already."""

    image: tyro.conf.Positional[Path]
    """The picture; of an animation the first frame. What is transparent is laid on white."""
    prompt: tyro.conf.Positional[str]
    """What the widened picture shows, in quotation marks."""
    left: int = 0
    """Pixels to add at the left side."""
    right: int = 0
    """Pixels to add at the right side."""
    top: int = 0
    """Pixels to add at the top."""
    bottom: int = 0
    """Pixels to add at the bottom."""

    def check(self) -> None:
        from muse.canvas import widen

        widen(self.picture, self.margins())

    @property
    def drawn_size(self) -> tuple[int, int]:
        (width, height), margins = self.picture.size, self.margins()
        return width + margins.left + margins.right, height + margins.top + margins.bottom

    def margins(self) -> "Margins":
        """Raises ValueError if there are none."""
        from muse.canvas import Margins

        return Margins(self.left, self.right, self.top, self.bottom)

    def stages(self, muse: "Muse") -> Stages:
        return super().stages(muse) | self.superres_stage(muse)

    def edited(self, muse: "Muse", picture: "Image.Image", seeds: Sequence[int], **more: Any) -> "list[Image.Image]":
        return muse.outpaint(picture, self.margins(), self.prompt, seeds, **more)

    def told(self) -> dict[str, str]:
        return {"margins": json.dumps(dataclasses.asdict(self.margins()))}


@dataclass(frozen=True, kw_only=True)
class Edit(SuperresFlags, FromPicture):
    """Turn a whole picture into what a prompt says, little by little and without a mask.

    Pictures may have any size; they are seen as a whole, scaled to the model's size, and come back at their own."""

    image: tyro.conf.Positional[Path]
    """The picture; of an animation the first frame. What is transparent is laid on white."""
    prompt: tyro.conf.Positional[str]
    """What the result shows, in quotation marks."""
    iterations: int = 100
    """How often some tokens are drawn again; fewer keep more of the picture."""
    share: float = 0.08
    """Which share of all tokens is drawn again in each iteration, chosen at random."""
    guidance: float = 4.0
    """How strongly the prompt is followed: t in (1 + t) * l_c - t * l_u; the same in every iteration."""
    temperature: float = 1.0
    """Temperature at which tokens are drawn; 0 always takes the likeliest code."""
    top_k: Annotated[int, TOP_K] = 3
    """Draw among this many likeliest codes only."""
    most_changed: Annotated[float | None, CHANGED] = None
    """Stop a picture as soon as this share of its tokens is not what it was at first."""
    refresh: int = 4
    """Iterations from one that computes everything to the next, which saves time; 1 computes everything each time."""
    at: Annotated[tuple[int, ...], AT] = ()
    """Also write what stands after these iterations, as NAME-at-50.png; it has not been through super-resolution.
    The picture in full after 50 iterations is that of --iterations 50 with the same seed."""

    @property
    def extras(self) -> tuple[str, ...]:
        return (*super().extras, *(f"-at-{num}.png" for num in self.at))

    def check(self) -> None:
        super().check()
        self.options()
        wrong = [num for num in self.at if not 1 <= num <= self.iterations]
        if wrong or len(set(self.at)) < len(self.at):
            raise ValueError(
                f"at is {' '.join(map(str, self.at))}; give different whole numbers from 1 to {self.iterations}, "
                "the number of iterations"
            )

    def options(self) -> "EditOptions":
        """Raises ValueError for a value outside its range."""
        from muse.sampling import EditOptions

        return EditOptions(**{field.name: getattr(self, field.name) for field in dataclasses.fields(EditOptions)})

    def stages(self, muse: "Muse") -> Stages:
        return {"options": self.options()} | self.superres_stage(muse)

    def edited(self, muse: "Muse", picture: "Image.Image", seeds: Sequence[int], **more: Any) -> "list[Image.Image]":
        return muse.edit(picture, self.prompt, seeds, **more)

    def told(self) -> dict[str, str]:
        return {}

    def watch(self, muse: "Muse", bar: "tqdm") -> Watch:
        return ProgressWatch(muse, bar, self.previews, num_batches=math.ceil(self.n / self.side_by_side), at=self.at)


@dataclass(frozen=True, kw_only=True)
class Vary(SuperresFlags, SamplingFlags, FromPicture):
    """Draw new pictures near a given one.

    Pictures may have any size; they are seen as a whole, scaled to the model's size, and come back at their own."""

    image: tyro.conf.Positional[Path]
    """The picture; of an animation the first frame. What is transparent is laid on white."""
    strength: float = 0.5
    """Which share of the picture's tokens is drawn again: 0 only encodes and decodes it, 1 draws it freely."""
    prompt: Annotated[str | None, NEGATIVE] = None
    """What the pictures show; without it only the kept tokens say so."""

    @property
    def title(self) -> str:
        return f"variation of {told_path(self.image.stem)}" if self.prompt is None else self.prompt

    def check(self) -> None:
        from muse.requests import check_strength

        super().check()
        check_strength(self.strength)
        if self.negative is not None and self.prompt is None:
            raise ValueError("--negative came without --prompt; give both, or neither")

    def stages(self, muse: "Muse") -> Stages:
        return super().stages(muse) | self.superres_stage(muse)

    def edited(self, muse: "Muse", picture: "Image.Image", seeds: Sequence[int], **more: Any) -> "list[Image.Image]":
        return muse.variations(picture, self.strength, seeds, prompt=self.prompt, **more)

    def told(self) -> dict[str, str]:
        return {"strength": str(self.strength)}


class ProgressWatch(Watch):
    """Sees every step of an edit, which says itself how many there are, and how the picture looks."""

    def __init__(self, muse: "Muse", bar: "tqdm", keeps_frames: bool, num_batches: int, at: Sequence[int] = ()):
        super().__init__(muse, bar, keeps_frames)
        self.num_batches, self.at = num_batches, at
        self.kept: dict[int, list[Image.Image]] = {}

    def __call__(self, progress: "Progress") -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.bar.total = progress.total * self.num_batches
        self.bar.update()
        every = math.ceil(progress.total / MOST_FRAMES)
        is_frame = self.keeps_frames and (progress.done % every == 0 or progress.done == progress.total)
        is_still = progress.stage == "base" and progress.done in self.at
        if not is_frame and not is_still:
            return
        images = progress.show()
        if is_frame:
            self.frames.append([image.resize(preview_size(image.size)) for image in images])
        if is_still:
            self.kept[progress.done] = images

    def stills(self, index: int, image: "Image.Image") -> "list[Image.Image]":
        """What stood at each of `at`, or the result where it was done before."""
        return [self.kept[num][index] if num in self.kept else image for num in self.at]
