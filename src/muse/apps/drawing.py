"""What the commands that draw share: their options, the progress bar, and where pictures go."""

import dataclasses
import math
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from muse.requests import Precision, probe, told_as_out, told_path

if TYPE_CHECKING:
    from PIL import Image
    from tqdm import tqdm

    from muse.pipeline import Muse
    from muse.sampling import StepReport

BATCH = 8
"""Pictures drawn side by side, so that memory stays the same for any number of them."""
MOST_PICTURES = 10_000
MOST_FRAMES = 64
PREVIEWS = ("-steps.webp", "-steps.png")
LARGEST_PREVIEW = 512
"""Pixels of the longer side of a frame."""
OTHER_FORMATS = {
    *(".jpg", ".jpeg", ".jfif", ".jp2", ".jxl", ".webp", ".avif", ".heic", ".heif", ".gif", ".bmp", ".tif", ".tiff"),
    *(".svg", ".pdf", ".eps", ".ppm", ".ico", ".psd"),
}
"""Endings of what else pictures are kept as, which nobody calls a folder."""


def by_the_model(metavar: str, default: str = "the model's own") -> Any:
    """An option of which every model has its own default."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


NEGATIVE = tyro.conf.arg(metavar="TEXT", help_behavior_hint="(optional)")
SEED = tyro.conf.arg(metavar="INT", help_behavior_hint="(default: a random one)")
OUT = tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: this folder)")
Stages = dict[str, Any]
"""The options of each stage to be drawn, under the names that the model's verb has for them."""


@dataclass(frozen=True, kw_only=True)
class SamplingFlags:
    """How the tokens of the base are drawn."""

    steps: Annotated[int | None, by_the_model("INT")] = None
    """Parallel decoding steps; more is slower and usually better."""
    guidance: Annotated[float | None, by_the_model("T")] = None
    """How strongly the prompt is followed: t in (1 + t) * l_c - t * l_u; 0 is the plain conditional model."""
    guidance_ramp: Annotated[Literal["linear", "constant"] | None, by_the_model("{linear,constant}")] = None
    """Whether guidance grows linearly from 0 at the first step, or is constant."""
    sampler: Annotated[Literal["confidence", "halton"] | None, by_the_model("{confidence,halton}")] = None
    """Which tokens are revealed first: those the network is most confident of, or those next in Halton order."""
    temperature: Annotated[float | None, by_the_model("FLOAT")] = None
    """Temperature at which tokens are drawn; 0 always takes the likeliest code."""
    top_k: Annotated[int | None, by_the_model("INT")] = None
    """Draw among this many likeliest codes only."""
    choice_noise: Annotated[float | None, by_the_model("FLOAT")] = None
    """Gumbel noise on the confidence, falling to 0 at the last step; more is more varied. Halton order has none."""
    remask: Annotated[float | None, by_the_model("SHARE")] = None
    """Share of the revealed tokens, the least confident, that is hidden and drawn again at each step."""
    refresh: Annotated[int | None, by_the_model("INT")] = None
    """Steps from one that computes every position to the next; 1 computes all each time, more is faster."""


@dataclass(frozen=True, kw_only=True)
class SuperresFlags:
    """How the tokens of super-resolution are drawn, if the model has it."""

    superres_steps: Annotated[int | None, by_the_model("INT")] = None
    """Parallel decoding steps of super-resolution."""
    superres_guidance: Annotated[float | None, by_the_model("T")] = None
    """How strongly super-resolution follows the prompt."""
    superres_temperature: Annotated[float | None, by_the_model("FLOAT")] = None
    """Temperature at which super-resolution draws tokens."""
    superres_refresh: Annotated[int | None, by_the_model("INT")] = None
    """Steps of super-resolution from one that computes every position to the next."""

    def superres_stage(self, muse: "Muse", is_drawn: bool = True) -> Stages:
        """The options of super-resolution, or nothing where none is drawn.
        Raises ValueError if options came for what is not drawn."""
        own = given(self, "superres_")
        if muse.superres is not None and is_drawn:
            return {"superres_options": dataclasses.replace(muse.superres_defaults, **own)}
        if own:
            flag = f"--superres-{next(iter(own))}"
            raise ValueError(f"{flag} came, and no super-resolution is drawn of model {muse.name!r}; leave it out")
        return {}


