"""Networks that look at pictures, tiny and of random weights; and real pictures to compare with."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.peers import StandIns
from tests.evaluation.tiny_networks import SIDE, TinyFeatures, noise


@pytest.fixture
def torch_fidelity(monkeypatch):
    """Modules of torch-fidelity by name. `make` installs it apart, in a folder of the environment, as torchmetrics does
    not import beside it where torchvision is missing; nothing that is compared uses torchvision."""
    import torchmetrics.image  # looks once, when it is imported, whether torch-fidelity is there

    assert torchmetrics.image
    finder = StandIns()
    sys.meta_path.append(finder)
    monkeypatch.syspath_prepend(str(Path(sys.prefix) / "peers"))
    yield lambda name: importlib.import_module(f"torch_fidelity.{name}")
    sys.meta_path.remove(finder)
    for name in [name for name in sys.modules if name.split(".")[0] in ("torch_fidelity", "torchvision")]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The file of an exported network."""
    from muse.evaluation.networks import export_features

    path = tmp_path_factory.mktemp("networks") / "eye.pt2"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        export_features(TinyFeatures(), SIDE, path)
    return path


@pytest.fixture(scope="session")
def towers_folder(exported, tiny_t5, tmp_path_factory):
    """Alignment towers that were never trained, with the encoders below them."""
    from muse.checkpoint import save_module
    from muse.evaluation.alignment import FEATURES, TEXT_ENCODER, TOWERS, AlignmentConfig, AlignmentTowers

    folder = tmp_path_factory.mktemp("alignment") / "alignment"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        save_module(AlignmentTowers(AlignmentConfig(text_dim=32, image_dim=24, dim=8)), folder / TOWERS)
    tiny_t5.save(folder / TEXT_ENCODER)
    (folder / FEATURES).write_bytes(exported.read_bytes())
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    """60 real pictures, and prompts in two groups."""
    folder = tmp_path_factory.mktemp("data") / "data"
    (folder / "reference").mkdir(parents=True)
    for i in range(60):
        noise(i).save(folder / "reference" / f"{i:03}.png")
    rows = ['{"prompt": "a red apple", "group": "single"}', '{"prompt": "two dog, 3d style", "group": "cardinality"}']
    (folder / "prompts.jsonl").write_text("\n".join(rows) + "\n")
    return folder
