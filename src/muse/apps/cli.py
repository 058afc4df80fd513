"""The command line: `muse generate`, `muse upscale`, `muse info`, `muse serve` and `muse web`.

Torch and the networks are imported by the commands, so that `muse --help` answers at once."""

import dataclasses
import json
import math
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from muse import __version__
from muse.apps.server.options import Serve
from muse.apps.web.options import Web

if TYPE_CHECKING:
    from PIL import Image
    from tqdm import tqdm

    from muse.pipeline import Muse
    from muse.sampling import SamplingOptions, StepReport

BATCH = 8
"""Pictures drawn side by side, so that memory stays the same for any number of them."""
MOST_PICTURES = 10_000
MOST_FRAMES = 64
OTHER_FORMATS = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


def by_the_model(metavar: str, default: str = "the model's own") -> Any:
    """An option of which every model has its own default."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What every command that draws can be told."""

    negative: Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="(optional)")] = None
    """What the picture shall not show."""
    n: int = 1
    """How many pictures, at most 10,000; their seeds count up from the first."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: a random one)")] = None
    """The same seed gives the same picture."""
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
    model: str = "emoji"
    """A model that ships, a folder, or a name on the hub, like owner/name."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: this folder)")] = None
    """A file ending in .png, replaced if it is there (name-1.png, name-2.png, ... for several pictures); or a folder,
    where a free name is made of prompt and seed. Missing folders are made."""
    previews: bool = False
    """Also write the picture after each step, beside the result: an animation, -steps.webp, and a sheet, -steps.png."""

    if TYPE_CHECKING:
        prompt: str  # each command's own, so that it can say what comes before it

    def run(self) -> None:
        """Raises ValueError or OSError, before anything is drawn, for what cannot be drawn or written."""
        if not 1 <= self.n <= MOST_PICTURES:
            raise ValueError(f"n is {self.n}; give a whole number from 1 to {MOST_PICTURES:,}")
        places = Places(self.out, self.prompt, self.n, self.previews)
        places.check()
        from muse.pipeline import Muse, check_request, random_seeds
        from muse.sampling import SamplingOptions

        first = random_seeds(1)[0] if self.seed is None else self.seed
        seeds = [first + i for i in range(self.n)]
        check_request([self.prompt] * self.n, seeds, self.negatives(self.n))
        for prefix in ("", "superres_"):
            SamplingOptions(**self.given(prefix))  # says what is wrong before the model is loaded
        self.check()
        muse = Muse.from_pretrained(self.model)
        self.draw(muse, self.stages(muse), seeds, places)

    def check(self) -> None:
        """Raises ValueError or OSError for what is wrong with a command before its model is known."""

    def stages(self, muse: "Muse") -> "dict[str, SamplingOptions]":
        """The options of each stage to be drawn, under the names that the model's verb has for them.
        Raises ValueError for what this model cannot do."""
        raise NotImplementedError

    def images(self, muse: "Muse", seeds: Sequence[int], **details: Any) -> "list[Image.Image]":
        """Draw a batch."""
        raise NotImplementedError

    def details(self) -> dict[str, str]:
        """What else a picture should say of how it was made."""
        return {}

    def draw(self, muse: "Muse", stages: "dict[str, SamplingOptions]", seeds: Sequence[int], places: "Places") -> None:
        """Draw batch by batch, write each picture and say where it is."""
        from tqdm import tqdm

        total = sum(options.steps for options in stages.values()) * math.ceil(self.n / BATCH)
        with tqdm(total=total, unit="step", leave=False, disable=None) as bar:  # None: off unless on a terminal
            for start in range(0, self.n, BATCH):
                batch = seeds[start : start + BATCH]
                watch = Watch(muse, bar, self.previews)
                images = self.images(muse, batch, negatives=self.negatives(len(batch)), callback=watch, **stages)
                for i, (image, seed) in enumerate(zip(images, batch, strict=True)):
                    frames = [frame[i].resize(image.size) for frame in watch.frames]
                    for path in places.save(start + i, seed, image, frames, self.describe(muse, stages, seed)):
                        bar.write(f"{path}  (seed {seed})")

    def negatives(self, num: int) -> list[str] | None:
        return None if self.negative is None else [self.negative] * num

    def given(self, prefix: str = "") -> dict[str, Any]:
        """The sampling options that the command line gives, of the base or, prefixed, of super-resolution."""
        from muse.sampling import SamplingOptions

        found = {field.name: getattr(self, prefix + field.name, None) for field in dataclasses.fields(SamplingOptions)}
        return {name: value for name, value in found.items() if value is not None}

    def describe(self, muse: "Muse", stages: "dict[str, SamplingOptions]", seed: int) -> dict[str, str]:
        """All that it takes to make a picture again."""
        text = {"prompt": self.prompt} | ({} if self.negative is None else {"negative": self.negative})
        options = {name: json.dumps(dataclasses.asdict(each)) for name, each in stages.items()}
        made_by = {"model": muse.name, "software": f"muse {__version__}"}
        return text | self.details() | {"seed": str(seed)} | options | made_by


