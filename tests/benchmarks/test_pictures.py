"""The benchmarks of super-resolution and of whole pictures measure what they say, and compare like with like."""

import json

from benchmarks.generate import Generate
from benchmarks.measure import in_turns_beside
from benchmarks.picture import Picture
from benchmarks.picture import main as draw_pictures
from benchmarks.superres import Superres
from benchmarks.superres import main as draw_large


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_super_resolution_is_drawn_with_either_attention(capsys):
    small = Generate(
        dim=128, depth=1, side=16, num_codes=32, steps=2, words=4, precisions=("float32", "int8"), rounds=1
    )
    draw_large(Superres(shape=small, low_side=4))
    rows = last_line(capsys)["rows"]
    assert [row["who"] for row in rows] == [
        f"muse {attention}, refresh {refresh}, {precision}"
        for precision in ("float32", "int8")
        for attention in ("full", "multi-axis")
        for refresh in (4, 1)
    ]


def test_a_whole_picture_says_how_large_the_network_is(capsys):
    draw_pictures(Picture(dim=64, depth=1, steps=2, precisions=("float32", "int8"), refreshes=(1,), rounds=1))
    line = last_line(capsys)
    assert [row["who"] for row in line["rows"]] == ["muse, refresh 1, float32", "muse, refresh 1, int8"]
    assert line["million_parameters"]["muse, refresh 1, int8"] == line["million_parameters"]["muse, refresh 1, float32"]
    assert 1 < line["million_parameters"]["muse, refresh 1, float32"] < 3
    assert line["transformer_gflop"]["muse, refresh 1, float32"] > 0


def test_a_peer_is_compared_in_the_same_format_and_by_its_default_with_the_round_that_it_shares(capsys):
    seconds = {
        "muse, float32": [1.0, 2.0, 4.0],
        "them, float32": [3.0, 6.0, 12.0],
        "muse, bfloat16": [0.5, 1.0, 2.0],
        "them, bfloat16": [1.0, 2.0, 4.0],
        "muse, int8": [0.25, 0.5, 1.0],
    }
    in_turns_beside(seconds, {"float32": "them, float32", "bfloat16": "them, bfloat16"})
    ratios = {
        row["who"]: (row["the peer alike, times"], row["the peer in float32, times"])
        for row in last_line(capsys)["rows"]
    }
    assert ratios == {
        "muse, float32": ("3.00", "3.00"),
        "them, float32": ("-", "-"),
        "muse, bfloat16": ("2.00", "6.00"),
        "them, bfloat16": ("-", "-"),
        "muse, int8": ("-", "12.00"),
    }
