"""What the documents say is so: their commands run, their trees match the folders."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from docs import reference

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
MUSE_BLOCKS = [
    commands
    for kind, block in BLOCKS
    if kind == "sh"
    and (commands := [line.split("#")[0].strip() for line in block.splitlines() if line.startswith(".venv/bin/muse ")])
]

IN_TURN = """
import contextlib, json, sys
from muse.apps.cli import main

for words in json.loads(sys.argv[1]):
    code = 0
    with contextlib.suppress(SystemExit) if words == ["--help"] else contextlib.nullcontext():
        code = main(words)
    assert code == 0, f"{words} ended with {code}"
"""


@pytest.mark.parametrize("commands", MUSE_BLOCKS)
def test_the_muse_commands_of_the_readme_run_block_by_block(commands: list[str], tmp_path: Path):
    """In one process, as most of a command's time goes into imports."""
    assert commands
    words = [shlex.split(command)[1:] for command in commands]
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(words)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_python_of_the_readme_runs(tmp_path: Path):
    (code,) = [block for kind, block in BLOCKS if kind == "python"]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert (tmp_path / "apple.png").stat().st_size > 0


def test_every_make_target_of_the_readme_exists():
    wanted = re.findall(r"^make (\w+)", "".join(block for kind, block in BLOCKS if kind == "sh"), re.MULTILINE)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert wanted
    assert set(wanted) <= set(targets)


def test_the_tree_of_the_readme_is_the_tree():
    (tree,) = [block for kind, block in BLOCKS if kind == "" and "src/muse/" in block]
    inside = re.findall(r"^  ([\w./]+)", tree, re.MULTILINE)
    beside = re.findall(r"^([\w./]+)", tree, re.MULTILINE)
    assert all((ROOT / name).is_dir() for name in beside)
    there = {path.name for path in (ROOT / "src/muse").iterdir() if not path.name.startswith("__")}
    assert {name.split("/")[0] for name in inside} == there


def test_the_architecture_names_every_module():
    architecture = (ROOT / "docs/architecture.md").read_text()
    modules = [path for path in (ROOT / "src/muse").rglob("*.py") if not path.stem.startswith("__")]
    missing = [path.stem for path in modules if f"`{path.stem}`" not in architecture and path.name not in architecture]
    assert not missing


def test_links_between_documents_lead_somewhere():
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+?)\)", document.read_text()):
            assert link.startswith("http") or (document.parent / link).exists(), f"{document.name}: {link}"


def test_the_reference_of_the_command_line_is_what_it_prints():
    assert (ROOT / "docs/cli.md").read_text() == reference.page(), "run `python -m docs.reference`"


def test_the_documentation_builds_strictly(tmp_path: Path):
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "from_pretrained" in (tmp_path / "site/api/index.html").read_text()