@dataclass(frozen=True, kw_only=True)
class Generate(Drawing):
    """Draw pictures of a prompt, as PNG files that also say how they were made."""

    prompt: tyro.conf.Positional[str]
    """What the picture shows, in quotation marks."""
    size: Annotated[Literal["low", "high"] | None, by_the_model("{low,high}", "the largest it draws")] = None
    """Low stops before super-resolution."""
    superres_steps: Annotated[int | None, by_the_model("INT")] = None
    """Parallel decoding steps of super-resolution."""
    superres_guidance: Annotated[float | None, by_the_model("T")] = None
    """How strongly super-resolution follows the prompt."""
    superres_temperature: Annotated[float | None, by_the_model("FLOAT")] = None
    """Temperature at which super-resolution draws tokens."""

    def stages(self, muse: "Muse") -> "dict[str, SamplingOptions]":
        from muse.pipeline import check_size

        check_size(self.size, muse)
        options = {"options": dataclasses.replace(muse.defaults, **self.given())}
        own = self.given("superres_")
        if muse.superres is not None and self.size != "low":
            return options | {"superres_options": dataclasses.replace(muse.superres_defaults, **own)}
        if own:
            flag = f"--superres-{next(iter(own))}"
            raise ValueError(f"{flag} came, and no super-resolution is drawn of model {muse.name!r}; leave it out")
        return options

    def images(self, muse: "Muse", seeds: Sequence[int], **details: Any) -> "list[Image.Image]":
        return muse.generate([self.prompt] * len(seeds), seeds, size=self.size, **details)

    def details(self) -> dict[str, str]:
        return {} if self.size is None else {"size": self.size}


@dataclass(frozen=True, kw_only=True)
class Upscale(Drawing):
    """Draw a picture that is there again, larger: super-resolution on its own low-resolution tokens."""

    image: tyro.conf.Positional[Path]
    """The picture, of any size and of the shape that the model draws."""
    prompt: tyro.conf.Positional[str]
    """What it shows, in quotation marks."""

    def check(self) -> None:
        self.picture()

    def picture(self) -> "Image.Image":
        """Raises OSError or ValueError if there is none."""
        from muse.images import open_image

        return open_image(self.image)

    def stages(self, muse: "Muse") -> "dict[str, SamplingOptions]":
        from muse.pipeline import check_size

        check_size("high", muse)
        return {"options": dataclasses.replace(muse.superres_defaults, **self.given())}

    def images(self, muse: "Muse", seeds: Sequence[int], **details: Any) -> "list[Image.Image]":
        return muse.upscale([self.picture()] * len(seeds), [self.prompt] * len(seeds), seeds, **details)

    def details(self) -> dict[str, str]:
        return {"image": self.image.name}


