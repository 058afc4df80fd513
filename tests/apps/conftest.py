"""An empty folder to stand in, and commands that fail as they should."""

import pytest

from muse.apps.cli import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refuse(here, capsys):
    """Run a command that cannot be done: the sentence that it says. It leaves no file."""

    def run(*arguments, code=2):
        before = sorted(here.parent.rglob("*"))
        try:
            found = main([*map(str, arguments)])
        except SystemExit as usage:
            found = usage.code
        assert found == code
        told = capsys.readouterr()
        assert "Traceback" not in told.err + told.out
        assert told.out == ""
        assert sorted(here.parent.rglob("*")) == before
        return told.err

    return run
