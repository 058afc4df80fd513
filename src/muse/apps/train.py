"""`muse train STAGE RECIPE ...` and `muse export`. Torch is imported by the commands."""

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro


@dataclass(frozen=True)
class Train:
    """Train the parts of a model: `muse train vqgan|base|superres|decoder RECIPE ...`; `muse train` alone lists the
    recipes."""

    words: tyro.conf.Positional[tuple[str, ...]] = ()
    """The stage, the recipe, and what is changed of it."""

    def run(self) -> None:
        """Raises ValueError for a stage or a recipe that there is not, and for what cannot be trained."""
        from muse.apps.stages import STAGES

        (stage, recipe), changes = (*self.words, "", "")[:2], self.words[2:]
        if not self.words:
            print("\n".join(line for name in STAGES for line in listed(name, STAGES[name].recipes())))
            return
        if stage not in STAGES:
            raise ValueError(f"there is no stage {stage!r}; give one of: {', '.join(STAGES)}")
        recipes = STAGES[stage].recipes()
        if recipe in ("--help", "-h"):
            print("\n".join(listed(stage, recipes)))
            return
        if not recipe:
            raise ValueError(f"no recipe came; give one of: {', '.join(recipes)}")
        if recipe not in recipes:
            raise ValueError(f"there is no recipe {recipe!r} of {stage}; give one of: {', '.join(recipes)}")
        plain = recipes[recipe]()
        command = tyro.cli(
            STAGES[stage],
            default=STAGES[stage](recipe=plain),
            prog=f"muse train {stage} {recipe}",
            description=recipes[recipe].__doc__,
            args=changes,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
        check_given(command, plain)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        command.run()
        from muse.training.ranks import part

        part()


def check_given(command: Any, recipe: Any) -> None:
    """Raises ValueError if an option was given that comes with the tokens, which are there."""
    for name in getattr(command, "fitted", ()):
        if command.tokens and getattr(command.recipe.training.model, name) != getattr(recipe.training.model, name):
            flag = f"--model.{name.replace('_', '-')}"
            raise ValueError(f"{flag} comes with the tokens and with what reads the text; leave it out")


def listed(stage: str, recipes: Mapping[str, Callable[[], Any]]) -> list[str]:
    """A line about each recipe of a stage."""
    return [
        f"muse train {stage} {name:<14}{' '.join((function.__doc__ or '').split())}"
        for name, function in recipes.items()
    ]


@dataclass(frozen=True)
class Export:
    """Write the model of a run of either transformer as a folder that `muse generate --model` draws with."""

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    out: tyro.conf.Positional[Path]
    """The model's folder; made, or filled anew: the parts of a model that was there go."""
    decay: float = 0.7
    """How much of the average of the weights that were kept (`--engine.keep-every`) each later one leaves; 0 takes the
    last. A run that kept none has its moving average exported."""
    last: int | None = None
    """Average only so many of the last ones."""
    vqgan: Annotated[str | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: the run's own)")] = None
    """Another VQGAN of the same tokens, such as one to which `muse train decoder` gave a larger decoder; of a run of
    super-resolution that of the large pictures: its folder, or the name or folder of a model that has one."""
    half: bool = False
    """Round the transformer to float16."""

    def run(self) -> None:
        """Raises CheckpointError if the run has no weights, or its parts are missing."""
        import torch

        from muse.apps.stages import part_of
        from muse.training.export import enlarges, export

        if self.out.resolve() == self.run_folder.resolve():
            raise ValueError(f"{self.out} is the run's own folder; give another one for the model")
        check_target(self.out)
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay is {self.decay}; give a number from 0 up to, not including, 1")
        dtype = torch.float16 if self.half else None
        part = "vqgan_superres" if enlarges(self.run_folder) else "vqgan"
        vqgan = part_of(self.vqgan, part) if self.vqgan else None
        export(self.run_folder, self.out, decay=self.decay, last=self.last, dtype=dtype, vqgan=vqgan)
        print(self.out)


def check_target(folder: Path) -> None:
    """Raises ValueError if a model would be written over a run, or among what is no model's."""
    from muse.pipeline import INDEX, PARTS, SUPERRES_PARTS

    parts = (*PARTS, *SUPERRES_PARTS)
    for place in (folder, *(folder / part for part in parts)):
        if is_run(place):
            raise ValueError(f"{place} is a training run; give another folder for the model")
    if (folder / INDEX).is_file() or not folder.is_dir():
        return
    # Parts alone are what an export has left that was stopped.
    others = sorted(path.name for path in folder.iterdir() if path.name not in parts and not is_of_a_repository(path))
    if others:
        raise ValueError(f"{folder} holds {others[0]} and no model; give a new folder, an empty one or a model's")


def is_run(folder: Path) -> bool:
    """Whether training has left something here that it would go on with."""
    from muse.training.engine import CHECKPOINTS, OLD_STATE, ORDER
    from muse.training.export import PARTS

    return any((folder / name).exists() for name in (CHECKPOINTS, ORDER, OLD_STATE, PARTS))


def is_of_a_repository(path: Path) -> bool:
    """Whether a file or a folder may well lie beside a model that is to come: a card, or what is hidden."""
    return path.name.startswith(".") or path.suffix == ".md"
