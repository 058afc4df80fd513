"""Files that are whole whenever they are there, and their hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path


class BuildError(Exception):
    """The build cannot go on; the message is one sentence for a person."""


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write beside the path and rename, so that the file is whole whenever it is there."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text)
    beside.replace(path)