@dataclass(frozen=True, kw_only=True)
class Drawing(ABC):
    """What every command that draws can be told."""

    negative: Annotated[str | None, NEGATIVE] = None
    """What the picture shall not show."""
    n: int = 1
    """How many pictures, at most 10,000; their seeds count up from the first."""
    seed: Annotated[int | None, SEED] = None
    """The same seed gives the same picture."""
    model: str = "emoji"
    """A model that ships, a folder, or a name on the hub, like owner/name."""
    precision: Precision = "auto"
    """Arithmetic of the networks that draw; auto takes bfloat16 where the machine computes in it. int8, on
    processors, and float8, on GPUs, round products and are faster with large models. Another precision is another
    picture, if a similar one."""
    graphs: bool = False
    """On a CUDA GPU, draw each grid that begins with nothing as one CUDA graph: faster, but for the second of its
    kind, which is captured. In bfloat16 it can be another picture."""
    literal: bool = False
    """Draw the prompt as it is. Else what no caption that the model learnt from says, if it is known what they say, is
    put in words that they do: "a golden retriever next to a hut" is drawn as "a dog and a hut", and a note says so."""
    out: Annotated[Path | None, OUT] = None
    """A file ending in .png, replaced if it is there (name-1.png, name-2.png, ... for several pictures); or a folder,
    where a free name is made of prompt and seed. Missing folders are made."""
    previews: bool = False
    """Also write the picture after each step, beside the result: an animation, -steps.webp, and a sheet, -steps.png."""

    if TYPE_CHECKING:
        prompt: str | None  # each command's own, so that it can say what comes before it

    def run(self) -> None:
        """Raises ValueError or OSError, before anything is drawn, for what cannot be drawn or written."""
        if not 1 <= self.n <= MOST_PICTURES:
            raise ValueError(f"n is {self.n}; give a whole number from 1 to {MOST_PICTURES:,}")
        places = Places(self.out, self.title, self.n, self.extras)
        places.check()
        from muse.apps.wishes import load, reword
        from muse.requests import check_best_of, check_request, random_seeds
        from muse.sampling import SamplingOptions

        first = random_seeds(1)[0] if self.seed is None else self.seed
        seeds = [first + i * self.tried for i in range(self.n)]
        check_request([self.title] * self.n, seeds, self.negatives(self.n))
        check_best_of(self.tried, seeds)
        for prefix in ("", "superres_"):  # says what is wrong before the model is loaded
            try:
                SamplingOptions(**given(self, prefix))
            except ValueError as error:
                raise ValueError(f"{prefix}{error}") from error
        muse = load(self.model, self.precision, self.graphs)
        stages = self.stages(muse)
        asked, note = self, None
        if self.prompt:
            drawn, note = reword(muse, self.prompt, self.literal)
            if drawn != self.prompt:
                asked = dataclasses.replace(self, prompt=drawn)
                note = f"{note}; --literal draws your words as they are"
        if note is not None:
            print(f"note: {note}", file=sys.stderr)
        asked.draw(muse, stages, seeds, places)

    @property
    def title(self) -> str:
        """What files are called after."""
        return self.prompt or ""

    @property
    def extras(self) -> tuple[str, ...]:
        """Endings of what is written beside a picture."""
        return PREVIEWS if self.previews else ()

    @property
    def side_by_side(self) -> int:
        """How many pictures are drawn at a time."""
        return BATCH

    @property
    def tried(self) -> int:
        """How many seeds are tried for each picture."""
        return 1

    def choose(self, muse: "Muse", seeds: Sequence[int], stages: Stages, bar: "tqdm") -> Sequence[int]:
        """The seeds of a batch that are drawn; a command may try some from each of those that are given on."""
        return seeds

    def num_steps(self, num: int, stages: Stages) -> int:
        """Steps of a batch of so many pictures."""
        return sum(getattr(options, "steps", 0) for options in stages.values())

    @abstractmethod
    def stages(self, muse: "Muse") -> Stages:
        """Raises ValueError for what this model cannot do."""

    @abstractmethod
    def images(self, muse: "Muse", seeds: Sequence[int], **details: Any) -> "list[Image.Image]":
        """Draw a batch."""

    def details(self) -> dict[str, str]:
        """What else a picture should say of how it was made."""
        return {}

    def watch(self, muse: "Muse", bar: "tqdm") -> "Watch":
        """What sees every step of a batch."""
        return Watch(muse, bar, self.previews)

    def draw(self, muse: "Muse", stages: Stages, seeds: Sequence[int], places: "Places") -> None:
        """Draw batch by batch, write each picture and say where it is."""
        from tqdm import tqdm

        starts = range(0, self.n, self.side_by_side)
        batches = [seeds[start : start + self.side_by_side] for start in starts]
        total = sum(self.num_steps(len(batch), stages) for batch in batches)
        with tqdm(total=total, unit="step", leave=False, disable=None) as bar:  # None: off unless on a terminal
            for start, some in zip(starts, batches, strict=True):
                batch = self.choose(muse, some, stages, bar)
                watch = self.watch(muse, bar)
                images = self.images(muse, batch, negatives=self.negatives(len(batch)), callback=watch, **stages)
                written: list[tuple[Path, int]] = []  # all of them, before one is told, as that may fail
                for i, (image, seed) in enumerate(zip(images, batch, strict=True)):
                    frames = [frame[i].resize(preview_size(image.size)) for frame in watch.frames]
                    text = self.describe(muse, stages, seed)
                    paths = places.save(start + i, seed, image, frames, text, watch.stills(i, image))
                    written += [(path, seed) for path in paths]
                for path, seed in written:
                    tell(f"{told_path(path)}  (seed {seed})", bar.write)

    def negatives(self, num: int) -> list[str] | None:
        return None if self.negative is None else [self.negative] * num

    def describe(self, muse: "Muse", stages: Stages, seed: int) -> dict[str, str]:
        """All that it takes to make a picture again."""
        from muse.apps.settings import to_text

        return to_text(self.prompt, seed, self.negative, stages, muse.name, precision=muse.precision, **self.details())


