"""The page of all commands, made from the command line's own help.

python -m docs.reference
"""

import contextlib
import io
import os
import re
from pathlib import Path
from unittest.mock import patch

from muse.apps.cli import main as muse

PAGE = Path(__file__).parent / "cli.md"
WIDTH = "100"
INTRODUCTION = """# Command line

Every command and every option, as `muse COMMAND --help` prints them; made by `python -m docs.reference`.
"""


def help_of(*command: str) -> str:
    """What `muse COMMAND --help` prints on a terminal of 100 columns without colours."""
    shown = io.StringIO()
    plain = {"COLUMNS": WIDTH, "NO_COLOR": "1", "TERM": "dumb"}
    with patch.dict(os.environ, plain), contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        muse([*command, "--help"])
    return "\n".join(line.rstrip() for line in shown.getvalue().strip().splitlines())


def commands(*parents: str) -> list[tuple[str, ...]]:
    """Every command below some, depth first."""
    names = re.findall(r"^[│ ]*• ([\w-]+)", help_of(*parents), re.MULTILINE)
    return [found for name in names for found in ((*parents, name), *commands(*parents, name))]


def page() -> str:
    """The whole page as Markdown."""
    parts = [INTRODUCTION]
    for command in ((), *commands()):
        parts.append(f"## muse {' '.join(command)}".rstrip() + f"\n\n```text\n{help_of(*command)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
