"""Which of several processes this is."""

import os
import subprocess
import sys

import pytest

from muse.processes import Shard, is_of_torchrun, local_rank


@pytest.mark.parametrize(("rank", "num"), [("2", "2"), ("-1", "2"), ("a", "2"), ("0", "0"), ("1", None), ("", "1")])
def test_ranks_that_cannot_be_are_refused(rank, num, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if num is not None:
        monkeypatch.setenv("WORLD_SIZE", num)
    with pytest.raises(ValueError, match="RANK is"):
        Shard.from_environment()


def test_without_a_launcher_one_process_has_all_of_the_work(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert Shard.from_environment() == Shard(0, 1)
    assert Shard.from_environment().is_first
    assert local_rank() == 0
    assert not is_of_torchrun()


def test_of_several_processes_the_one_of_rank_0_is_first(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        assert Shard.from_environment() == Shard(rank, 2)
        assert Shard.from_environment().is_first == (rank == 0)


def test_a_place_on_a_machine_that_is_no_number_is_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "first")
    with pytest.raises(ValueError, match="LOCAL_RANK is 'first'"):
        local_rank()


def test_a_rank_that_is_no_number_is_told_of_before_anybody_else_reads_it():
    """As Lightning Fabric does while it is imported, which it is here already: so in a process of its own."""
    command = [sys.executable, "-m", "muse", "tokenize", "pictures", "out", "--model", "emoji"]
    ended = subprocess.run(command, env=os.environ | {"RANK": "a"}, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert ended.stderr == "muse: RANK is 'a' and WORLD_SIZE '1'; give whole numbers, RANK the smaller\n"
