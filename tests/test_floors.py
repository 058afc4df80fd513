"""Imports only go down, and the core needs nothing that only training, tests or a GPU have."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = (
    "diffusers",
    "matplotlib",
    "lightning",
    "lightning_fabric",
    "datasets",
    "torchvision",
    "scipy",
    "resvg_py",
    "torchmetrics",
)
HEAVY += ("fastapi", "gradio", "openai", "uvicorn")
REFUSE = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError(f"{{name}} is not for the core")
sys.meta_path.insert(0, Refuse())
"""


def python(code, **environment):
    """Run code in a fresh interpreter that finds the package in the source tree."""
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
    )


def test_imports_only_go_down():
    ran = python("from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "0 broken" in ran.stdout


def test_a_floor_that_imports_upward_is_found(tmp_path):
    """The test above could fail."""
    settings = (ROOT / "pyproject.toml").read_text()
    upside_down = settings.replace('"muse.pipeline",\n', "").replace(
        '"muse.shapes",\n', '"muse.shapes",\n"muse.pipeline",\n'
    )
    assert settings != upside_down
    (tmp_path / "pyproject.toml").write_text(upside_down)
    config = str(tmp_path / "pyproject.toml")
    code = f"from importlinter.cli import lint_imports; raise SystemExit(lint_imports({config!r}, no_cache=True))"
    ran = python(code)
    assert ran.returncode == 1
    assert "muse.pipeline -> muse." in ran.stdout


def test_the_core_draws_without_what_only_training_and_tests_need():
    code = REFUSE + "import muse.pipeline, muse.sampling; from muse import Muse, SamplingOptions; print(Muse.__name__)"
    ran = python(code, CUDA_VISIBLE_DEVICES="")
    assert ran.stdout == "Muse\n", ran.stderr


def test_importing_muse_alone_imports_no_torch():
    ran = python("import sys, muse; print(muse.__version__, 'torch' in sys.modules)")
    assert ran.stdout.endswith(" False\n"), ran.stderr


def test_importing_everything_starts_no_cuda():
    code = (
        "import torch, muse.pipeline, muse.training.superres, muse.training.decoder, muse.evaluation.evaluate; "
        "print(torch.cuda.is_initialized())"
    )
    ran = python(code)
    assert ran.stdout == "False\n", ran.stderr
