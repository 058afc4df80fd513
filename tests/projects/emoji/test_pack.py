"""The data set and the networks travel small, and open as what was packed."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from projects.emoji import dataset, recipe
from projects.emoji.pack import lines_of, pack, unpack


@pytest.fixture
def built(tmp_path, art, monkeypatch):
    """A folder as `build` and `networks` leave it; two of its four styles are the recipe's."""
    monkeypatch.setattr(recipe, "STYLES", ("noto", "twemoji"))
    folder = tmp_path / "built"
    (folder / "data").mkdir(parents=True)
    np.save(folder / "data" / "pictures.npy", art.pictures)
    (folder / "data" / "records.jsonl").write_text(lines_of(list(art.records)))
    (folder / "data" / "manifest.json").write_text(json.dumps({"pictures": len(art.records), "licences": {}}))
    for name in ("judge", "text_encoder"):
        (folder / "networks" / name).mkdir(parents=True)
        weights = {"weight": torch.randn(3, 4), "steps": torch.tensor(3)}
        save_file(weights, folder / "networks" / name / "model.safetensors", metadata={"format": "pt"})
    (folder / "networks" / "text_encoder" / "vocab.txt").write_text("apple")
    return folder


def test_packed_pictures_open_as_a_data_set_of_the_recipes_styles(built, tmp_path, art):
    pack(built, tmp_path / "packed", quality=95)
    unpack(tmp_path / "packed" / "pictures", tmp_path / "there")
    found = dataset.load(tmp_path / "there")
    kept = [record for record in art.records if record.style in ("noto", "twemoji")]
    assert [record.index for record in found.records] == list(range(len(kept)))
    for record, original in zip(found.records, kept, strict=True):
        assert {**asdict(record), "index": 0} == {**asdict(original), "index": 0}
        mine, theirs = found.pictures[record.index].astype(int), art.pictures[original.index].astype(int)
        assert np.abs(mine[..., 3] - theirs[..., 3]).max() == 0  # WebP keeps alpha exactly
        solid = theirs[..., 3] > 0
        assert np.abs(mine - theirs)[solid].mean() < 8


def test_packed_networks_come_back_whole_in_half_precision(built, tmp_path):
    pack(built, tmp_path / "packed")
    unpack(tmp_path / "packed" / "networks", tmp_path / "there")
    for name, dtype in (("judge", torch.float32), ("text_encoder", torch.float16)):
        before = load_file(built / "networks" / name / "model.safetensors")
        after = load_file(tmp_path / "there" / "networks" / name / "model.safetensors")
        assert after["weight"].dtype == dtype
        assert torch.allclose(after["weight"].float(), before["weight"], atol=2e-3)
        assert after["steps"].equal(before["steps"])
    assert (tmp_path / "there" / "networks" / "text_encoder" / "vocab.txt").read_text() == "apple"


def test_a_folder_that_was_not_packed_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="give a folder that pack has written"):
        unpack(tmp_path, tmp_path / "there")
