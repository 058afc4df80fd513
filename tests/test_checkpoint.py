"""A module and its folder: what is saved comes back, and what is damaged is refused in one sentence."""

import json
import os
import resource
import stat
import unittest.mock
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file, save_file

from muse import checkpoint
from muse.checkpoint import (
    SCALES,
    CheckpointError,
    count_parameters,
    is_narrow,
    load_module,
    read_json,
    save_module,
    write_tensors,
    write_whole,
)
from muse.models.transformer import MaskedTransformer, TransformerConfig
from muse.models.vqgan import VQGAN, VQGANConfig


@pytest.fixture
def folder(own_folder):
    return own_folder / "base"


def load(folder):
    return load_module(MaskedTransformer, TransformerConfig, folder)


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


def test_what_is_saved_comes_back_to_the_bit(tiny_vqgan, tmp_path):
    save_module(tiny_vqgan, tmp_path / "vqgan")
    loaded = load_module(VQGAN, VQGANConfig, tmp_path / "vqgan")
    assert loaded.config == tiny_vqgan.config
    assert loaded.state_dict().keys() == tiny_vqgan.state_dict().keys()
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in tiny_vqgan.state_dict().items())
    assert not loaded.training


def test_rounded_weights_take_half_the_space_and_load_as_float32(tiny_vqgan, tmp_path):
    save_module(tiny_vqgan, tmp_path / "full")
    save_module(tiny_vqgan, tmp_path / "half", torch.bfloat16)
    full, half = (os.path.getsize(tmp_path / name / "model.safetensors") for name in ("full", "half"))
    assert half < 0.7 * full
    loaded = load_module(VQGAN, VQGANConfig, tmp_path / "half").quantizer.codebook
    assert torch.equal(loaded, tiny_vqgan.quantizer.codebook.bfloat16().float())


def test_weights_in_int8_take_a_quarter_of_the_space_and_are_off_by_half_a_step_of_their_row(tiny_vqgan, tmp_path):
    tiny_vqgan.encoder.conv_in.weight.data[0] = 0  # a row without a scale
    save_module(tiny_vqgan, tmp_path / "full")
    save_module(tiny_vqgan, tmp_path / "narrow", torch.int8)
    assert is_narrow(tmp_path / "narrow")
    assert not is_narrow(tmp_path / "full")
    assert count_parameters(tmp_path / "narrow") == count_parameters(tmp_path / "full")
    stored = load_file(tmp_path / "narrow" / "model.safetensors")
    loaded = load_module(VQGAN, VQGANConfig, tmp_path / "narrow").state_dict()
    for name, tensor in tiny_vqgan.state_dict().items():
        if tensor.ndim > 1:
            assert stored[name].dtype == torch.int8
            largest = tensor.flatten(1).abs().amax(1, keepdim=True)
            assert ((loaded[name] - tensor).flatten(1).abs() <= largest / 254 * 1.001).all()
        else:
            assert torch.equal(loaded[name], tensor.half().float())


@pytest.mark.parametrize("harm", ["no scales", "other scales", "no weight"])
def test_weights_in_int8_whose_scales_do_not_fit_are_refused(harm, tiny_vqgan, tmp_path):
    save_module(tiny_vqgan, tmp_path, torch.int8)
    stored = load_file(tmp_path / "model.safetensors")
    name = "quantizer.codebook"
    if harm == "other scales":
        stored[name + SCALES] = stored[name + SCALES][1:]
    else:
        del stored[name if harm == "no weight" else name + SCALES]
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"weight {name} of .* is in int8 without fitting scales"):
        load_module(VQGAN, VQGANConfig, tmp_path)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_every_file_has_the_mode_that_the_umask_leaves(umask, mode, tiny_vqgan, tiny_t5, tmp_path):
    before = os.umask(umask)
    try:
        save_module(tiny_vqgan, tmp_path / "vqgan")
        tiny_t5.save(tmp_path / "text_encoder")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {path.name: mode for path in files}
    assert not [path for path in files if path.suffix == ".tmp"]


