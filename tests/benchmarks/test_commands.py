"""Each command is measured by itself, and one that fails says why."""

import json

import pytest

from benchmarks.commands import COMMANDS, Commands, main, run


def test_a_command_is_measured_in_seconds_and_memory(capsys):
    main(Commands(only=("--help", "info")))
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [row["command"] for row in rows] == ["`muse --help`", "`muse info emoji`"]
    small, large = (float(row["MiB at the peak"]) for row in rows)
    assert 10 < small < large < 4096
    assert all(0 < float(row["seconds"]) < 60 for row in rows)


def test_every_verb_but_the_servers_and_what_needs_answers_is_among_them():
    verbs = {command.split()[0] for command in COMMANDS}
    assert verbs == {
        *("--help", "info", "generate", "upscale", "inpaint", "outpaint", "edit", "vary", "evaluate", "compare"),
        *("train", "tokenize", "export"),
    }


def test_a_command_that_fails_says_what_it_said(tmp_path):
    with pytest.raises(RuntimeError, match=r"ended with \d+: .*there is no model 'nobody'"):
        run("info nobody", tmp_path)
