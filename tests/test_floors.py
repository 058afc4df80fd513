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
    "transformers",
    "torch._dynamo",
)
HEAVY += ("fastapi", "gradio", "openai", "uvicorn")
REFUSE = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if any(f"{{name}}.".startswith(f"{{heavy}}.") for heavy in {HEAVY!r}):
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


def test_the_core_draws_without_what_only_training_tests_and_other_models_need():
    """Nor with `transformers` or the compiler of torch: either takes longer to be imported than a picture to draw."""
    code = REFUSE + (
        "from muse import Muse, SamplingOptions; muse = Muse.from_pretrained('emoji'); "
        "print(muse.generate(['a red apple'], [1], options=SamplingOptions(steps=2), size='low')[0].size)"
    )
    ran = python(code, CUDA_VISIBLE_DEVICES="")
    assert ran.stdout == "(256, 256)\n", ran.stderr


def test_training_imports_no_metrics_and_no_text_encoders_for_a_version():
    """Fabric would, of the whole of torchmetrics, and takes what it is shown in its place for it."""
    code = (
        "import sys, muse.training.superres, muse.training.vqgan; "
        "print({'torchmetrics', 'transformers'} & {*sys.modules}); "
        "from lightning_fabric.utilities.imports import _TORCHMETRICS_GREATER_EQUAL_1_0_0 as known; print(known); "
        "from torchmetrics.functional.image import peak_signal_noise_ratio as psnr; print(psnr.__module__)"
    )
    ran = python(code)
    assert ran.stdout == "set()\nTrue\ntorchmetrics.functional.image.psnr\n", ran.stderr


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
