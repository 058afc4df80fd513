"""The bench and the sweep on synthetic art, with a judge of random convolutions."""

import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from muse.evaluation.intervals import wilson
from muse.pipeline import Muse
from muse.sampling.options import SamplingOptions
from projects.emoji import samplers, sweep
from projects.emoji.bench import (
    CATEGORIES,
    HEADLINES,
    SPLITS,
    Bench,
    BenchOptions,
    Draw,
    Report,
    as_markdown,
    make_prompts,
    redraw_with,
    run_bench,
    score,
    share_of,
    write,
)
from projects.emoji.captions import BACKGROUNDS
from projects.emoji.dataset import EmojiArt
from projects.emoji.judge import Judge, is_one_piece
from projects.emoji.scenes import Scene, is_held_out, paint

OPTIONS = BenchOptions(per_category=12, resamples=100)


@pytest.fixture(scope="module")
def art(block_art) -> EmojiArt:
    return block_art


@pytest.fixture(scope="module")
def judge(block_judge) -> Judge:
    return block_judge


@pytest.fixture(scope="module")
def bench(art, judge) -> Bench:
    return Bench(art, judge, OPTIONS)


def painter(bench: Bench) -> Draw:
    """Paints what the prompt says."""
    scenes = {(prompt.text, prompt.seed): prompt.scene for prompt in bench.prompts}

    def draw(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        wanted = zip(prompts, seeds, strict=True)
        return [Image.fromarray(paint(scenes[key], bench.art, np.random.default_rng(key[1] + 1))) for key in wanted]

    return draw


def deaf_painter(art: EmojiArt) -> Draw:
    """Paints any one thing on white, whatever the prompt says."""

    def draw(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        items = [seed % len(art.records) for seed in seeds]
        return [Image.fromarray(paint(Scene("single", (item,)), art)) for item in items]

    return draw


@pytest.fixture(scope="module")
def perfect(bench) -> Report:
    return bench.run(painter(bench))


@pytest.fixture(scope="module")
def deaf(bench, art) -> Report:
    return bench.run(deaf_painter(art))


# -- prompts -----------------------------------------------------------------------------------------------------------


def test_prompts_are_held_out_where_they_say_so(bench, art):
    for prompt in bench.prompts:
        is_about_art = prompt.category in ("single", "background")
        records = [art.records[item] for item in prompt.scene.items]
        is_out = records[0].held_out if is_about_art else is_held_out(prompt.scene, art)
        assert is_out == (prompt.split == "held-out")
        assert is_about_art or not any(record.held_out for record in records)


def test_counts_colours_and_places_take_turns(bench):
    def told(category, split, what):
        values = [what(p.scene) for p in bench.prompts if (p.category, p.split) == (category, split)]
        return {value: values.count(value) for value in values}

    assert told("count", "seen", lambda scene: scene.count) == dict.fromkeys((1, 2, 3, 4), 3)
    assert told("count", "held-out", lambda scene: scene.count) == dict.fromkeys((2, 3, 4), 4)
    assert told("background", "seen", lambda scene: scene.background) == dict.fromkeys(BACKGROUNDS, 1)
    assert told("position", "seen", lambda scene: scene.relation) == dict.fromkeys(
        ("left", "right", "above", "below"), 3
    )


def test_fewer_prompts_are_the_first_of_more(bench, art):
    few = make_prompts(art, replace(OPTIONS, per_category=5))
    assert few == [prompt for i, prompt in enumerate(bench.prompts) if i % OPTIONS.per_category < 5]


def test_another_seed_asks_for_something_else(bench, art):
    others = make_prompts(art, replace(OPTIONS, seed=1))
    assert [prompt.text for prompt in others] != [prompt.text for prompt in bench.prompts]


def test_one_prompt_a_category_is_refused():
    with pytest.raises(ValueError, match="a shuffle needs two"):
        BenchOptions(per_category=1)


# -- scores ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("split", SPLITS)
def test_a_perfect_drawer_is_near_the_ceiling_and_a_deaf_one_near_chance(perfect, deaf, category, split):
    high, low = (report.row(category, HEADLINES[category], split) for report in (perfect, deaf))
    assert high.ceiling.value > 0.85
    assert high.share.value > 0.9
    assert low.score.value < 0.45 if category == "single" else low.score.value < 0.3
    assert low.score.low <= low.chance <= low.score.high + 0.15


def test_style_is_told_and_not_guessed(perfect, deaf):
    assert perfect.row("single", "style", "seen").score.value > 0.8
    assert deaf.row("single", "style", "seen").score.value < 0.6


def test_chance_is_analytic_where_it_can_be(perfect):
    assert perfect.row("single", "R@5", "seen").chance == pytest.approx(5 / 30)  # concepts
    assert perfect.row("background", "background", "seen").chance == pytest.approx(1 / len(BACKGROUNDS))
    assert perfect.row("pair", "both found", "seen").chance_is == "shuffled"


def test_frechet_distance_is_least_for_real_art(perfect, deaf, bench):
    grey = bench.run(lambda prompts, seeds: [Image.new("RGB", (128, 128), (seed % 256,) * 3) for seed in seeds])
    assert perfect.judge_frechet.drawn.value < grey.judge_frechet.drawn.value / 2
    assert perfect.judge_frechet.num == OPTIONS.per_category
    assert deaf.judge_frechet.drawn.low < deaf.judge_frechet.drawn.value < deaf.judge_frechet.drawn.high


def look_at(scene: Scene, art: EmojiArt, judge: Judge):
    return judge.look([Image.fromarray(paint(scene, art))])[0]


@pytest.mark.parametrize(("painted", "is_right"), [(2, False), (3, True), (4, False)])
def test_only_the_asked_number_is_right(art, judge, painted, is_right):
    seen = look_at(Scene("count", (3,), count=painted), art, judge)
    assert score(Scene("count", (3,), count=3), "count", seen, art, judge.gallery)["count"] == is_right


def test_three_of_something_else_are_the_count_without_the_concept(art, judge):
    seen = look_at(Scene("count", (3,), count=3), art, judge)
    wrong = next(i for i, name in enumerate(judge.gallery.concepts) if seen.things[0].ranks[i] > 10)
    metrics = score(Scene("count", (wrong,), count=3), "count", seen, art, judge.gallery)
    assert metrics == {"count": True, "count and concept": False}


@pytest.mark.parametrize("relation", ["left", "right", "above", "below"])
@pytest.mark.parametrize("asked", ["left", "right", "above", "below"])
def test_only_the_asked_position_is_right(art, judge, relation, asked):
    seen = look_at(Scene("pair", (2, 11), relation=relation), art, judge)
    metrics = score(Scene("pair", (2, 11), relation=asked), "position", seen, art, judge.gallery)
    assert metrics == {"both found": True, "position": relation == asked}


def test_two_things_are_not_found_in_one(art, judge):
    seen = look_at(Scene("single", (2,)), art, judge)
    assert score(Scene("pair", (2, 11), relation="and"), "pair", seen, art, judge.gallery) == {"both found": False}


def test_a_plain_canvas_has_the_background_but_not_the_concept(art, judge):
    seen = judge.look([Image.new("RGB", (128, 128), BACKGROUNDS["pink"])])[0]
    metrics = score(Scene("single", (2,), background="pink"), "background", seen, art, judge.gallery)
    assert metrics == {"background": True, "background and concept": False}


# -- figures -----------------------------------------------------------------------------------------------------------


def test_a_share_is_the_score_of_the_ceiling():
    rng = np.random.default_rng(0)
    scores, ceilings = np.arange(100) < 40, np.arange(100) < 80
    share = share_of(scores, ceilings, 500, rng)
    assert share is not None
    assert share.value == pytest.approx(0.5)
    assert 0.35 < share.low < 0.5 < share.high < 0.65
    assert share_of(scores, np.zeros(100, bool), 500, rng) is None


# -- runs --------------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_report(perfect, art, judge, bench):
    again = run_bench(painter(bench), art, judge, OPTIONS)
    assert replace(again, seconds=0).as_json() == replace(perfect, seconds=0).as_json()


def test_the_drawer_gets_every_prompt_once_in_batches_of_at_most_32(art, judge):
    small = Bench(art, judge, replace(OPTIONS, per_category=20, only=("single",)))
    asked: list[list[tuple[str, int]]] = []

    def draw(prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        asked.append(list(zip(prompts, seeds, strict=True)))
        return deaf_painter(art)(prompts, seeds)

    small.run(draw)
    assert [len(batch) for batch in asked] == [32, 8]
    assert [pair for batch in asked for pair in batch] == [(prompt.text, prompt.seed) for prompt in small.prompts]


def test_a_bad_vqgan_shows_in_its_column(art, judge, bench):
    options = BenchOptions(per_category=4, only=("background",))
    black = run_bench(
        painter(bench), art, judge, options, redraw=lambda images: [Image.new("RGB", (128, 128)) for _ in images]
    )
    assert black.row("background", "background", "seen").reconstructed == wilson(1, 4)
    assert "through VQGAN" in as_markdown(black)
    assert black.judge_frechet is None


def test_the_report_is_written_whole(perfect, tmp_path):
    write(perfect, tmp_path / "new", {"model": "painter"})
    saved = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert saved["model"] == "painter"
    assert len(saved["pictures"]) == len(CATEGORIES) * len(SPLITS) * OPTIONS.per_category
    assert Image.open(tmp_path / "new" / "sheet.png").width > 8 * 128
    assert as_markdown(perfect).count("\n| single") == 10


def test_a_sweep_goes_on_where_it_was_stopped(art, judge, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "SCALES", (0.0, 2.0, 4.0))
    small = Bench(art, judge, BenchOptions(per_category=4, resamples=20, only=("single", "count")))
    drawn: list[SamplingOptions] = []

    def drawer(options: SamplingOptions) -> Draw:
        """Good at guidance 2 alone, and broken off at the fourth setting of the first run."""
        if len(drawn) == 3 and not stopped:
            raise KeyboardInterrupt
        drawn.append(options)
        return painter(small) if options.guidance == 2 else deaf_painter(art)

    stopped: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        sweep.run_sweep(drawer, small, tmp_path, SamplingOptions(), ("steps", "guidance"))
    stopped.append(True)
    result = sweep.run_sweep(drawer, small, tmp_path, SamplingOptions(), ("steps", "guidance"))

    assert len(drawn) == len(set(drawn)) == 5 + 3  # the best of guidance has 24 steps, and is one of the four of steps
    assert result["best"]["guidance"] == 2
    assert {options.guidance for options in drawn[5:]} == {2}
    assert len((tmp_path / "cells.jsonl").read_text().splitlines()) == 8
    assert json.loads((tmp_path / "sweep.json").read_text()) == result
    assert Image.open(tmp_path / "sweep.png").width > 500


def test_cells_are_of_the_weights_and_the_precision_that_drew_them(art, judge, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "SCALES", (0.0,))
    monkeypatch.setattr(sweep, "git_commit", lambda: "c0ffee")
    small = Bench(art, judge, BenchOptions(per_category=2, resamples=20, only=("single",)))
    drawn: list[SamplingOptions] = []

    def drawer(options: SamplingOptions) -> Draw:
        drawn.append(options)
        return deaf_painter(art)

    def num_drawn_by(muse: Muse) -> int:
        before, model = len(drawn), sweep.identity_of(muse, "mine")
        sweep.run_sweep(drawer, small, tmp_path, SamplingOptions(), ("guidance",), model)
        return len(drawn) - before

    muse = Muse.from_pretrained(tiny_folder, "cpu", "float32")
    assert [num_drawn_by(muse), num_drawn_by(muse)] == [1, 0]
    assert num_drawn_by(Muse.from_pretrained(tiny_folder, "cpu", "bfloat16")) == 1
    assert num_drawn_by(Muse.from_pretrained(tiny_folder, "cpu", "float32")) == 0
    with torch.no_grad():
        muse.base.embed.weight[0] += 1
    assert num_drawn_by(muse) == 1
    cells = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    assert {cell["commit"] for cell in cells} == {"c0ffee"}
    models = [cell["key"]["model"] for cell in cells]
    assert [model["precision"] for model in models] == ["float32", "bfloat16", "float32"]
    assert all((model["name"], model["size"]) == ("mine", list(muse.low_size)) for model in models)


def test_no_setting_is_chosen_on_the_prompts_of_the_report(art, monkeypatch):
    looked_at = cache(partial(is_one_piece, art))  # these few pictures are proposed again and again
    monkeypatch.setattr("projects.emoji.bench.is_one_piece", lambda _, item: looked_at(item))
    reported = {(prompt.text, prompt.seed) for prompt in make_prompts(art, BenchOptions())}
    assert sweep.Command("model", Path("out")).bench.seed == samplers.Command(Path("out")).bench.seed == 1
    for options in (sweep.FEWER_PROMPTS, samplers.THOUSAND):
        assert not reported & {(prompt.text, prompt.seed) for prompt in make_prompts(art, options)}


def test_samplers_are_compared_at_equal_steps_and_go_on_where_they_were_stopped(art, judge, tmp_path):
    small = Bench(art, judge, BenchOptions(per_category=2, resamples=20, only=("single",)))
    drawn: list[SamplingOptions] = []

    def drawer(options: SamplingOptions) -> Draw:
        if len(drawn) == 5 and not stopped:
            raise KeyboardInterrupt
        drawn.append(options)
        return painter(small) if options.sampler == "halton" else deaf_painter(art)

    stopped: list[bool] = []
    around = SamplingOptions(guidance=2.0)
    with pytest.raises(KeyboardInterrupt):
        samplers.compare(drawer, small, tmp_path, around, steps=(4, 8))
    stopped.append(True)
    cells = samplers.compare(drawer, small, tmp_path, around, steps=(4, 8))

    assert len(drawn) == len(set(drawn)) == 2 * 2 * 2 * 2  # sampler, remasking, ramp, steps
    assert {(options.steps, options.guidance) for options in drawn} == {(4, 2.0), (8, 2.0)}
    assert all(cell["quality"] == 1 for name, some in cells.items() for cell in some if name.startswith("halton"))
    rows = (tmp_path / "samplers.md").read_text().splitlines()
    assert len(rows) == 2 + 16
    assert rows[2].startswith("| confidence, linear ramp | 4 |")
    assert set(json.loads((tmp_path / "samplers.json").read_text())["samplers"]) == set(cells)
    assert Image.open(tmp_path / "samplers.png").width > 1000


def test_without_guidance_the_ramps_are_one_sampler():
    names = samplers.settings(SamplingOptions(guidance=0.0))
    assert list(names) == [
        "confidence, linear ramp",
        "confidence, remasking, linear ramp",
        "halton, linear ramp",
        "halton, remasking, linear ramp",
    ]


def test_real_art_goes_through_the_vqgan_at_the_size_of_the_models_tokens(tiny_muse):
    art = [Image.new("RGB", (width, width), "red") for width in (16, 16)]
    assert [image.size for image in redraw_with(tiny_muse)(art)] == [tiny_muse.low_size] * 2
