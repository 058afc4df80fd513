"""`muse evaluate`, `muse compare` and `muse compare-votes`, as a person meets them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from muse.apps.cli import main
from muse.evaluation.clip import ClipScorer
from muse.pipeline import Muse


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("a red apple\ntwo dog\n")
    return tmp_path


def say(capsys, *arguments, code=0):
    """What a command says: on its output if it went well, else its one sentence."""
    assert main([*map(str, arguments)]) == code
    told = capsys.readouterr()
    if code == 0:
        return told.out
    assert told.err.startswith("muse: ")
    assert told.err.count("\n") == 1
    return told.err


def test_evaluate_draws_scores_and_writes(tiny_folder, clip_folder, capsys):
    metrics = ("--metrics", " clip, alignment", "--clip", clip_folder)
    arguments = ("--data", "prompts.txt", *metrics, "--n", 4, "--sampling", "steps=1")
    told = say(capsys, "evaluate", tiny_folder, *arguments)
    assert "`alignment` was not measured: no towers were given" in told
    report = json.loads(Path("evaluation/report.json").read_text())
    assert len(report["pictures"]) == 4
    assert report["about"]["sampling"]["steps"] == 1
    assert Image.open("evaluation/sheet.png").size[0] > 500
    assert "s a batch of 4 (median of 1 drawn in this run)" in told
    again = say(capsys, "evaluate", tiny_folder, *arguments)
    assert "all pictures were there already" in again


def test_an_evaluation_that_draws_nothing_says_so(tiny_folder, here, capsys):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (128, 128), "red").save(here / name)
    assert "Speed: no prompts were drawn; " in say(capsys, "evaluate", tiny_folder, "--data", here, "--metrics", "psnr")


def test_ranks_share_the_drawing_and_the_first_alone_reports(tiny_folder, clip_folder, capsys, monkeypatch):
    metrics = ("--metrics", "clip", "--clip", clip_folder)
    arguments = ("evaluate", tiny_folder, "--data", "prompts.txt", *metrics, "--batch", 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert say(capsys, *arguments, "--sampling", "steps=1") == ""
    monkeypatch.setenv("RANK", "0")
    assert "All of it: evaluation" in say(capsys, *arguments, "--sampling", "steps=1")


def test_a_protocol_gives_way_to_options(tiny_folder, clip_folder, capsys):
    arguments = ("--data", "prompts.txt", "--protocol", "geneval", "--clip", clip_folder, "--sampling", "steps=1")
    told = say(capsys, "evaluate", tiny_folder, *arguments, "--n", 2)
    assert "protocol: geneval: prompts of GenEval's form" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no data came; give --data"),
        (["--data", "nothing"], "there is no nothing; give a file of prompts"),
        (["--data", "prompts.txt", "--metrics", "beauty"], "there is no metric 'beauty'"),
        (["--data", "prompts.txt", "--metrics", ""], "no metric came"),
        (["--data", "prompts.txt", "--protocol", "coco"], "there is no protocol 'coco'"),
        (["--data", "prompts.txt", "--metrics", "frechet"], "give a folder of them as --reference"),
        (["--data", "prompts.txt", "--metrics", "frechet", "--reference", "empty"], "empty has no pictures"),
        (["--data", "prompts.txt", "--n", "1"], "clip needs at least 2 drawn pictures and 1 came"),
        (["--data", "prompts.txt", "--n", "0"], "num is 0; give"),
        (["--data", "prompts.txt", "--sampling", "steps=0"], "steps is 0; give"),
        (["--data", "prompts.txt", "--sweep", "guidance"], "give OPTION=FROM:TO"),
        (["--data", "prompts.txt", "--out", "prompts.txt"], "cannot write prompts.txt (Not a directory); give another"),
        (["--data", "prompts.txt", "--out", "prompts.txt/out"], "cannot write prompts.txt/out (Not a directory); give"),
        (["--data", "prompts.txt", "--clip", "none"], "can be measured: clip: there is no folder none; give a folder"),
        (["--data", "prompts.txt", "--clip", "none", "--sweep", "steps=1:2"], "can be measured: clip: there is no"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_sentence(arguments, said, tiny_folder, here, capsys):
    (here / "empty").mkdir()
    assert said in say(capsys, "evaluate", tiny_folder, *arguments, code=2)
    assert not (here / "evaluation").exists()


def test_compare_writes_a_page_and_its_votes_are_counted(tiny_folder, capsys):
    options = ("--sampling-one", "steps=1", "--sampling-other", "steps=2")
    told = say(capsys, "compare", tiny_folder, tiny_folder, "--prompts", "prompts.txt", *options)
    assert "comparison/compare.html  for the raters: 2 pairs" in told
    key = json.loads(Path("comparison/key.json").read_text())
    assert (key["one"], key["other"]) == ("tiny steps=1", "tiny steps=2")
    votes = [{"id": pair["id"], "choice": "left" if pair["one_is_left"] else "right"} for pair in key["pairs"]]
    Path("votes.json").write_text(json.dumps({"page": key["page"], "rater": "a", "votes": votes}))
    told = say(capsys, "compare-votes", "comparison/key.json", "votes.json")
    assert "tiny steps=1 is preferred to tiny steps=2 in 100.0%" in told
    assert json.loads(told.splitlines()[1])["num_votes"] == 2
    Path("votes.json").write_text("{}")
    assert "has no page" in say(capsys, "compare-votes", "comparison/key.json", "votes.json", code=2)


def test_compare_shows_the_best_of_some_as_a_clip_has_it(tiny_folder, clip_folder, capsys):
    options = ("--prompts", "prompts.txt", "--best-of", 3, "--sampling-one", "steps=2", "--sampling-other", "steps=2")
    say(capsys, "compare", tiny_folder, tiny_folder, *options, "--clip", clip_folder)
    key = json.loads(Path("comparison/key.json").read_text())
    assert key["one"] == "tiny steps=2 best of 3"
    muse, scorer = Muse.from_pretrained(tiny_folder), ClipScorer.load(clip_folder)
    two = replace(muse.defaults, steps=2)
    best = {
        pair["prompt"]: max(
            muse.generate([pair["prompt"]] * 3, [pair["seed"] + more for more in range(3)], options=two),
            key=lambda image, prompt=pair["prompt"]: float(scorer([image], [prompt])),
        )
        for pair in key["pairs"]
    }
    kept = {image.tobytes() for image in map(Image.open, Path("comparison/cache").rglob("*.png"))}
    assert kept == {image.tobytes() for image in best.values()}
    said = "--clip chooses among several, and --best-of is 1"
    assert said in say(capsys, "compare", "a", "b", "--prompts", "prompts.txt", "--clip", "c", code=2)
    assert "best_of is 0" in say(capsys, "compare", "a", "b", "--prompts", "prompts.txt", "--best-of", 0, code=2)


@pytest.mark.parametrize(
    ("other", "more", "said"),
    [
        ("nosuch", [], "there is no model 'nosuch'"),
        (None, ["--sampling-other", "bogus=1"], "names no sampling option"),
        (None, ["--sampling-one", "superres_steps=2"], "nothing is enlarged"),
    ],
)
def test_compare_draws_nothing_if_the_second_model_cannot_be(other, more, said, tiny_folder, here, capsys):
    arguments = ("compare", tiny_folder, other or tiny_folder, "--prompts", "prompts.txt", *more)
    assert said in say(capsys, *arguments, code=2)
    assert not (here / "comparison").exists()


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("long.txt", "a fox\n\n{}\nan owl\n", "line 3"),
        ("long.tsv", "Prompt\tCategory\na fox\tAnimals\n{}\tFruit\n", "line 3"),
        ("long.csv", "prompt,tag\na fox,Animals\n{},Fruit\n", "line 3"),
        ("long.jsonl", '{{"prompt": "a fox"}}\n{{"prompt": "{}"}}\n', "line 2"),
    ],
)
def test_a_prompt_that_is_too_long_is_named_before_anything_is_drawn(name, content, place, tiny_folder, here, capsys):
    (here / name).write_text(content.format("three blue birds " * 200))
    for command in (("evaluate", tiny_folder, "--data"), ("compare", tiny_folder, tiny_folder, "--prompts")):
        said = say(capsys, *command, name, code=2)
        assert said.startswith(
            f"muse: {place}, 'three blue birds three blue birds three blue birds [...]': the prompt has "
        )
    assert not any((here / out).exists() for out in ("evaluation", "comparison"))


def test_compare_draws_nothing_if_its_page_cannot_be_written(tiny_folder, here, capsys):
    arguments = ("compare", tiny_folder, tiny_folder, "--prompts", "prompts.txt", "--out", "prompts.txt")
    assert "cannot write prompts.txt (Not a directory)" in say(capsys, *arguments, code=2)


def test_options_of_drawing_are_refused_where_nothing_is_drawn(tiny_folder, here, capsys):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (128, 128), "red").save(here / name)
    arguments = ("evaluate", tiny_folder, "--data", here, "--metrics", "psnr")
    for more in (("--n", 2), ("--sampling", "steps=2"), ("--sweep", "steps=2:3")):
        assert f"psnr draws nothing; leave {more[0]} out" in say(capsys, *arguments, *more, code=2)


def test_a_metric_that_is_named_twice_is_measured_once(tiny_folder, clip_folder, capsys):
    metrics = ("--metrics", "clip,clip", "--clip", clip_folder)
    told = say(capsys, "evaluate", tiny_folder, "--data", "prompts.txt", *metrics, "--sampling", "steps=1")
    assert told.count("| clip_score |") == 1
