"""Every example runs, on any model, and writes what it says."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
WRITES = {
    "inpaint": {"apple.png", "inpainted-1.png", "inpainted-2.png"},
    "outpaint": {"sky.png", "outpainted.png"},
    "edit": {"apple.png", "edited.png", "edited.webp"},
    "vary": {"varied.png"},
    "interactive": {f"update-{number}.png" for number in range(1, 5)},
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("folder", ["tiny_folder", "cascade_folder"])
def test_an_example_runs_and_writes_what_it_says(path, folder, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), str(request.getfixturevalue(folder))])
    runpy.run_path(str(path), run_name="__main__")
    assert {written.name for written in tmp_path.iterdir()} == WRITES[path.stem]
    for written in tmp_path.iterdir():
        Image.open(written).load()
    usage = re.search(r"python examples/(\w+)\.py \[MODEL\]", path.read_text())
    assert usage is not None
    assert usage[1] == path.stem


def test_there_is_an_example_for_each_verb():
    assert {path.stem for path in EXAMPLES} == set(WRITES)
