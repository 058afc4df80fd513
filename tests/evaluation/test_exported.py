"""Exported networks that bring code along are refused before any of it runs."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export.pt2_archive import PT2ArchiveReader, PT2ArchiveWriter

from muse.checkpoint import CheckpointError
from muse.evaluation.networks import export_features, load_features
from tests.evaluation.tiny_networks import SIDE

WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
MODEL, SAMPLES = "models/model.json", "data/sample_inputs/model.pt"


class Touch:
    """A pickle that leaves a file when it is loaded."""

    def __init__(self, flag: Path):
        self.flag = flag

    def __reduce__(self):
        return Path.touch, (self.flag,)


def saved(thing: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def with_pickled_weight(records: dict[str, bytes], flag: Path) -> None:
    config = json.loads(records[WEIGHTS])
    weight = config["config"]["layers.0.bias"]
    weight["use_pickle"] = True
    records[WEIGHTS] = json.dumps(config).encode()
    records[f"data/weights/{weight['path_name']}"] = saved(Touch(flag))


def with_old_weights(records: dict[str, bytes], flag: Path) -> None:
    records["data/weights/model.pt"] = saved({"layers.0.bias": Touch(flag)})


def with_old_constants(records: dict[str, bytes], flag: Path) -> None:
    records["data/constants/model.pt"] = saved({"constant": Touch(flag)})


def with_object(records: dict[str, bytes], flag: Path) -> None:
    about = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    records[CONSTANTS] = json.dumps({"config": {"constant": about}}).encode()
    records["data/constants/opaque_obj_0"] = pickle.dumps(Touch(flag))


def with_sample_inputs(records: dict[str, bytes], flag: Path) -> None:
    records[SAMPLES] = saved(((Touch(flag),), {}))


def replaced(records: dict[str, bytes], old: str, new: str) -> None:
    model = records[MODEL].decode()
    assert old in model
    records[MODEL] = model.replace(old, new).encode()


def with_expression(records: dict[str, bytes], flag: Path) -> None:
    replaced(records, "Symbol('s", f"open('{flag}', 'w') and Symbol('s")


def with_hidden_expression(records: dict[str, bytes], flag: Path) -> None:
    replaced(records, '"tanh"', '"metadata"')
    model = json.loads(records[MODEL])
    for size in model["graph_module"]["graph"]["tensor_values"]["metadata"]["sizes"]:
        size.clear()
        size["as_expr"] = {"expr_str": f"open('{flag}', 'w') and 1", "hint": None}
    records[MODEL] = json.dumps(model).encode()


def with_function(records: dict[str, bytes], flag: Path) -> None:
    model = json.loads(records[MODEL])
    node = {"target": "torch.os.mkdir", "outputs": [], "metadata": {}, "is_hop_single_tensor_return": None}
    node |= {"inputs": [{"name": "", "arg": {"as_string": str(flag)}, "kind": 1}], "name": "made"}
    model["graph_module"]["graph"]["nodes"].append(node)
    records[MODEL] = json.dumps(model).encode()


def with_argument(records: dict[str, bytes], flag: Path) -> None:
    replaced(records, '"name": "pictures"', f"\"name\": \"pictures=open('{flag}', 'w')\"")


def with_factory(records: dict[str, bytes], flag: Path) -> None:
    replaced(records, "builtins.dict", "collections.defaultdict")


ATTACKS = [
    *(with_pickled_weight, with_old_weights, with_old_constants, with_object, with_sample_inputs),
    *(with_expression, with_hidden_expression, with_function, with_argument, with_factory),
]


def spoiled(exported: Path, folder: Path, attack) -> tuple[Path, Path]:
    """An archive as it was, but for an attack; and the file that this leaves if it succeeds."""
    reader, path, flag = PT2ArchiveReader(str(exported)), folder / "spoiled.pt2", folder / "flag"
    own = (".data/", "byteorder")  # torch writes these by itself
    records = {name: reader.read_bytes(name) for name in reader.get_file_names() if not name.startswith(own)}
    attack(records, flag)
    with PT2ArchiveWriter(str(path)) as writer:
        for name, content in records.items():
            writer.write_bytes(name, content)
    return path, flag


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_archive_that_brings_code_is_refused_before_it_runs(exported, tmp_path, attack):
    path, flag = spoiled(exported, tmp_path, attack)
    with pytest.raises(CheckpointError, match="it may run code") as error:
        load_features(path)
    assert "\n" not in str(error.value)
    assert not flag.exists()


@pytest.mark.parametrize("attack", [with_pickled_weight, with_object, with_sample_inputs, with_expression])
def test_torch_by_itself_runs_what_an_archive_brings(exported, tmp_path, attack):
    path, flag = spoiled(exported, tmp_path, attack)
    try:
        torch.export.load(path)
    except Exception as error:
        print(error)  # what was run is no weight
    assert flag.exists()


def test_an_archive_of_the_oldest_format_is_refused(tmp_path):
    flag = tmp_path / "flag"
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("version", "8.2")
        archive.writestr("serialized_state_dict.pt", saved({"weight": Touch(flag)}))
    with pytest.raises(CheckpointError, match="an old format"):
        load_features(tmp_path / "old.pt2")
    assert not flag.exists()


def test_an_archive_with_nothing_but_a_network_is_loaded(exported, tmp_path):
    path, _ = spoiled(exported, tmp_path, lambda records, flag: None)
    pictures = torch.rand(3, 3, SIDE, SIDE)
    torch.testing.assert_close(load_features(path).forward(pictures), load_features(exported).forward(pictures))


def test_a_network_with_sizes_constants_and_attention_is_loaded(tmp_path):
    class Attentive(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift, self.attention = torch.ones(4), nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, pictures):
            rows = pictures.reshape(-1, 4) + self.shift  # of batch * 3 * 4 * 4 / 4 rows
            rows = rows.reshape(pictures.shape[0], -1, 4)
            return self.attention(rows, rows, rows)[0].mean(1) + torch.tensor([1.0, 2.0, 3.0, 4.0])

    network, pictures = Attentive().eval(), torch.rand(3, 3, 4, 4)
    export_features(network, 4, tmp_path / "network.pt2")
    with torch.no_grad():
        wanted = network(pictures)
        torch.testing.assert_close(load_features(tmp_path / "network.pt2").forward(pictures), wanted)
