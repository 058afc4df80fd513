"""What clients wish of a model beside prompts and seeds."""

import pytest

from muse.apps.cli import main
from muse.apps.wishes import load
from muse.pipeline import Muse


@pytest.mark.parametrize(
    "command", [["generate", "a red apple", "--model"], ["serve", "--port", "0", "--model"], ["web", "--model"]]
)
def test_graphs_are_refused_in_one_sentence_where_there_is_no_cuda(command, tiny_folder, monkeypatch, capsys):
    monkeypatch.setattr("muse.apps.wishes.default_device", lambda: "cpu")
    assert main([*command, str(tiny_folder), "--graphs"]) == 2
    said = capsys.readouterr().err
    assert said == "muse: graphs are captured on CUDA GPUs and this machine draws on cpu; leave --graphs out\n"


def test_graphs_are_used_where_they_are_wished_for(tiny_folder, monkeypatch):
    used = []
    monkeypatch.setattr(Muse, "use_graphs", lambda muse: used.append(muse) or muse)
    monkeypatch.setattr("muse.apps.wishes.default_device", lambda: "cuda")
    assert load(str(tiny_folder), "float32", graphs=False) not in used
    assert load(str(tiny_folder), "float32", graphs=True) in used
