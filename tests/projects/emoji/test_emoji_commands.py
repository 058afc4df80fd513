"""Every command of the project says in one sentence what it misses."""

import runpy
import sys

import pytest

MISSING = r"^error: .*(; run `python -m projects\.emoji\.\w+|is not there; )"
JUDGED = ["--model", "emoji", "--out", "out"]
COMMANDS = {
    "alignment": ["--out", "out"],
    "bench": JUDGED,
    "cascade_bench": JUDGED,
    "edit_bench": JUDGED,
    "hundred": ["--out", "out"],
    "pack": ["pack"],
    "protocol": ["--out", "out"],
    "reading": ["--out", "out"],
    "samplers": ["--out", "out"],
    "sweep": JUDGED,
    "synonyms": ["--out", "out"],
    "train": ["base"],
    "variety": ["--out", "out"],
}


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_without_data_says_in_one_sentence_what_is_missing_and_writes_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, *COMMANDS[name]])
    with pytest.raises(SystemExit, match=MISSING) as refused:
        runpy.run_module(f"projects.emoji.{name}", run_name="__main__")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
