"""The benchmark of the VQGAN measures ours and the peer's at one shape."""

import json

import torch

from benchmarks.vqgan import Diffusers, Ours, Pictures, main, operations

SMALL = Pictures(width=8, size=32, batch=1, precisions=("float32",), rounds=1, versus="diffusers")


def test_both_have_as_many_weights_and_make_as_many_tokens():
    ours, theirs = Ours(SMALL), Diffusers(SMALL)
    assert sum(p.numel() for p in ours.network.parameters()) == sum(p.numel() for p in theirs.network.parameters())
    pictures = torch.rand(1, 3, 32, 32)
    assert ours.encode(pictures).numel() == theirs.encode(pictures).numel() == 4
    assert ours.decode(torch.zeros(1, 4, dtype=torch.long)).shape == theirs.decode(torch.zeros(1, 4).long()).shape


def test_there_is_a_table_for_each_task(capsys):
    main(SMALL)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [line["task"] for line in lines] == ["encode", "decode", "train"]
    assert all([row["who"] for row in line["rows"]] == ["muse float32", "diffusers float32"] for line in lines)


def test_operations_grow_with_pixels():
    """Convolutions alone are counted; twice the side has four times the work."""
    small, large = (operations(Pictures(width=8, size=size, batch=1), "decode") for size in (32, 64))
    assert large == 4 * small
    assert operations(SMALL, "train") == 3 * (operations(SMALL, "encode") + operations(SMALL, "decode"))