@pytest.mark.parametrize("cause", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_saving_that_is_cut_short_leaves_the_old_files_and_nothing_else(cause, tiny_vqgan, folder, monkeypatch):
    def cut_short(weights, path, metadata):
        path.write_bytes(b"half")
        raise cause

    names, size = sorted(os.listdir(folder)), (folder / "model.safetensors").stat().st_size
    monkeypatch.setattr(checkpoint, "save_file", cut_short)
    with pytest.raises(type(cause)):
        save_module(tiny_vqgan, folder)
    assert (sorted(os.listdir(folder)), (folder / "model.safetensors").stat().st_size) == (names, size)


@pytest.mark.parametrize("part", ["tiny_vqgan", "tiny_t5"])
def test_a_disk_that_is_full_is_told_of_in_one_sentence(part, tmp_path, request):
    """The system itself refuses to write more: a limit to the size of a file, as no test may fill a disk."""
    module = request.getfixturevalue(part)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"^\S+model\.safetensors cannot be written \(.*File too large"):
            module.save(tmp_path) if part == "tiny_t5" else save_module(module, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path):
    write_whole(tmp_path / "a.json", "{}")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "a.json", "half \ud800")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["{}"]


def test_a_text_for_which_a_disk_has_no_room_is_named_and_leaves_the_old_one(tmp_path, monkeypatch):
    write_whole(tmp_path / "a.json", "{}")
    monkeypatch.setattr("os.replace", unittest.mock.Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(
        OSError, match=r"^\S+a\.json cannot be written \(No space left on device\); make room on the disk"
    ):
        write_whole(tmp_path / "a.json", "more")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["{}"]


def test_processes_of_the_same_number_write_a_file_at_once_and_each_time_it_is_whole(tmp_path):
    """As on several machines, in containers whose processes have equal numbers: here they are threads of one."""
    texts = [str(i) * 1000 for i in range(4)]

    def write(text):
        for _ in range(100):
            write_whole(tmp_path / "a.json", text)
            write_tensors(tmp_path / "a.safetensors", {"a": torch.full((100,), float(text[0]))})
            assert (tmp_path / "a.json").read_text() in texts
            assert len(load_file(tmp_path / "a.safetensors")["a"].unique()) == 1

    with ThreadPoolExecutor(len(texts)) as pool:
        list(pool.map(write, texts))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.safetensors"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name, folder):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} is missing"):
        load(folder)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(share, folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(share * len(content))])
    for read in (load, count_parameters):
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
            read(folder)


@pytest.mark.parametrize("content", [b"", b"{", b'{"class": ', b"\xff\xfe\x00", b"{} {}"])
def test_damaged_json_is_refused(content, folder):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        load(folder)


def test_json_that_is_no_object_is_refused(folder):
    (folder / "config.json").write_text("[1, 2]")
    with pytest.raises(CheckpointError, match="holds a list; wanted an object"):
        read_json(folder / "config.json")


def test_a_config_of_another_class_is_refused(folder):
    with pytest.raises(CheckpointError, match="describes a MaskedTransformer; wanted a VQGAN"):
        load_module(VQGAN, VQGANConfig, folder)


def test_a_config_with_an_unknown_field_is_refused(folder):
    change_config(folder, register_tokens=4)
    with pytest.raises(CheckpointError, match="'register_tokens' that this version does not know; upgrade"):
        load(folder)


@pytest.mark.parametrize(
    "fields",
    [{"depth": "2"}, {"heads": 0}, {"heads": 7}, {"dropout": 2}, {"height": -1}, {"num_codes": 6.5}, {"mlp_dim": None}],
)
def test_a_config_that_describes_no_network_is_refused(fields, folder, without_type_checks):
    change_config(folder, **fields)
    with pytest.raises(CheckpointError, match="does not describe a MaskedTransformer: "):
        load(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"depth": 3}, "is missing from"), ({"depth": 1}, "is not asked for"), ({"mlp_dim": 64}, "its config says")],
)
def test_a_config_that_does_not_fit_its_weights_is_refused(fields, message, folder):
    change_config(folder, **fields)
    with pytest.raises(CheckpointError, match=rf"^weight layers\.\d.*{message}.*belong to different models"):
        load(folder)


def test_a_pickle_is_never_opened(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load(folder)


def test_parameters_are_counted_without_reading_them(tiny_muse, tiny_folder, tmp_path):
    assert count_parameters(tiny_folder / "base") == sum(p.numel() for p in tiny_muse.base.parameters())
    for i in range(2):
        save_file({f"weight{i}": torch.zeros(3, 4)}, tmp_path / f"model-{i}.safetensors")
    assert count_parameters(tmp_path) == 24
