"""What every public dataclass of options refuses: a value that is none of the choices of its type, and a number that is
not whole where a whole one is wanted. The command line refuses them by itself; Python and a config.json do not."""

import dataclasses
import importlib
import inspect
import json
import math
import pkgutil
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import pytest

import muse
from muse.checkpoint import CONFIG, CheckpointError, read_config
from muse.evaluation.alignment import AlignmentConfig
from muse.models.superres import SuperResConfig
from muse.training import recipes
from muse.training.base import BaseTraining
from muse.training.decoder import DecoderTraining
from muse.training.engine import EngineOptions
from muse.training.masked import MaskedTraining
from muse.training.pictures import PictureTraining
from muse.training.superres import SuperResTraining
from muse.training.vqgan import VQGANTraining

pytestmark = pytest.mark.usefixtures("without_type_checks")

GIVEN = ("Config", "Options", "Training", "Recipe")
"""How the names end of the dataclasses that people and files fill."""
MADE_WITHIN = {
    *("muse.editing.Progress", "muse.models.reuse.Rhythm", "muse.models.vqgan.BlockStyle"),
    *("muse.sampling.decode.StepReport", "muse.shapes.Step", "muse.training.masked.Draw"),
}
"""Other dataclasses that hold a choice, filled by our own code alone."""
ENGINE = EngineOptions(Path("run"), steps=20_000)
FILLED: dict[type, dict[str, Any]] = {
    AlignmentConfig: {"text_dim": 8, "image_dim": 8},
    EngineOptions: {"folder": Path("run"), "steps": 20_000},
    MaskedTraining: {"engine": ENGINE, "model": None},
    **{each: {"engine": ENGINE} for each in (BaseTraining, SuperResTraining)},
    **{each: {"engine": ENGINE} for each in (PictureTraining, VQGANTraining, DecoderTraining)},
    recipes.VQGANRecipe: {"training": VQGANTraining(ENGINE)},
    recipes.BaseRecipe: {"training": BaseTraining(engine=ENGINE)},
    recipes.SuperResRecipe: {"training": SuperResTraining(engine=ENGINE)},
    recipes.DecoderRecipe: {"training": DecoderTraining(ENGINE)},
}
"""What dataclasses need beside their defaults."""


class Field(NamedTuple):
    """A field of a dataclass, and the types that its own is made of."""

    owner: type
    name: str
    kinds: tuple[Any, ...]

    @property
    def is_given(self) -> bool:
        return self.owner.__name__.endswith(GIVEN)

    @property
    def choices(self) -> tuple[Any, ...]:
        named = [get_args(kind) for kind in self.kinds if get_origin(kind) is Literal]
        return named[0] if named else (True, False) if bool in self.kinds else ()

    @property
    def is_several(self) -> bool:
        return get_origin(self.kinds[0]) is tuple

    def refusal(self, value: Any) -> str:
        """What is said of a wrong value."""
        with pytest.raises(ValueError, match=r"^.+; give [^\n]+$") as error:
            self.filled(value)
        return str(error.value)

    def filled(self, value: Any) -> Any:
        return self.owner(**{**FILLED.get(self.owner, {}), self.name: value})


def parts(kind: Any) -> tuple[Any, ...]:
    """A type and all types within it."""
    inner = () if get_origin(kind) is Literal else get_args(kind)
    return (kind, *(part for each in inner for part in parts(each)))


def fields_of_muse() -> list[Field]:
    """Those of all dataclasses but the front doors', which tyro and pydantic check."""
    names = [name for _, name, _ in pkgutil.walk_packages(muse.__path__, "muse.") if not name.startswith("muse.apps")]
    found = [each for name in names for each in vars(importlib.import_module(name)).values() if inspect.isclass(each)]
    hints = {
        each: get_type_hints(each)
        for each in found
        if dataclasses.is_dataclass(each) and each.__module__.startswith("muse")
    }
    return [
        Field(owner, field.name, parts(kinds[field.name]))
        for owner, kinds in hints.items()
        for field in dataclasses.fields(owner)
    ]


FIELDS = fields_of_muse()


def asked(fields: list[Field]) -> Any:
    given = [field for field in fields if field.is_given]
    return pytest.mark.parametrize(
        "field", [pytest.param(each, id=f"{each.owner.__name__}.{each.name}") for each in given]
    )


def test_every_choice_is_in_a_dataclass_that_is_asked_here_or_that_our_own_code_fills():
    with_choices = {field.owner for field in FIELDS if field.choices and not field.is_given}
    assert {f"{owner.__module__}.{owner.__qualname__}" for owner in with_choices} == MADE_WITHIN


@asked([field for field in FIELDS if field.choices])
def test_what_is_none_of_the_choices_is_refused_by_name_with_the_choices(field):
    none, first = [] if NoneType in field.kinds else [None], field.choices[0]
    if field.is_several:
        fine, wrong = field.choices[:1], [("nope",), (first, 1), (first, None), first, *none]
    else:
        fine, wrong = first, ["nope", "", str(first).upper(), 1, 0.5, [], [first], *none]
    assert getattr(field.filled(fine), field.name) == fine
    for value in wrong:
        came, _, wish = field.refusal(value).partition("; ")
        assert came == f"{field.name} is {value!r}"
        assert all(repr(choice) in wish for choice in field.choices)


@asked([field for field in FIELDS if field.kinds[0] in (int, int | None)])
def test_what_is_no_whole_number_is_refused_by_name(field):
    for value in [1.5, math.nan, "2", "no", True, [], *([] if NoneType in field.kinds else [None])]:
        assert field.refusal(value).startswith(f"{field.name} is {value!r}; give a whole number")


def test_a_config_of_a_file_is_refused_as_one_of_python_is(tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps({"class": "SuperResTransformer", "aligned": "no"}))
    with pytest.raises(CheckpointError, match=r"does not describe a SuperResTransformer: aligned is 'no'; give one of"):
        read_config("SuperResTransformer", SuperResConfig, tmp_path)