def tell(text: str, write: Callable[[str], None] = print) -> None:
    """Write as much as is read: whoever reads may have enough, as `head` has, and what is to come is done all the
    same."""
    try:
        write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        print_no_more()


def print_no_more() -> None:
    """Let what is printed from now on go nowhere, as nobody reads it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def given(flags: Any, prefix: str = "") -> dict[str, Any]:
    """The sampling options that a command line gives, of the base or, prefixed, of super-resolution."""
    from muse.sampling import SamplingOptions

    found = {field.name: getattr(flags, prefix + field.name, None) for field in dataclasses.fields(SamplingOptions)}
    return {name: value for name, value in found.items() if value is not None}


class Watch:
    """Sees every step of a batch: moves the progress bar on, and keeps at most about MOST_FRAMES previews of each stage
    if asked."""

    def __init__(self, muse: "Muse", bar: "tqdm", keeps_frames: bool):
        self.muse, self.bar, self.keeps_frames = muse, bar, keeps_frames
        self.frames: list[list[Image.Image]] = []

    def __call__(self, report: "StepReport") -> None:
        self.bar.update()
        done, num_steps = report.step.index + 1, report.step.num_steps
        if self.keeps_frames and (done % math.ceil(num_steps / MOST_FRAMES) == 0 or done == num_steps):
            self.frames.append(self.muse.preview(report).images)

    def stills(self, index: int, image: "Image.Image") -> "list[Image.Image]":
        """Further pictures to be written beside the one of an index."""
        return []


class Places:
    """Where the pictures of one request go."""

    def __init__(self, out: Path | None, title: str, num: int, extras: Sequence[str] = ()):
        self.folder, self.name, self.num, self.extras = out or Path(), slug(title), num, tuple(extras)
        self.file: Path | None = None
        if out is not None and not out.is_dir():
            if out.name.lower() in (".png", *OTHER_FORMATS):
                raise ValueError(f"--out is {out}, an ending without a name; give a name ending in .png, or a folder")
            if out.suffix.lower() in OTHER_FORMATS:
                raise ValueError(
                    f"--out is {out} and pictures are written as PNG; give a name ending in .png, or a folder"
                )
            if out.suffix.lower() == ".png":
                self.folder, self.file = out.parent, out

    def check(self) -> None:
        """Raises ValueError if no file can be written where the pictures shall go; makes no file and no folder."""
        with told_as_out(self.file or self.folder):
            for path in self.written(self.path(self.num - 1, 0)):
                with suppress(FileNotFoundError):
                    path.with_name(path.name + ".tmp").lstat()  # its name may be too long, or lie below a file
            probe(self.folder)

    def save(
        self,
        index: int,
        seed: int,
        image: "Image.Image",
        frames: "Sequence[Image.Image]",
        text: dict[str, str],
        stills: "Sequence[Image.Image]" = (),
    ) -> list[Path]:
        """Write one picture, its previews if there are any, and further pictures; the files."""
        from muse.images import contact_sheet, save_animation, save_png

        self.folder.mkdir(parents=True, exist_ok=True)
        paths = self.written(self.path(index, seed))
        save_png(image, paths[0], text)
        if frames:
            save_animation(frames, paths[1])
            save_png(contact_sheet(frames, columns=math.ceil(math.sqrt(len(frames)))), paths[2], text)
        for still, path in zip(stills, paths[len(paths) - len(stills) :], strict=True):
            save_png(still, path, text)
        return paths

    def path(self, index: int, seed: int) -> Path:
        """The file of a picture: the one that was named, or one whose name is free."""
        if self.file is not None:
            return self.file if self.num == 1 else self.file.with_stem(f"{self.file.stem}-{index + 1}")
        path, tries = self.folder / f"{self.name}-{seed}.png", 1
        while any(written.exists() for written in self.written(path)):
            tries += 1
            path = self.folder / f"{self.name}-{seed}-{tries}.png"
        return path

    def written(self, path: Path) -> list[Path]:
        """A picture and the files beside it."""
        return [path, *(path.with_name(path.stem + extra) for extra in self.extras)]


def preview_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the frames of a picture."""
    factor = min(1, LARGEST_PREVIEW / max(size))
    width, height = (max(round(side * factor), 1) for side in size)
    return width, height


def slug(prompt: str) -> str:
    """A prompt as the beginning of a file name, at most 40 letters."""
    return re.sub(r"\W+", "-", prompt.lower())[:40].strip("-") or "picture"
