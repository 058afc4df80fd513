"""Files that are whole whenever they are there, and their hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class BuildError(Exception):
    """The build cannot go on; the message is one sentence for a person."""


def run_command(work: Callable[[], None]) -> None:
    """Do a command's work. SystemExit, with one sentence for a person, for what was asked wrongly or is not there."""
    try:
        work()
    except (BuildError, OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_results(folder: Path, name: str, figures: dict[str, Any], table: str) -> None:
    """NAME.json with all figures and NAME.md with a table of them, in a folder that is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{name}.json", json.dumps(figures, indent=1) + "\n")
    write_atomically(folder / f"{name}.md", table + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Write beside the path and rename, so that the file is whole whenever it is there."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text)
    beside.replace(path)
