"""The data set and the networks travel small, and open as what was packed."""

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from muse.checkpoint import WEIGHTS, load_module, save_module
from muse.models.text_encoder import TextEncoder
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig
from muse.pipeline import SHIPPED
from projects.emoji import dataset, recipe
from projects.emoji.pack import DRAWINGS, MANIFEST, SIZES, pack_drawings, pack_networks, pack_start, unpack, weights
from projects.emoji.rasterise import draw

DISC = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="36" height="36"><circle cx="18" cy="18" r="{}" fill="#d33"/></svg>'
)


@pytest.fixture
def drawings():
    """Two SVG files and a WebP one."""
    picture = io.BytesIO()
    Image.fromarray(draw(DISC.format(9), 64)).save(picture, "WEBP", lossless=True)
    return [DISC.format(17), DISC.format(5), picture.getvalue()]


def test_packed_drawings_open_as_data_sets_of_every_size(tmp_path, art, drawings):
    records = [art.records[index] for index in (4, 7, 9)]
    pack_drawings(records, drawings, {"pictures": 99, "licences": {}}, tmp_path / "packed")
    unpack(tmp_path / "packed", tmp_path / "there")
    for data, size in SIZES.items():
        found = dataset.load(tmp_path / "there", data)
        assert found.pictures.shape == (3, size, size, 4)
        assert json.loads((tmp_path / "there" / data / MANIFEST).read_text())["size"] == size
        for index, (record, source) in enumerate(zip(records, drawings, strict=True)):
            assert found.records[index] == dataclasses.replace(record, index=index)
            assert np.array_equal(found.pictures[index], draw(source, size))


def test_packed_networks_come_back_in_float32_and_the_text_encoder_as_it_ships(tmp_path, tiny_bert):
    networks = tmp_path / "networks"
    tiny_bert.save(networks / "text_encoder")
    (networks / "judge").mkdir()
    before = {"weight": torch.randn(3, 4), "steps": torch.tensor(3)}
    save_file(before, networks / "judge" / WEIGHTS, metadata={"format": "pt"})
    pack_networks(networks, tmp_path / "packed")
    unpack(tmp_path / "packed", tmp_path / "there")
    after = load_file(tmp_path / "there" / "networks" / "judge" / WEIGHTS)
    assert after["weight"].dtype == torch.float32
    assert torch.allclose(after["weight"], before["weight"], atol=2e-3)
    assert after["steps"].equal(before["steps"])
    packed = tmp_path / "packed" / "text_encoder" / WEIGHTS
    assert packed.stat().st_size < 0.7 * (networks / "text_encoder" / WEIGHTS).stat().st_size
    there = TextEncoder.from_folder(tmp_path / "there" / "networks" / "text_encoder")
    told, expected = (each(["a red apple"])[0] for each in (there, tiny_bert))
    assert torch.nn.functional.cosine_similarity(told, expected, dim=-1).min() > 0.99


def test_a_start_has_the_vqgans_that_ship_and_transformers_that_open(tmp_path):
    places = recipe.Places(tmp_path / "project", "paper")
    trained = MaskedTransformer(TransformerConfig(16, 2, 2, dim=8, depth=1, heads=1, mlp_dim=8, text_dim=8))
    save_module(trained, places.base)
    pack_start(places, tmp_path / "packed")
    assert sorted(path.name for path in (tmp_path / "packed").iterdir()) == ["base-start", "vqgan", "vqgan-superres"]
    for part, name in (("vqgan", "vqgan"), ("vqgan-superres", "vqgan_superres")):
        packed, ships = (
            load_module(VQGAN, VQGANConfig, folder)
            for folder in (tmp_path / "packed" / part / "vqgan", SHIPPED / "emoji" / name)
        )
        assert packed.fingerprint() == ships.fingerprint()
    start = load_module(MaskedTransformer, TransformerConfig, tmp_path / "packed" / "base-start")
    for name, weight in trained.state_dict().items():
        assert torch.allclose(start.state_dict()[name], weight, atol=float(weight.abs().max()) / 200), name


def test_a_folder_that_was_not_packed_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="give a folder that pack has written"):
        unpack(tmp_path, tmp_path / "there")


def test_damaged_drawings_are_refused_and_nothing_passes_for_whole(tmp_path, art, drawings):
    pack_drawings([art.records[index] for index in (4, 7, 9)], drawings, {"pictures": 3}, tmp_path / "packed")
    unpack(tmp_path / "packed", tmp_path / "there")
    packed = tmp_path / "packed" / DRAWINGS
    packed.write_bytes(packed.read_bytes()[: packed.stat().st_size // 2])
    with pytest.raises(SystemExit, match=r"drawings.tar.xz is damaged; pack it again$"):
        unpack(tmp_path / "packed", tmp_path / "there")
    with pytest.raises(FileNotFoundError, match="no finished data set"):
        dataset.load(tmp_path / "there")


def test_weights_of_a_folder_without_any_are_refused(tmp_path):
    with pytest.raises(SystemExit, match=r"holds no model.safetensors; give the folder of a trained network$"):
        weights(tmp_path, tmp_path / "piece")


def test_weights_come_in_pieces_that_join(tmp_path, monkeypatch):
    monkeypatch.setattr("projects.emoji.pack.PIECE", 100)
    trained = {"weight": torch.randn(10, 20), "steps": torch.tensor(3)}
    save_file(trained, tmp_path / WEIGHTS)
    weights(tmp_path, tmp_path / "piece")
    pieces = sorted(tmp_path.glob("piece.*"), key=lambda path: int(path.suffix[1:]))
    assert len(pieces) > 4
    assert all(path.stat().st_size <= 100 for path in pieces)
    (tmp_path / "joined").write_bytes(b"".join(path.read_bytes() for path in pieces))
    found = load_file(tmp_path / "joined")
    assert found["weight"].equal(trained["weight"].half())
    assert found["steps"].equal(trained["steps"])
