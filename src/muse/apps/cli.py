"""The command line: `muse generate`, `muse upscale`, `muse info`, and the commands of the other modules of this folder.

Torch and the networks are imported by the commands, so that `muse --help` answers at once."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from muse import __version__
from muse.apps.data_commands import ImportVQGAN, Tokenize
from muse.apps.drawing import (
    Drawing,
    SamplingFlags,
    Stages,
    SuperresFlags,
    Watch,
    by_the_model,
    given,
    print_no_more,
    tell,
)
from muse.apps.edit import Edit, Inpaint, Outpaint, Vary
from muse.apps.evaluate import Compare, CompareVotes, Evaluate
from muse.apps.server.options import Serve
from muse.apps.train import Export, Train
from muse.apps.web.options import Web
from muse.requests import MAKE_ROOM, check_clip, check_out, is_full, told_path

if TYPE_CHECKING:
    from PIL import Image
    from tqdm import tqdm

    from muse.pipeline import Judge, Muse
    from muse.sampling import SamplingOptions


@dataclass(frozen=True, kw_only=True)
class Generate(SuperresFlags, SamplingFlags, Drawing):
    """Draw pictures of a prompt, as PNG files that also say how they were made."""

    prompt: tyro.conf.Positional[str]
    """What the picture shows, in quotation marks."""
    size: Annotated[Literal["low", "high"] | None, by_the_model("{low,high}", "the largest it draws")] = None
    """Low stops before super-resolution."""
    best_of: int = 1
    """Draw so many small pictures for each picture, of seeds that count up, and go on with the best: the one of whose
    tokens the network was surest, or that the CLIP of --clip gives the most."""
    clip: Annotated[str | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(optional)")] = None
    """A CLIP of transformers that chooses: a folder, or a hub name like openai/clip-vit-large-patch14."""

    def run(self) -> None:
        """Raises ValueError or OSError, before anything is drawn, for what cannot be drawn or written."""
        check_clip(self.clip, self.best_of)
        super().run()

    @property
    def tried(self) -> int:
        return self.best_of

    def num_steps(self, num: int, stages: Stages) -> int:
        from muse.pipeline import TRIED_AT_ONCE

        trials = math.ceil(num * self.best_of / TRIED_AT_ONCE) if self.best_of > 1 else 0
        return super().num_steps(num, stages) + trials * stages["options"].steps

    def choose(self, muse: "Muse", seeds: Sequence[int], stages: Stages, bar: "tqdm") -> Sequence[int]:
        return muse.choose(
            [self.prompt] * len(seeds),
            seeds,
            self.best_of,
            negatives=self.negatives(len(seeds)),
            options=stages["options"],
            judge=self.judge,
            callback=Watch(muse, bar, keeps_frames=False),
        )

    @cached_property
    def judge(self) -> "Judge | None":
        """The CLIP that chooses; None if there is none.
        Raises MissingWeights or CheckpointError if it cannot be had."""
        if self.clip is None:
            return None
        from muse.evaluation.clip import ClipScorer

        return ClipScorer.load(self.clip)

    def stages(self, muse: "Muse") -> Stages:
        from muse.pipeline import check_size

        check_size(self.size, muse)
        base = {"options": dataclasses.replace(muse.defaults, **given(self))}
        return base | self.superres_stage(muse, is_drawn=self.size != "low")

    def images(self, muse: "Muse", seeds: Sequence[int], **details: Any) -> "list[Image.Image]":
        return muse.generate([self.prompt] * len(seeds), seeds, size=self.size, **details)

    def details(self) -> dict[str, str]:
        told = {"size": self.size, "best_of": str(self.best_of) if self.best_of > 1 else None}
        return {name: text for name, text in told.items() if text is not None}


@dataclass(frozen=True, kw_only=True)
class Upscale(SamplingFlags, Drawing):
    """Draw a picture that is there again, larger: super-resolution on its own low-resolution tokens."""

    image: tyro.conf.Positional[Path]
    """The picture, of any size and of the shape that the model draws."""
    prompt: tyro.conf.Positional[str]
    """What it shows, in quotation marks."""

    def run(self) -> None:
        _ = self.picture  # says what is wrong with it before the model is loaded
        super().run()

    @cached_property  # as what is drawn may take the file's name
    def picture(self) -> "Image.Image":
        """Raises OSError or ValueError if there is none."""
        from muse.images import open_image

        return open_image(self.image)

    def stages(self, muse: "Muse") -> Stages:
        from muse.pipeline import check_size

        check_size("high", muse)
        return {"options": dataclasses.replace(muse.superres_defaults, **given(self))}

    def images(self, muse: "Muse", seeds: Sequence[int], **details: Any) -> "list[Image.Image]":
        return muse.upscale([self.picture] * len(seeds), [self.prompt] * len(seeds), seeds, **details)

    def details(self) -> dict[str, str]:
        return {"image": told_path(self.image.name)}


@dataclass(frozen=True)
class Info:
    """Say what a model is: its parts and their sizes, its pictures and its default options."""

    model: tyro.conf.Positional[str] = "emoji"
    """A model that ships, a folder, or a name on the hub, like owner/name."""
    names: bool = False
    """Print the things instead that its captions named, one a line."""

    def run(self) -> None:
        """Raises CheckpointError if there is no such model, or it is damaged, or does not say what it knows."""
        from muse.checkpoint import CheckpointError, read_json
        from muse.pipeline import INDEX, find_model, parts_of
        from muse.vocabulary import VOCABULARY, Vocabulary

        folder = find_model(self.model)
        vocabulary = Vocabulary.from_folder(folder)
        if self.names:
            if vocabulary is None:
                raise CheckpointError(f"{folder} has no {VOCABULARY}, which would say what its captions named")
            tell("\n".join(vocabulary.names))
            return
        index = read_json(folder / INDEX)
        parts = parts_of(index, folder)
        rows = [("name", index.get("name", folder.name)), ("folder", folder), *self.base(index, folder)]
        if "superres" in parts:
            rows += self.superres(index, folder)
        if vocabulary is not None:
            rows.append(("knows", f"{len(vocabulary.names):,} things, which --names lists"))
        told = [*rows, *((part, self.size(folder / part)) for part in parts)]
        tell("\n".join(f"{name:<16}{value}" for name, value in told))

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 2 for anything that a person can put right, 130 for Ctrl-C.
    Raises SystemExit for --help, and for a command line that cannot be read."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments == ["--version"]:
        print(f"muse {__version__}")
        return 0
    try:
        if arguments[:1] == ["train"] and arguments[1:2] not in (["--help"], ["-h"]):
            Train(tuple(arguments[1:])).run()  # its options depend on the stage and the recipe
            return 0
        command = tyro.cli(
            Generate
            | Upscale
            | Inpaint
            | Outpaint
            | Edit
            | Vary
            | Info
            | Tokenize
            | Train
            | Export
            | ImportVQGAN
            | Evaluate
            | Compare
            | CompareVotes
            | Serve
            | Web,
            prog="muse",
            description="Text to image by masked generative transformers. `muse --version` says which version this is.",
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        check_out(getattr(command, "out", None))
        command.run()
    except KeyboardInterrupt:
        print("muse: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # of --help | head
        print_no_more()
    except (ValueError, OSError, ArithmeticError) as error:
        print(f"muse: {sentence(error)}", file=sys.stderr)
        return 2
    return 0


def sentence(error: Exception) -> str:
    """What an error says, on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}{f'; {MAKE_ROOM}' if is_full(error) else ''}"
    if is_full(error):
        return f"what was to be written has no room ({error}); {MAKE_ROOM}"
    return " ".join(str(error).split()) or type(error).__name__
