"""The bench of editing on synthetic art, with editors that know how to edit and with one that does nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from muse.canvas import Box
from muse.pipeline import Muse
from projects.emoji import edit_bench
from projects.emoji.edit_bench import (
    KINDS,
    EditBenchOptions,
    Editor,
    as_markdown,
    editor_of,
    hole_of,
    make_jobs,
    painted,
    run_edit_bench,
    solid,
    write,
)
from projects.emoji.scenes import paint

OPTIONS = EditBenchOptions(per_edit=10, at=(5, 10))


@pytest.fixture(scope="module")
def art(block_art):
    return block_art


@pytest.fixture(scope="module")
def judge(block_judge):
    return block_judge


def able(jobs, art) -> Editor:
    """Paints what the prompt says, and nothing outside of the hole."""
    wished = {(job.text, job.seed): job for job in jobs}

    def target(prompt, seed):
        job = wished[prompt, seed]
        return Image.fromarray(paint(job.after, art, np.random.default_rng(job.seed)))

    def inpaint(image, hole, prompt, seed):
        result = image.copy()
        if isinstance(hole, Box):
            # the new thing at the size of the hole
            scene = paint(wished[prompt, seed].after, art)
            thing = Image.fromarray(scene).resize((hole.width, hole.height))
            result.paste(thing, (hole.x, hole.y))
        else:
            result.paste(target(prompt, seed), mask=hole.convert("L"))
        return result

    def outpaint(image, margins, prompt, seed):
        result = Image.new("RGB", (image.width + margins.left + margins.right, image.height), "white")
        result.paste(image, (margins.left, 0))
        return result

    def edit(image, prompt, seed, at):
        return {num: target(prompt, seed) if num == max(at) else image for num in at}

    return Editor(inpaint, outpaint, edit)


def idle() -> Editor:
    """Changes nothing, and forgets the picture where it widens it."""
    return Editor(
        inpaint=lambda image, hole, prompt, seed: image,
        outpaint=lambda image, margins, prompt, seed: Image.new("RGB", (2 * image.width, image.height)),
        edit=lambda image, prompt, seed, at: dict.fromkeys(at, image),
    )


@pytest.fixture(scope="module")
def jobs(art):
    return make_jobs(art, OPTIONS)


@pytest.fixture(scope="module")
def good(jobs, art, judge):
    return run_edit_bench(able(jobs, art), art, judge, OPTIONS)


@pytest.fixture(scope="module")
def lazy(art, judge):
    return run_edit_bench(idle(), art, judge, OPTIONS)


def test_every_picture_was_held_out_and_every_wish_but_its_own_was_in_training(jobs, art):
    assert {job.kind for job in jobs} == set(KINDS)
    for job in jobs:
        before, after = (art.records[scene.items[0]] for scene in (job.before, job.after))
        assert before.held_out
        assert before.style == after.style
        assert after.held_out == (before == after) == (job.kind in ("background", "outpaint"))
        assert job.text.startswith("a")


def test_fewer_edits_are_the_first_of_more(jobs, art):
    few = make_jobs(art, replace(OPTIONS, per_edit=4))
    assert few == [job for i, job in enumerate(jobs) if i % OPTIONS.per_edit < 4]


def test_holes_are_all_but_the_thing_or_a_box_around_it(jobs, art):
    for job in jobs:
        is_thing, hole = solid(job, art), hole_of(job, art)
        pixels = np.asarray(painted(job, art))
        assert (pixels[~is_thing] == 255).mean() > 0.8  # all but the soft rim
        if job.kind == "background":
            assert isinstance(hole, Image.Image)
            assert (np.asarray(hole) == ~is_thing).all()
        else:
            assert isinstance(hole, Box)
            outside = np.ones_like(is_thing)
            outside[hole.inside((128, 128))] = False
            assert not is_thing[outside].any()


def test_an_able_editor_is_right_and_an_idle_one_is_not(good, lazy):
    for kind, metric in (("background", "colour reached"), ("background", "both"), ("box", "new concept, R@5")):
        assert good.row(kind, metric).score.value >= 0.8
        assert lazy.row(kind, metric).score.value <= 0.4
    assert good.row("mask-free", "new concept, R@5").score.value >= 0.9
    assert good.row("background", "object kept, R@5").before.value >= 0.9
    assert lazy.row("background", "object kept, R@5").score == lazy.row("background", "object kept, R@5").before


def test_a_pixel_that_changed_where_it_should_not_is_seen(good, lazy, jobs, art, judge):
    for kind in ("background", "box", "outpaint"):
        assert good.row(kind, "elsewhere exactly equal").score.value == 1
    assert lazy.row("outpaint", "elsewhere exactly equal").score.value == 0

    def careless(image, hole, prompt, seed):
        result = image.copy()
        result.putpixel((0, 0), (254, 255, 255))
        return result

    options = replace(OPTIONS, only=("box",))
    report = run_edit_bench(replace(able(jobs, art), inpaint=careless), art, judge, options)
    assert report.row("box", "elsewhere exactly equal").score.value == 0


def test_the_curve_goes_from_the_old_concept_to_the_new_and_away_from_the_picture(good):
    start, middle, end = good.curve
    assert [point.iterations for point in good.curve] == [0, 5, 10]
    assert start.old.value >= 0.9
    assert (start.distance, middle.distance) == (0, 0)
    assert end.new.value >= 0.9
    assert end.old.value < start.old.value
    assert end.distance > 0


def test_the_report_is_written_whole(good, art, tmp_path):
    write(good, art, tmp_path / "new", {"model": "able"})
    saved = json.loads((tmp_path / "new" / "edit-bench.json").read_text())
    assert saved["model"] == "able"
    assert {row["kind"] for row in saved["rows"]} == set(KINDS)
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"edit-bench.json", "mask-free-curve.png", *(f"sheet-{kind}.png" for kind in KINDS)}
    assert Image.open(tmp_path / "new" / "sheet-box.png").width == 3 * 132 + 4
    assert as_markdown(good).count("\n| mask-free |") == 1
    assert "| 10 | " in as_markdown(good)


def test_a_model_is_an_editor(tiny_folder, jobs, art):
    muse = Muse.from_pretrained(tiny_folder, device="cpu")
    editor = editor_of(muse, guidance=1.0, refresh=1)
    some = {job.kind: job for job in jobs}
    for kind in KINDS:
        result = edit_bench.carry_out(some[kind], art, editor, at=(2, 4))
        assert result.is_exact is (None if kind == "mask-free" else True)
        assert set(result.after) == ({2, 4} if kind == "mask-free" else {0})


def test_options_that_leave_nothing_to_do_are_refused():
    with pytest.raises(ValueError, match="at least one kind, two pictures of each"):
        EditBenchOptions(per_edit=1)
