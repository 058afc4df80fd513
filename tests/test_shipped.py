"""The model that ships: it draws what it is asked for, with no hub, from a wheel."""

import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from muse.images import read_png_text
from muse.pipeline import SHIPPED, Muse

ROOT = Path(__file__).parent.parent
OFFLINE = {**os.environ, "HF_HUB_OFFLINE": "1"}


# A child's maximum by the operating system's account of it would begin with what its parent held when it was forked.
DRAW_AND_TELL_PEAK = """
import pathlib, sys
from muse.apps.cli import main
code = main(sys.argv[1:])
print(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
sys.exit(code)
"""


def muse_generate(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "muse", "generate", *arguments]
    return subprocess.run(command, cwd=cwd, env=OFFLINE | environment, capture_output=True, text=True, check=False)


def is_a_red_thing_on_white(path: Path) -> bool:
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(float)
    height, width, _ = pixels.shape
    red, green, blue = pixels[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3].mean((0, 1))
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    return bool(red > max(green, blue) + 50 and corners.min() > 200)


def test_the_shipped_model_draws_a_red_apple_within_memory_and_offline(tmp_path: Path):
    arguments = ["generate", "a red apple, 3d style", "--seed", "1", "--out", "apple.png"]
    command = [sys.executable, "-c", DRAW_AND_TELL_PEAK, *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=OFFLINE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert is_a_red_thing_on_white(tmp_path / "apple.png")
    assert read_png_text(tmp_path / "apple.png")["prompt"] == "a red apple, 3d style"
    assert int(done.stdout.split()[-1]) < 1.5 * 2**20  # KiB


LONG_PROMPT = (
    "three strawberries, a red apple and a green banana above a crab on a sky blue background, twitter style, please, "
    "and a fox beside a bicycle, a rocket, a crown and a slice of pizza"
)


@pytest.mark.parametrize("size", ["low", "high"])
def test_a_picture_is_the_same_to_the_last_bit_in_any_company(size):
    """In bfloat16 where `auto` takes it: there the least difference may become another token. The longest prompt has 44
    sub-words, the others 4 and 13."""
    muse = Muse.from_pretrained("emoji", "cpu")
    more = {"size": size, "options": replace(muse.defaults, steps=4, guidance=1.0)}
    more |= {"superres_options": replace(muse.superres_defaults, steps=2)} if size == "high" else {}
    prompts, seeds = ["a fox", "three rockets on a sky blue background, noto style", LONG_PROMPT], [7, 3, 8]
    together = muse.generate(prompts, seeds, **more)
    for prompt, seed, picture in zip(prompts, seeds, together, strict=True):
        (alone,) = muse.generate([prompt], [seed], **more)
        assert np.array_equal(np.asarray(alone), np.asarray(picture)), prompt


def test_bfloat16_leaves_the_shipped_models_predictions_as_they_are_but_for_a_little():
    exact, rounded = (Muse.from_pretrained("emoji", "cpu", precision) for precision in ("float32", "bfloat16"))
    prompts = ["a red apple, 3d style", "a fox on a blue background, noto style", "three rockets", "a cat and a pizza"]
    text, is_word = exact.text_encoder(prompts)
    drawn = exact.draw_base(text, is_word, range(len(prompts)), replace(exact.defaults, steps=6))
    is_hidden = torch.rand(drawn.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    tokens = drawn.masked_fill(is_hidden, exact.base.config.mask_id)
    with torch.no_grad():
        ours, theirs = (
            muse.base(tokens, muse.base.read(text, is_word), is_hidden).float().log_softmax(-1)
            for muse in (exact, rounded)
        )
    divergence = (ours.exp() * (ours - theirs)).sum(-1)
    assert divergence.mean() < 0.02  # nats; a token holds several
    assert (ours.argmax(-1) == theirs.argmax(-1)).float().mean() > 0.9


def test_the_wheel_is_under_100_mb_and_draws_where_it_is_installed(tmp_path: Path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size < 100e6
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    done = muse_generate("a red apple, 3d style", "--seed", "1", "--out", "apple.png", cwd=site)
    assert done.returncode == 0, done.stderr
    assert is_a_red_thing_on_white(site / "apple.png")


def test_the_wheel_holds_no_code_of_the_project_and_no_pickle(tmp_path: Path):
    shipped = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert {path.suffix for path in shipped} <= {".json", ".safetensors", ".txt", ".md"}


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE"])
def test_licences_are_stated(name: str):
    assert len((ROOT / name).read_text()) > 500


def test_the_documented_examples_are_put_in_the_words_that_stand_beside_them():
    muse, rows = Muse.from_pretrained("emoji", "cpu"), (ROOT / "docs/generate.md").read_text().splitlines()
    first = rows.index("| asked for | drawn | why |") + 2
    cells = [row.strip("| ").split(" | ") for row in rows[first : rows.index("", first)]]
    told = [(asked, cell[1]) for cell in cells for asked in cell[0].split("; ")]
    told += [("a cat sitting on a chair", "a cat above a chair"), ("a freeway", "a motorway")]  # of README.md
    assert len(told) > 10
    assert {asked: muse.reword(asked) for asked, _ in told} == dict(told)
