"""The data set and the networks travel small, and open as what was packed."""

import dataclasses
import io
import json
import tarfile
from unittest.mock import Mock

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
from projects.emoji import dataset, recipe, tokens
from projects.emoji.pack import (
    DRAWINGS,
    MANIFEST,
    RECORDS,
    SIZES,
    TOKENS,
    pack_drawings,
    pack_networks,
    pack_start,
    pack_tokens,
    unpack,
    weights,
)
from projects.emoji.rasterise import draw
from projects.emoji.tokens import CacheOptions
from projects.emoji.train import TokensOfStep
from projects.emoji.vocabulary import MEANINGS, load_meanings

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
    (tmp_path / "packed" / MEANINGS).write_text('{"cat": ["feline mammal"]}')
    unpack(tmp_path / "packed", tmp_path / "there")
    assert load_meanings(tmp_path / "there", ()) == {"cat": ["feline mammal"]}
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
    save_module(trained, places.decoder_low)  # of a decoder that was trained on, gpu.sh copies nothing
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


def test_packed_tokens_train_without_pictures_and_what_is_missing_cannot_be_painted(tmp_path, art):
    here, there = recipe.Places(tmp_path / "here", "paper"), recipe.Places(tmp_path / "there", "paper")
    scale, options = here.of_scale, CacheOptions(singles_per_picture=1, compositions=0)
    for data, size in ((scale.data, scale.size), (scale.large_data, scale.large_size)):
        folder = here.folder / data
        folder.mkdir(parents=True)
        rows = [json.dumps(dataclasses.asdict(record)) for record in art.records]
        (folder / RECORDS).write_text("\n".join(rows) + "\n")
        (folder / MANIFEST).write_text(json.dumps({"size": size}))
    scene = {"kind": "single", "items": [3], "count": 1, "relation": None, "background": None}
    name = f"seen-{scale.tokens.seed}-{scale.size}"
    for cache in (name, f"seen-{scale.paired.seed}-{scale.large_size}"):
        folder = here.runs / "tokens" / cache
        folder.mkdir(parents=True)
        np.save(folder / "tokens.npy", np.arange(8, dtype=np.uint16).reshape(2, 4))
        scenes = [json.dumps(each) + "\n" for each in (scene, {**scene, "kind": "count", "count": 2})]
        (folder / "scenes.jsonl").write_text("".join(scenes))
        about = {"vqgan_fingerprint": "0123456789ab", "pictures": 1, **dataclasses.asdict(options)}
        (folder / "cache.json").write_text(json.dumps(about))
    (here.folder / "meanings.json").write_text('{"cat": ["feline mammal"]}')
    pack_tokens(here, tmp_path / "packed", "base")
    unpack(tmp_path / "packed", there.folder)
    assert load_meanings(there.folder, ()) == {"cat": ["feline mammal"]}
    assert [path.name for path in (there.runs / "tokens").iterdir()] == [name]
    found = dataset.load(there.folder, scale.data, needs_pictures=False)
    assert (found.records, found.size, found.has_pictures) == (art.records, scale.size, False)
    cache = tokens.load(there.runs / "tokens" / name)
    batch = TokensOfStep(found, cache, batch=2, scale=dataclasses.replace(scale, single_share=1.0))(0)
    assert batch.tokens.tolist() == [[0, 1, 2, 3]] * 2
    assert all(art.records[3].concept.split()[0] in caption.lower() for caption in batch.captions)
    vqgan = Mock(VQGAN, **{"fingerprint.return_value": "0123456789ab"})
    tokens.build(found, [3], vqgan, options, there.runs / "tokens" / name)  # whole: nothing to do
    with pytest.raises(FileNotFoundError, match=r"no tokens of these scenes, and the data set no pictures to paint"):
        tokens.build(found, [3], vqgan, options, there.runs / "tokens" / "other")
    with pytest.raises(FileNotFoundError):
        dataset.load(there.folder, scale.data)


def test_packed_tokens_that_are_damaged_are_refused(tmp_path):
    (tmp_path / TOKENS).write_bytes(b"no archive")
    with pytest.raises(SystemExit, match=r"tokens.tar.xz is damaged; pack it again$"):
        unpack(tmp_path, tmp_path / "there")


def test_packed_tokens_write_nothing_beside_their_folder(tmp_path):
    with tarfile.open(tmp_path / TOKENS, "w:xz") as tar:
        about = tarfile.TarInfo("../elsewhere.json")
        about.size = 2
        tar.addfile(about, io.BytesIO(b"{}"))
    with pytest.raises(SystemExit, match=r"holds ../elsewhere.json, which lies outside of .*there; pack it again$"):
        unpack(tmp_path, tmp_path / "there")
    assert not (tmp_path / "elsewhere.json").exists()


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