@dataclass(frozen=True)
class Info:
    """Say what a model is: its parts and their sizes, its pictures and its default options."""

    model: tyro.conf.Positional[str] = "emoji"
    """A model that ships, a folder, or a name on the hub, like owner/name."""

    def run(self) -> None:
        """Raises CheckpointError if there is no such model, or it is damaged."""
        from muse.checkpoint import read_json
        from muse.pipeline import INDEX, find_model, parts_of

        folder = find_model(self.model)
        index = read_json(folder / INDEX)
        parts = parts_of(index, folder)
        rows = [("name", index.get("name", folder.name)), ("folder", folder), *self.base(index, folder)]
        if "superres" in parts:
            rows += self.superres(index, folder)
        for name, value in [*rows, *((part, self.size(folder / part)) for part in parts)]:
            print(f"{name:<16}{value}")

    def base(self, index: dict[str, Any], folder: Path) -> list[tuple[str, str]]:
        """What there is to say of a model's tokens."""
        from muse.checkpoint import read_config
        from muse.models.transformer import MaskedTransformer, TransformerConfig
        from muse.pipeline import read_defaults

        config = read_config(MaskedTransformer.__name__, TransformerConfig, folder / "base")
        options = read_defaults(index, folder)
        return self.stage("", config, folder / "vqgan", config.vqgan_fingerprint, options)

    def superres(self, index: dict[str, Any], folder: Path) -> list[tuple[str, str]]:
        """The same of its high-resolution tokens."""
        from muse.checkpoint import read_config
        from muse.models.superres import SuperResConfig, SuperResTransformer
        from muse.pipeline import read_superres_defaults

        config = read_config(SuperResTransformer.__name__, SuperResConfig, folder / "superres")
        options = read_superres_defaults(index, folder)
        return self.stage("large ", config, folder / "vqgan_superres", config.vqgan_fingerprint, options)

    def stage(
        self, prefix: str, config: Any, folder: Path, fingerprint: str | None, options: "SamplingOptions"
    ) -> list[tuple[str, str]]:
        """Rows about a transformer's grid, the VQGAN of it in `folder`, and how tokens are drawn."""
        from muse.checkpoint import load_module, read_config
        from muse.models.vqgan import VQGAN, VQGANConfig

        stride = read_config(VQGAN.__name__, VQGANConfig, folder).stride
        # A transformer that does not say whose tokens it reads leaves only the weights to ask.
        fingerprint = fingerprint or load_module(VQGAN, VQGANConfig, folder).fingerprint()
        told = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
        rows = {
            "pictures": f"{config.width * stride} x {config.height * stride} pixels",
            "tokens": f"{config.width} x {config.height}, each one of {config.num_codes:,} codes",
            "VQGAN": fingerprint,
            "defaults": ", ".join(f"{name} {value}" for name, value in told.items()),
        }
        return [(prefix + name, value) for name, value in rows.items()]

    def size(self, folder: Path) -> str:
        """How large a part is."""
        from muse.checkpoint import CONFIG, count_parameters, read_json

        config = read_json(folder / CONFIG)
        network = config.get("class") or next(iter(config.get("architectures") or ["unknown"]))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return f"{network:<20}{count_parameters(folder):>15,} parameters{size / 1e6:>10,.1f} MB"


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


class Places:
    """Where the pictures of one request go."""

    def __init__(self, out: Path | None, prompt: str, num: int, has_previews: bool):
        self.folder, self.name, self.num, self.has_previews = out or Path(), slug(prompt), num, has_previews
        self.file: Path | None = None
        if out is not None and not out.is_dir():
            if out.suffix.lower() in OTHER_FORMATS:
                raise ValueError(
                    f"--out is {out} and pictures are written as PNG; give a name ending in .png, or a folder"
                )
            if out.suffix.lower() == ".png":
                self.folder, self.file = out.parent, out

    def check(self) -> None:
        """Raises ValueError if no file can be written where the pictures shall go; makes no file and no folder."""
        wanted = self.file or self.folder
        try:
            for path in self.written(self.path(self.num - 1, 0)):
                with suppress(FileNotFoundError):
                    path.with_name(path.name + ".tmp").lstat()  # its name may be too long, or lie below a file
            existing = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            raise ValueError(f"cannot write {wanted} ({error.strerror}); give another --out") from error

    def save(
        self, index: int, seed: int, image: "Image.Image", frames: "Sequence[Image.Image]", text: dict[str, str]
    ) -> list[Path]:
        """Write one picture, and its previews if there are any; the files."""
        from muse.images import contact_sheet, save_animation, save_png

        self.folder.mkdir(parents=True, exist_ok=True)
        paths = self.written(self.path(index, seed))
        save_png(image, paths[0], text)
        if self.has_previews:
            save_animation(frames, paths[1])
            save_png(contact_sheet(frames, columns=math.ceil(math.sqrt(len(frames)))), paths[2], text)
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
        stem = f"{path.stem}-steps"
        return [path, path.with_name(stem + ".webp"), path.with_name(stem + ".png")] if self.has_previews else [path]


def slug(prompt: str) -> str:
    """A prompt as the beginning of a file name, at most 40 letters."""
    return re.sub(r"\W+", "-", prompt.lower())[:40].strip("-") or "picture"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 2 for anything that a person can put right, 130 for Ctrl-C.
    Raises SystemExit for --help, and for a command line that cannot be read."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        print(f"muse {__version__}")
        return 0
    try:
        command = tyro.cli(
            Generate | Upscale | Info | Serve | Web,
            prog="muse",
            description="Text to image by masked generative transformers. `muse --version` says which version this is.",
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        command.run()
    except KeyboardInterrupt:
        print("muse: stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"muse: {sentence(error)}", file=sys.stderr)
        return 2
    return 0


def sentence(error: Exception) -> str:
    """What an error says, on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
