"""Files of `torch.export.save`, read without running what they bring along: `torch.export.load` by itself unpickles
whatever an archive marks as a pickle, and evaluates its expressions."""

import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader

from muse.checkpoint import CheckpointError, first_line

MODEL, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
RECORD = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|extra/.*"
    r"|archive_format|archive_version|version|byteorder|\.data/\w+"
    rf"|{'|'.join(map(re.escape, (MODEL, SAMPLES, *CONFIGS)))}"
)
"""What an archive of one network may hold: no objects, nothing compiled, none of the older kinds."""
OPERATOR = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem)"
)
"""What a node may call: torch's own operators on tensors, and arithmetic of sizes."""
SIZES = re.compile(
    r"(\b(Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv|IntTrueDiv|Eq|Ne|[GL][et]|"
    r"positive|negative|nonnegative|integer|evaluate|True|False|[su]\d+|\d+)\b|[ '(),=<>+*/-])*"
)
"""Expressions of sizes, which torch evaluates as Python."""
PLAIN = re.compile(r"[\w., @+>-]*")
"""Any other text: without brackets nothing is called, wherever torch puts it."""
CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
"""Kinds of inputs and outputs whose making imports nothing."""


def load_program(path: Path) -> ExportedProgram:
    """A network of `torch.export.save`, none of whose bytes is unpickled without `weights_only` or run as Python.
    Raises CheckpointError if it asks for that, and whatever torch raises if it is no such file."""
    archive = io.BytesIO(path.read_bytes())  # what is looked at is what is loaded, whatever becomes of the file
    if found := next(unsafe_parts(archive), None):
        raise CheckpointError(
            f"{path} is not loaded, as it may run code ({found}); give a network that "
            "muse.evaluation.networks.export_features wrote"
        )
    archive.seek(0)
    return torch.export.load(archive)


def unsafe_parts(archive: io.BytesIO) -> Iterator[str]:
    """What of an archive torch would unpickle, run or evaluate, in words.
    Raises whatever torch and zipfile raise if it is no archive."""
    with zipfile.ZipFile(archive) as opened:
        if "version" in opened.namelist():  # by this torch.export.load tells its oldest format, of pickles
            yield "it is of an old format, a pickle"
            return
    archive.seek(0)
    reader = PT2ArchiveReader(archive)
    yield from (f"it holds {name}" for name in reader.get_file_names() if not RECORD.fullmatch(name))
    for name in CONFIGS:
        for weight, about in json.loads(reader.read_string(name))["config"].items():
            if about["use_pickle"] is not False:
                yield f"{weight} is a pickle"
    if samples := reader.read_bytes(SAMPLES):
        try:
            torch.load(io.BytesIO(samples), weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            yield f"its sample inputs are not of tensors alone: {first_line(error)}"
    yield from (f"it says {text[:80]!r}" for text in unsafe_texts(json.loads(reader.read_string(MODEL))))


def unsafe_texts(thing: Any, key: str = "") -> Iterator[str]:
    """The texts of a serialised network that are no names, operators and sizes, at any depth below a key."""
    if isinstance(thing, dict):
        for name, value in thing.items():
            yield from unsafe_texts(name)
            if not (name == "metadata" and is_kept_only(value)):
                yield from unsafe_texts(value, name)
    elif isinstance(thing, list):
        for value in thing:
            yield from unsafe_texts(value, key)
    elif isinstance(thing, str) and key in ("in_spec", "out_spec"):
        yield from unsafe_kinds(json.loads(thing)[1])
    elif isinstance(thing, str):
        wanted = {"target": OPERATOR, "as_operator": OPERATOR, "expr_str": SIZES}.get(key, PLAIN)
        if not wanted.fullmatch(thing):
            yield thing


def is_kept_only(metadata: Any) -> bool:
    """Whether these are the lines of source and the like of a node, and no tensor or network of that name."""
    return isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())


def unsafe_kinds(spec: Any) -> Iterator[str]:
    """The kinds of inputs or outputs that are no plain containers."""
    if spec["type"] not in CONTAINERS:
        yield str(spec["type"])
    for child in spec["children_spec"]:
        yield from unsafe_kinds(child)
