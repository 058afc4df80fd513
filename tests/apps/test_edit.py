"""The editing commands, as a person meets them."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import muse
from muse.apps.cli import main
from muse.apps.edit import Edit, Outpaint
from muse.canvas import Box, Margins
from muse.images import open_image, read_png_text
from muse.pipeline import Muse
from muse.sampling import EditOptions, SamplingOptions

APPLE = "a red apple, 3d style"
VERBS = {
    "inpaint": ["inpaint", "cat.png", APPLE, "--box", "20", "30", "40", "25", "--steps", "2"],
    "outpaint": ["outpaint", "cat.png", APPLE, "--left", "30", "--top", "7", "--steps", "2"],
    "edit": ["edit", "cat.png", APPLE, "--iterations", "6"],
    "vary": ["vary", "cat.png", "--strength", "0.6", "--prompt", APPLE, "--steps", "2"],
}
EVERY_VERB = pytest.mark.parametrize("verb", VERBS)


@pytest.fixture(autouse=True)
def cat(here):
    """cat.png, a picture that is not square."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(pixels).resize((140, 100))
    image.save("cat.png")
    return image


@pytest.fixture
def draw(tiny_folder, capsys):
    """Run a command with the tiny model, well: the files that it names."""

    def run(*arguments, model=tiny_folder):
        assert main([*map(str, arguments), "--model", str(model)]) == 0
        told = capsys.readouterr()
        assert told.err == ""
        return [Path(line.split("  (seed ")[0]) for line in told.out.splitlines()]

    return run


def pixels(path):
    return Image.open(path).tobytes()


@EVERY_VERB
def test_a_picture_says_all_that_it_takes_to_make_it_again(verb, draw, tiny_folder):
    (path,) = draw(*VERBS[verb], "--seed", 5, "--negative", "blue", "--out", "out.png")
    text = read_png_text(path)
    assert (text["command"], text["image"], text["prompt"], text["negative"]) == (verb, "cat.png", APPLE, "blue")
    assert (text["model"], text["software"]) == ("tiny", f"muse {muse.__version__}")
    model, cat = Muse.from_pretrained(tiny_folder), open_image(Path(text["image"]))
    options = (EditOptions if verb == "edit" else SamplingOptions)(**json.loads(text["options"]))
    more = {"negative": text["negative"], "options": options}
    seeds = [int(text["seed"])]
    if verb == "inpaint":
        box = Box(*map(int, text["box"].split()))
        again = model.inpaint(cat, box, text["prompt"], seeds, context=float(text["context"]), **more)
    elif verb == "outpaint":
        again = model.outpaint(cat, Margins(**json.loads(text["margins"])), text["prompt"], seeds, **more)
    elif verb == "edit":
        again = model.edit(cat, text["prompt"], seeds, **more)
    else:
        again = model.variations(cat, float(text["strength"]), seeds, prompt=text["prompt"], **more)
    assert again[0].tobytes() == pixels(path)


@EVERY_VERB
def test_several_pictures_count_their_seeds_up_and_are_those_drawn_alone(verb, draw, monkeypatch):
    monkeypatch.setattr("muse.apps.edit.MOST_SIDE_BY_SIDE", 2 * 140 * 100)  # two at a time
    paths = draw(*VERBS[verb], "--n", 3, "--seed", 7, "--out", "out.png")
    assert [str(path) for path in paths] == ["out-1.png", "out-2.png", "out-3.png"]
    for i, path in enumerate(paths):
        assert pixels(draw(*VERBS[verb], "--seed", 7 + i, "--out", "alone.png")[0]) == pixels(path)


@EVERY_VERB
def test_previews_are_an_animation_and_a_sheet_at_most_so_large(verb, draw, monkeypatch):
    monkeypatch.setattr("muse.apps.drawing.LARGEST_PREVIEW", 70)
    path, animation, sheet = draw(*VERBS[verb], "--previews", "--out", "out.png")
    with Image.open(animation) as opened:
        assert getattr(opened, "n_frames", 1) > 1
        assert max(opened.size) == 70
    assert read_png_text(sheet) == read_png_text(path)


@EVERY_VERB
def test_a_cascade_edits_too_and_says_so(verb, draw, cascade_folder):
    (path,) = draw(*VERBS[verb], "--superres-steps", 2, "--out", "out.png", model=cascade_folder)
    assert json.loads(read_png_text(path)["superres_options"])["steps"] == 2
    grown = (30, 7) if verb == "outpaint" else (0, 0)
    assert Image.open(path).size == (140 + grown[0], 100 + grown[1])


@EVERY_VERB
def test_files_are_called_after_the_prompt_and_the_picture_that_was_given_stays(verb, draw, cat, here):
    (path,) = draw(*VERBS[verb], "--seed", 3)
    assert str(path) == "a-red-apple-3d-style-3.png"
    assert pixels("cat.png") == cat.tobytes()


def test_a_variation_needs_no_prompt(draw):
    (path,) = draw("vary", "cat.png", "--seed", 3, "--steps", 2)
    assert str(path) == "variation-of-cat-3.png"
    assert "prompt" not in read_png_text(path)


def test_a_mask_and_its_box_are_the_same_and_outside_nothing_changes(draw, cat):
    mask = Image.new("L", cat.size)
    mask.paste(255, (20, 30, 60, 55))
    mask.save("mask.png")
    (boxed,) = draw(*VERBS["inpaint"], "--seed", 1, "--out", "box.png")
    (masked,) = draw(
        "inpaint", "cat.png", APPLE, "--mask", "mask.png", "--steps", 2, "--seed", 1, "--out", "masked.png"
    )
    assert pixels(boxed) == pixels(masked)
    assert read_png_text(masked)["mask"] == "mask.png"
    differs = (np.asarray(Image.open(boxed)) != np.asarray(cat)).any(-1)
    assert differs.any()
    assert not differs[np.asarray(mask) == 0].any()


def test_pictures_at_chosen_iterations_are_those_of_so_many_iterations(draw):
    paths = draw(*VERBS["edit"], "--at", 2, 4, "--seed", 9, "--out", "out.png")
    assert [str(path) for path in paths] == ["out.png", "out-at-2.png", "out-at-4.png"]
    (alone,) = draw("edit", "cat.png", APPLE, "--iterations", 4, "--seed", 9, "--out", "alone.png")
    assert pixels(alone) == pixels(paths[2])


def test_an_edit_that_stops_early_leaves_its_result_for_later_iterations(draw):
    paths = draw(*VERBS["edit"], "--at", 1, 6, "--most-changed", 0.01, "--seed", 9, "--out", "out.png")
    assert pixels(paths[2]) == pixels(paths[0])


def test_an_edit_that_stops_early_leaves_no_half_of_super_resolution(draw, cascade_folder):
    more = ["--at", 1, 2, 3, 4, 5, 6, "--most-changed", 0.01, "--seed", 9, "--out", "out.png"]
    paths = draw(*VERBS["edit"], *more, model=cascade_folder)
    assert pixels(paths[1]) != pixels(paths[0])  # what stood after the only iteration
    assert {pixels(path) for path in paths[2:]} == {pixels(paths[0])}


@EVERY_VERB
def test_a_picture_that_is_replaced_by_the_first_result_is_still_that_of_the_others(verb, draw, monkeypatch):
    monkeypatch.setattr("muse.apps.edit.MOST_SIDE_BY_SIDE", 1)  # one at a time
    wanted = [pixels(path) for path in draw(*VERBS[verb], "--n", 3, "--seed", 7, "--out", "out.png")]
    os.rename("cat.png", "cat-1.png")
    command = ["cat-1.png" if each == "cat.png" else each for each in VERBS[verb]]
    paths = draw(*command, "--n", 3, "--seed", 7, "--out", "cat.png")
    assert paths[0] == Path("cat-1.png")
    assert [pixels(path) for path in paths] == wanted


def test_what_a_mask_leaves_transparent_is_not_filled(draw, cat):
    mask = Image.new("RGBA", cat.size, (255, 255, 255, 0))  # white, were it not transparent
    mask.paste((255, 255, 255, 255), (20, 30, 60, 55))
    mask.save("mask.png")
    (path,) = draw("inpaint", "cat.png", APPLE, "--mask", "mask.png", "--steps", 2, "--seed", 1, "--out", "out.png")
    differs = (np.asarray(Image.open(path)) != np.asarray(cat)).any(2)
    outside = np.asarray(mask)[..., 3] == 0
    assert differs[~outside].any()
    assert not differs[outside].any()


def test_a_mask_that_is_replaced_by_the_first_result_is_still_that_of_the_others(draw, cat, monkeypatch):
    mask = Image.new("L", cat.size)
    mask.paste(255, (20, 30, 60, 55))
    mask.save("mask-1.png")
    command = ["inpaint", "cat.png", APPLE, "--mask", "mask-1.png", "--steps", 2, "--n", 2, "--seed", 1]
    monkeypatch.setattr("muse.apps.edit.MOST_SIDE_BY_SIDE", 1)
    wanted = [pixels(path) for path in draw(*command, "--out", "out.png")]
    assert [pixels(path) for path in draw(*command, "--out", "mask.png")] == wanted


def test_how_many_are_widened_side_by_side_is_by_their_widened_size(monkeypatch):
    monkeypatch.setattr("muse.apps.edit.MOST_SIDE_BY_SIDE", 4 * 140 * 100)
    assert Edit(image=Path("cat.png"), prompt=APPLE).side_by_side == 4
    assert Outpaint(image=Path("cat.png"), prompt=APPLE, right=140).side_by_side == 2
    assert Outpaint(image=Path("cat.png"), prompt=APPLE, top=9000).side_by_side == 1


def test_the_flags_of_edit_are_the_options_of_the_papers_loop():
    ours = {field.name: field.default for field in dataclasses.fields(Edit)}
    for field in dataclasses.fields(EditOptions):
        assert ours[field.name] == field.default


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inpaint", "cat.png", APPLE], "neither --mask nor --box came; give one"),
        (["inpaint", "cat.png", APPLE, "--mask", "cat.png", "--box", "0", "0", "9", "9"], "both --mask and --box came"),
        (["inpaint", "cat.png", APPLE, "--box", "130", "0", "20", "20"], "is not wholly on the picture of 140 x 100"),
        (["inpaint", "cat.png", APPLE, "--box", "0", "0", "0", "9"], "a box of 0 x 9 pixels came"),
        (["inpaint", "cat.png", APPLE, "--mask", "black.png"], "the mask is empty"),
        (["inpaint", "cat.png", APPLE, "--mask", "small.png"], "the mask has 9 x 9 pixels and the picture 140 x 100"),
        (["inpaint", "cat.png", APPLE, "--mask", "nothing.png"], "nothing.png: No such file"),
        (["inpaint", "cat.png", APPLE, "--box", "0", "0", "9", "9", "--context", "0.5"], "context is 0.5; give"),
        (["inpaint", "cat.png", "", "--box", "0", "0", "9", "9"], "the prompt is empty"),
        (["outpaint", "cat.png", APPLE], "all margins are 0; give at least one"),
        (["outpaint", "cat.png", APPLE, "--left", "-3"], "left is -3; give"),
        (["outpaint", "cat.png", APPLE, "--left", "10000000"], "scale it down"),
        (["edit", "poem.png", APPLE], "poem.png is no picture that can be read; give a PNG"),
        (["edit", "cat.png", APPLE, "--iterations", "0"], "iterations is 0; give"),
        (["edit", "cat.png", APPLE, "--share", "8"], "share is 8.0; give"),
        (["edit", "cat.png", APPLE, "--at", "50", "101"], "at is 50 101; give different whole numbers from 1 to 100"),
        (["edit", "cat.png", APPLE, "--superres-steps", "4"], "--superres-steps came, and no super-resolution"),
        (["edit", "cat.png", " "], "the prompt is empty"),
        (["vary", "cat.png", "--strength", "1.5"], "strength is 1.5; give"),
        (["vary", "cat.png", "--negative", "blue"], "--negative came without --prompt"),
        (["vary", "cat.png", "--prompt", ""], "the prompt is empty"),
        (["vary", "nothing.png"], "nothing.png: No such file"),
        (["vary", "long.png"], "too long to be seen as a whole"),
    ],
)
def test_what_cannot_be_edited_is_refused_in_one_sentence(arguments, message, refuse, tiny_folder):
    Image.new("L", (140, 100)).save("black.png")
    Image.new("L", (9, 9), 255).save("small.png")
    Image.new("L", (20_000, 100)).save("long.png")
    Path("poem.png").write_text("a poem, not a picture")
    said = refuse(*arguments, "--model", tiny_folder)
    assert said.startswith("muse: ")
    assert said.count("\n") == 1
    assert message in said


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_wrong_with_a_picture_is_said_before_the_model_is_loaded(verb, refuse, monkeypatch):
    monkeypatch.setattr(Muse, "from_pretrained", lambda *a: pytest.fail("the model was loaded"))
    os.rename("cat.png", "gone.png")
    assert "No such file" in refuse(*VERBS[verb])


@pytest.mark.parametrize("verb", ["inpaint", "vary"])
def test_a_picture_whose_name_is_no_text_is_edited_and_told(verb, tiny_folder, capsys):
    os.rename(b"cat.png", b"caf\xe9.png")
    arguments = [os.fsdecode(b"caf\xe9.png") if each == "cat.png" else each for each in VERBS[verb]]
    assert main([*arguments, "--model", str(tiny_folder), "--out", os.fsdecode(b"out\xff.png"), "--n", "2"]) == 0
    told = capsys.readouterr().out
    assert told.count(r"out\xff-") == 2
    (path, _) = sorted(Path().glob("out*.png"))
    assert read_png_text(path)["image"] == r"caf\xe9.png"
