"""The command line, as a person meets it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from PIL import Image

import muse
from muse.apps.cli import Generate, main, sentence
from muse.apps.drawing import slug
from muse.evaluation.clip import ClipScorer
from muse.images import read_png_text
from muse.pipeline import Muse
from muse.sampling import SamplingOptions
from muse.vocabulary import Vocabulary

APPLE = "a red apple, 3d style"


@pytest.fixture
def draw(tiny_folder, capsys):
    """Run `muse generate` with the tiny model, well: the files that it names."""

    def run(*arguments):
        assert main(["generate", "--model", str(tiny_folder), *map(str, arguments)]) == 0
        told = capsys.readouterr()
        assert told.err == ""  # no progress bar where there is no terminal, and nothing from transformers
        return [Path(line.split("  (seed ")[0]) for line in told.out.splitlines()]

    return run


def is_one_sentence(said):
    return said.startswith("muse: ") and said.count("\n") == 1 and said.endswith("\n")


def pixels(path):
    return Image.open(path).tobytes()


def command(*arguments, **environment):
    """Run `python -m muse` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(muse.__file__).parents[1]), **environment}
    return subprocess.run(
        [sys.executable, "-m", "muse", *map(str, arguments)], env=environment, capture_output=True, text=True
    )


# -- drawing ------------------------------------------------------------------------------------------------------


def test_a_prompt_becomes_a_picture_from_the_shell(tiny_folder, here):
    done = command("generate", APPLE, "--model", tiny_folder, "--seed", "1", "--out", "apple.png")
    assert (done.returncode, done.stdout, done.stderr) == (0, "apple.png  (seed 1)\n", "")
    assert os.listdir(here) == ["apple.png"]
    assert Image.open("apple.png").size == (128, 128)


def test_the_best_of_some_is_the_very_picture_of_its_own_seed(draw, tiny_folder):
    first, second = draw(APPLE, "--best-of", 5, "--n", 2, "--seed", 4, "--steps", 3)
    muse = Muse.from_pretrained(tiny_folder)
    chosen = muse.choose([APPLE] * 2, [4, 9], 5, options=dataclasses.replace(muse.defaults, steps=3))
    assert [int(read_png_text(path)["seed"]) for path in (first, second)] == chosen
    assert read_png_text(first)["best_of"] == "5"
    (alone,) = draw(APPLE, "--seed", chosen[1], "--steps", 3)
    assert pixels(alone) == pixels(second)
    assert "best_of" not in read_png_text(alone)


def test_a_clip_chooses_the_best(draw, tiny_folder, clip_folder):
    (path,) = draw(APPLE, "--best-of", 6, "--clip", clip_folder, "--seed", 4, "--steps", 2)
    muse = Muse.from_pretrained(tiny_folder)
    drawn = muse.generate([APPLE] * 6, range(4, 10), options=dataclasses.replace(muse.defaults, steps=2))
    scores = ClipScorer.load(clip_folder)(drawn, [APPLE] * 6)
    assert int(read_png_text(path)["seed"]) == 4 + int(scores.argmax())


def test_a_picture_says_all_that_it_takes_to_make_it_again(draw, tiny_folder):
    (path,) = draw(APPLE, "--negative", "a blue dog", "--steps", 3, "--guidance", 1.5, "--top-k", 40)
    text = read_png_text(path)
    options = SamplingOptions(steps=3, guidance=1.5, top_k=40)
    assert text.pop("seed").isdigit()
    assert text == {
        "prompt": APPLE,
        "negative": "a blue dog",
        "options": json.dumps(dataclasses.asdict(options)),
        "model": "tiny",
        "precision": Muse.from_pretrained(tiny_folder).precision,
        "software": f"muse {muse.__version__}",
    }
    text = read_png_text(path)
    again = Muse.from_pretrained(tiny_folder).generate(
        [text["prompt"]],
        [int(text["seed"])],
        negatives=[text["negative"]],
        options=SamplingOptions(**json.loads(text["options"])),
    )
    assert again[0].tobytes() == pixels(path)


def test_what_is_not_given_comes_from_the_models_defaults(draw, tiny_folder):
    (path,) = draw(APPLE)
    assert SamplingOptions(**json.loads(read_png_text(path)["options"])) == SamplingOptions(steps=6, guidance=2.0)
    assert "negative" not in read_png_text(path)


@pytest.mark.parametrize(
    ("flag", "value", "name"),
    [
        ("--steps", "4", "steps"),
        ("--guidance", "0", "guidance"),
        ("--guidance-ramp", "constant", "guidance_ramp"),
        ("--sampler", "halton", "sampler"),
        ("--temperature", "0.5", "temperature"),
        ("--top-k", "5", "top_k"),
        ("--choice-noise", "0", "choice_noise"),
        ("--remask", "0.5", "remask"),
        ("--refresh", "1", "refresh"),
    ],
)
def test_every_option_reaches_the_picture(flag, value, name, draw):
    changed, plain = draw(APPLE, "--seed", 1, "--out", "a.png", flag, value), draw(APPLE, "--seed", 1, "--out", "b.png")
    assert str(json.loads(read_png_text(changed[0])["options"])[name]).removesuffix(".0") == value
    assert pixels(changed[0]) != pixels(plain[0])


def test_every_sampling_option_stands_on_the_command_line_with_the_same_choices():
    ours, theirs = (typing.get_type_hints(each) for each in (Generate, SamplingOptions))
    for name, kind in theirs.items():
        assert set(typing.get_args(ours[name])) - {type(None)} == set(typing.get_args(kind | None)) - {type(None)}


def test_the_same_seed_gives_the_same_picture(draw):
    first, again, other = (draw(APPLE, "--seed", seed, "--out", f"{i}.png")[0] for i, seed in enumerate((5, 5, 6)))
    assert pixels(first) == pixels(again) != pixels(other)


def test_a_seed_that_nobody_chose_is_told_and_draws_the_same_again(draw):
    (first,), (second,) = draw(APPLE, "--out", "1.png"), draw(APPLE, "--out", "2.png")
    seed = read_png_text(first)["seed"]
    assert seed != read_png_text(second)["seed"]
    assert pixels(draw(APPLE, "--seed", seed, "--out", "3.png")[0]) == pixels(first)


def test_several_pictures_count_their_seeds_up_and_are_those_drawn_alone(draw, alike):
    paths = draw(APPLE, "--n", 10, "--seed", 7, "--out", "apple.png")  # more than one batch
    assert [str(path) for path in paths] == [f"apple-{i}.png" for i in range(1, 11)]
    assert [read_png_text(path)["seed"] for path in paths] == [str(seed) for seed in range(7, 17)]
    for i in (0, 9):
        (alone,) = draw(APPLE, "--seed", 7 + i, "--out", "alone.png")
        assert alike(Image.open(alone), Image.open(paths[i]))


def test_previews_show_every_step(draw, here):
    (path, animation, sheet) = draw(APPLE, "--previews", "--steps", 5, "--out", "apple.png")
    assert sorted(os.listdir(here)) == ["apple-steps.png", "apple-steps.webp", "apple.png"]
    assert getattr(Image.open(animation), "n_frames", 1) == 5
    assert Image.open(sheet).size == (3 * 132 + 4, 2 * 132 + 4)
    assert read_png_text(sheet) == read_png_text(path)


def test_previews_of_very_many_steps_are_some_of_them(draw, monkeypatch):
    monkeypatch.setattr("muse.apps.drawing.MOST_FRAMES", 4)
    _, _, sheet = draw(APPLE, "--previews", "--steps", 10)
    assert Image.open(sheet).size == (2 * 132 + 4, 2 * 132 + 4)  # every third, and the last


def test_a_terminal_sees_how_far_it_is(tiny_folder, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["generate", APPLE, "--model", str(tiny_folder)]) == 0
    assert "/6 [" in capsys.readouterr().err


# -- super-resolution ---------------------------------------------------------------------------------------------


@pytest.fixture
def draw_cascade(cascade_folder, capsys):
    """Run a command with the tiny cascade, well: the files that it names."""

    def run(verb, *arguments):
        assert main([verb, *map(str, arguments), "--model", str(cascade_folder)]) == 0
        told = capsys.readouterr()
        assert told.err == ""
        return [Path(line.split("  (seed ")[0]) for line in told.out.splitlines()]

    return run


EXACT = ("--precision", "float32")
"""As the model of the `cascade` fixture draws."""


def test_generate_runs_the_cascade_and_says_how(draw_cascade, cascade):
    (path,) = draw_cascade("generate", APPLE, "--seed", 1, "--superres-steps", 3, "--superres-guidance", 1, *EXACT)
    text = read_png_text(path)
    assert Image.open(path).size == (256, 256)
    options, superres_options = (SamplingOptions(**json.loads(text[name])) for name in ("options", "superres_options"))
    assert (options, superres_options) == (cascade.defaults, SamplingOptions(steps=3, guidance=1.0))
    again = cascade.generate([text["prompt"]], [1], options=options, superres_options=superres_options)
    assert again[0].tobytes() == pixels(path)


def test_size_low_stops_after_the_base(draw_cascade, cascade):
    (low,) = draw_cascade("generate", APPLE, "--seed", 1, "--size", "low", "--out", "low.png", *EXACT)
    (high,) = draw_cascade("generate", APPLE, "--seed", 1, "--size", "high", "--out", "high.png")
    assert (Image.open(low).size, Image.open(high).size) == ((128, 128), (256, 256))
    assert (read_png_text(low)["size"], read_png_text(high)["size"]) == ("low", "high")
    assert "superres_options" not in read_png_text(low)
    assert pixels(low) == cascade.generate([APPLE], [1], size="low")[0].tobytes()


@pytest.mark.parametrize(("flag", "value"), [("steps", 2), ("guidance", 5), ("temperature", 0)])
def test_every_option_of_super_resolution_reaches_the_picture(flag, value, draw_cascade):
    (plain,) = draw_cascade("generate", APPLE, "--seed", 1, "--out", "a.png")
    (changed,) = draw_cascade("generate", APPLE, "--seed", 1, "--out", "b.png", f"--superres-{flag}", value)
    assert json.loads(read_png_text(changed)["superres_options"])[flag] == value
    assert read_png_text(changed)["options"] == read_png_text(plain)["options"]
    assert pixels(changed) != pixels(plain)


def test_previews_of_a_cascade_show_both_stages_at_the_size_of_the_result(draw_cascade):
    _, animation, sheet = draw_cascade("generate", APPLE, "--previews", "--out", "apple.png")
    assert getattr(Image.open(animation), "n_frames", 1) == 10  # 6 and 4 steps
    assert Image.open(sheet).size == (4 * 260 + 4, 3 * 260 + 4)


def test_upscale_draws_a_picture_again_larger(draw_cascade, cascade):
    (low,) = draw_cascade("generate", APPLE, "--seed", 1, "--size", "low", "--out", "low.png", *EXACT)
    paths = draw_cascade("upscale", low, APPLE, "--n", 2, "--seed", 1, "--steps", 2, "--out", "high.png", *EXACT)
    text = read_png_text(paths[1])
    assert (text["image"], text["seed"]) == ("low.png", "2")
    options = SamplingOptions(**json.loads(text["options"]))
    assert options == SamplingOptions(steps=2, guidance=2.0)
    wanted = cascade.upscale([Image.open(low)] * 2, [APPLE] * 2, [1, 2], options=options)
    assert [pixels(path) for path in paths] == [image.tobytes() for image in wanted]


def test_a_picture_that_is_replaced_by_the_first_larger_one_is_still_that_of_the_others(draw_cascade, monkeypatch):
    (low,) = draw_cascade("generate", APPLE, "--seed", 1, "--size", "low", "--out", "high-1.png", *EXACT)
    command = ["upscale", low, APPLE, "--n", 2, "--seed", 1, "--steps", 2, *EXACT]
    monkeypatch.setattr("muse.apps.drawing.BATCH", 1)
    wanted = [pixels(path) for path in draw_cascade(*command, "--out", "other.png")]
    assert [pixels(path) for path in draw_cascade(*command, "--out", "high.png")] == wanted


def test_a_picture_that_cannot_be_enlarged_is_refused_in_one_sentence(refuse, cascade_folder, here, monkeypatch):
    Image.new("RGB", (20, 40)).save(here / "tall.png")
    (here / "text.png").write_text("no picture")
    cut(shutil.copy(here / "tall.png", here / "half.png"))
    assert "crop it to that shape" in refuse("upscale", "tall.png", APPLE, "--model", cascade_folder)
    monkeypatch.setattr(Muse, "from_pretrained", lambda *a: pytest.fail("the model was loaded"))
    for name in ("none.png", "text.png", "half.png", "."):
        assert is_one_sentence(refuse("upscale", name, APPLE, "--model", cascade_folder))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", APPLE, "--size", "high"], "model 'tiny' has no super-resolution; take one that has"),
        (["generate", APPLE, "--superres-steps", "4"], "--superres-steps came, and no super-resolution is drawn"),
        (["generate", APPLE, "--superres-guidance", "-1"], "guidance is -1.0; give"),
        (["upscale", "picture.png", APPLE], "model 'tiny' has no super-resolution; take one that has"),
    ],
)
def test_super_resolution_of_a_model_that_has_none_is_refused_in_one_sentence(
    arguments, message, refuse, tiny_folder, here
):
    Image.new("RGB", (20, 20)).save(here / "picture.png")
    said = refuse(*arguments, "--model", tiny_folder)
    assert is_one_sentence(said)
    assert message in said


def test_words_that_no_caption_held_are_told_and_the_picture_is_drawn(own_folder, here, capsys):
    Vocabulary(("red apple", "dog"), frozenset(["a", "red", "apple", "dog"])).save(own_folder)
    for prompt, is_told in (("a crimson apple", True), ("a red apple", False)):
        assert main(["generate", prompt, "--model", str(own_folder), "--steps", "2", "--out", "told.png"]) == 0
        told = capsys.readouterr()
        assert told.out.startswith("told.png")
        assert told.err.count("\n") == is_told
        assert told.err.startswith('note: no caption that tiny learnt from holds "crimson"') == is_told
    assert main(["info", str(own_folder)]) == 0
    assert "2 things, which --names lists" in capsys.readouterr().out
    assert main(["info", str(own_folder), "--names"]) == 0
    assert capsys.readouterr().out == "red apple\ndog\n"


def test_a_prompt_is_drawn_in_words_that_captions_held_unless_it_is_to_be_drawn_literally(own_folder, here, capsys):
    Vocabulary(("dog",), frozenset(["a", "red", "apple", "dog"])).save(own_folder)
    asked = ["generate", "a blue", "--model", str(own_folder), "--steps", "2", "--seed", "1", "--out"]
    assert main([*asked, "reworded.png"]) == 0
    told = (
        'note: no caption that tiny learnt from holds "blue", so it draws "a dog"; --literal draws your words as they'
    )
    assert capsys.readouterr().err == f"{told} are\n"
    assert main([*asked, "literal.png", "--literal"]) == 0
    assert capsys.readouterr().err.startswith('note: no caption that tiny learnt from holds "blue" (nearest: dog)')
    assert main(["generate", "a dog", *asked[2:], "dog.png"]) == 0
    assert read_png_text(here / "reworded.png")["prompt"] == "a dog"
    assert read_png_text(here / "literal.png")["prompt"] == "a blue"
    assert pixels("reworded.png") == pixels("dog.png") != pixels("literal.png")


def test_info_lists_no_names_of_a_model_that_has_none(tiny_folder, refuse):
    said = refuse("info", tiny_folder, "--names")
    assert is_one_sentence(said)
    assert "has no vocabulary.json" in said


def test_info_lists_the_parts_of_super_resolution(cascade_folder, cascade, capsys):
    assert main(["info", str(cascade_folder)]) == 0
    told = capsys.readouterr().out
    for part, network in ((cascade.superres, "SuperResTransformer"), (cascade.vqgan_superres, "VQGAN")):
        assert any(
            network in line and f"{sum(p.numel() for p in part.parameters()):,} parameters" in line
            for line in told.splitlines()
        )
    for fact in ("128 x 128", "256 x 256", "8 x 8", "16 x 16", "48 codes", "steps 4, guidance 2.0"):
        assert fact in told
    assert cascade.vqgan_superres.fingerprint() in told


@pytest.mark.parametrize("part", ["superres", "vqgan_superres"])
def test_a_cascade_with_a_missing_part_is_refused_in_one_sentence(part, own_cascade, refuse):
    shutil.rmtree(own_cascade / part)
    for arguments in (["generate", APPLE, "--model", own_cascade], ["info", own_cascade]):
        said = refuse(*arguments)
        assert is_one_sentence(said)
        assert "is missing; this folder is no whole checkpoint" in said


# -- where pictures go --------------------------------------------------------------------------------------------


def test_a_file_that_is_not_named_never_replaces_another(draw):
    names = [str(draw(APPLE, "--seed", 1)[0]) for _ in range(3)]
    assert names == ["a-red-apple-3d-style-1.png", "a-red-apple-3d-style-1-2.png", "a-red-apple-3d-style-1-3.png"]
    assert str(draw(APPLE, "--seed", 1, "--previews")[0]) == "a-red-apple-3d-style-1-4.png"


def test_a_file_that_is_named_is_replaced(draw, here):
    Path("apple.png").write_text("old")
    assert pixels(draw(APPLE, "--seed", 1, "--out", "apple.png")[0]) == pixels(draw(APPLE, "--seed", 1)[0])


def test_a_folder_is_filled_with_names_of_prompt_and_seed_and_made_if_missing(draw):
    paths = draw(APPLE, "--n", 2, "--seed", 3, "--out", "new/folder")
    assert [str(path) for path in paths] == [f"new/folder/a-red-apple-3d-style-{seed}.png" for seed in (3, 4)]
    assert str(draw(APPLE, "--out", "other/apple.PNG")[0]) == "other/apple.PNG"


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red apple, 3D!", "a-red-apple-3d"),
        ("../../etc/passwd", "etc-passwd"),
        ("ein Äpfelchen", "ein-äpfelchen"),
        ("🦊", "picture"),
        ("日本" * 500, "日本" * 20),
        ("x" * 39 + " y", "x" * 39),
    ],
)
def test_a_prompt_becomes_a_file_name(prompt, name):
    assert slug(prompt) == name


@pytest.mark.parametrize(
    "out", ["file/a.png", "file/folder/a.png", "file", "file/folder", "/proc/a.png", "x" * 300 + ".png"]
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_loaded(out, refuse, here, monkeypatch):
    (here / "file").write_text("a regular file")
    monkeypatch.setattr(Muse, "from_pretrained", lambda *a: pytest.fail("the model was loaded"))
    said = refuse("generate", APPLE, "--out", out)
    assert is_one_sentence(said)
    assert (here / "file").read_text() == "a regular file"


def test_another_format_than_png_is_refused(refuse):
    for name in ("apple.jpg", "apple.AVIF", "apple.svg", "apple.heic", "apple.jxl", "apple.pdf", "apple.jfif"):
        told = f"--out is {name} and pictures are written as PNG; give a name ending in .png, or a folder"
        assert told in refuse("generate", APPLE, "--out", name)
    for name in (".png", "pictures/.PNG", ".jpg"):
        told = f"--out is {name}, an ending without a name; give a name ending in .png, or a folder"
        assert told in refuse("generate", APPLE, "--out", name)


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", APPLE, "--out", "-"],
        ["vary", "picture.png", "--out", "-"],
        ["evaluate", "--data", "prompts.txt", "--out", "-"],
        ["compare", "emoji", "emoji", "--prompts", "prompts.txt", "--out", "-"],
        ["tokenize", "pictures", "-"],
        ["export", "runs/base", "-"],
        ["import-vqgan", "vqgan.ckpt", "-"],
    ],
)
def test_the_standard_output_is_refused_in_one_sentence(arguments, refuse):
    assert refuse(*arguments) == (
        "muse: out is -, and nothing is written to the standard output; give the name of a file or a folder\n"
    )


@pytest.mark.parametrize("is_named", [True, False])
def test_a_disk_that_fills_up_leaves_no_half_file(tiny_folder, refuse, monkeypatch, is_named):
    def full_disk(image, path, **options):
        path.write_bytes(b"half a pict")
        raise OSError(28, "No space left on device", *([str(path)] if is_named else []))

    monkeypatch.setattr(Image.Image, "save", full_disk)
    said = refuse("generate", APPLE, "--model", tiny_folder, "--out", "apple.png")
    assert said == (
        "muse: apple.png cannot be written (No space left on device); make room on the disk, or write to another\n"
    )


@pytest.mark.parametrize(("name", "place"), [((), "what was to be written has no room "), (("a.json",), "a.json: ")])
def test_a_full_disk_is_told_of_as_such_wherever_it_fills_up(name, place):
    said = sentence(OSError(28, "No space left on device", *name))
    assert said.startswith(place)
    assert said.endswith("; make room on the disk, or write to another")


# -- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "the prompt is empty"),
        (["  "], "the prompt is empty"),
        ([APPLE, "--negative", ""], "the negative prompt is empty"),
        (["apple " * 10_000], "10,001 sub-words and the text encoder reads at most 77"),
        (["bad \udcff bytes"], "the prompt is not text in UTF-8"),
        ([APPLE, "--n", "0"], "n is 0; give a whole number from 1 to 10,000"),
        ([APPLE, "--n", "-1"], "n is -1; give"),
        ([APPLE, "--n", "1000000000"], "n is 1000000000; give"),
        ([APPLE, "--seed", "-1"], "seed is -1; give"),
        ([APPLE, "--seed", str(2**63 - 1), "--n", "2"], "seed is 9223372036854775808; give"),
        ([APPLE, "--steps", "0"], "steps is 0; give"),
        ([APPLE, "--steps", "1000000000"], "steps is 1000000000; give a whole number from 1 to 10,000"),
        ([APPLE, "--guidance", "nan"], "guidance is nan; give"),
        ([APPLE, "--guidance", "-1"], r"guidance is -1.0; give"),
        ([APPLE, "--temperature", "inf"], "temperature is inf; give"),
        ([APPLE, "--top-k", "0"], "top_k is 0; give"),
        ([APPLE, "--choice-noise", "-0.5"], "choice_noise is -0.5; give"),
        ([APPLE, "--remask", "1.5"], "remask is 1.5; give a number from 0 to 1"),
        ([APPLE, "--refresh", "0"], "refresh is 0; give"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(arguments, message, refuse, tiny_folder):
    said = refuse("generate", *arguments, "--model", tiny_folder)
    assert is_one_sentence(said)
    assert message in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate"],
        [],
        ["paint", APPLE],
        ["generate", APPLE, "--n", "two"],
        ["generate", APPLE, "--sampler", "magic"],
        ["generate", "a", "red", "apple"],
        ["generate", APPLE, "--stepps", "4"],
        ["info", "--steps", "4"],
    ],
)
def test_a_command_that_cannot_be_read_is_refused_with_a_word_on_help(arguments, refuse):
    assert "--help" in refuse(*arguments)


@pytest.mark.parametrize("verb", [["generate", APPLE, "--model"], ["info"]])
@pytest.mark.parametrize("name", ["unknown", "", "no/such/folder", "nobody/nothing", "/etc/passwd"])
def test_an_unknown_model_is_refused_in_one_sentence(name, verb, refuse):
    assert is_one_sentence(refuse(*verb, name))


@pytest.mark.parametrize("verb", [["generate", APPLE, "--model"], ["info"]])
def test_a_run_that_came_for_its_model_is_refused_with_the_models_place(verb, refuse, tiny_folder, here):
    (here / "runs/base").mkdir(parents=True)
    (here / "runs/base/model").symlink_to(tiny_folder)
    said = refuse(*verb, "runs/base")
    assert said == "muse: runs/base is a training run; its model is runs/base/model\n"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def to_pickle(path):
    path.rename(path.with_name("pytorch_model.bin"))


SPOILED = {
    "missing index": lambda folder: (folder / "model_index.json").unlink(),
    "missing part": lambda folder: shutil.rmtree(folder / "base"),
    "missing weights": lambda folder: (folder / "vqgan/model.safetensors").unlink(),
    "truncated base": lambda folder: cut(folder / "base/model.safetensors"),
    "truncated text encoder": lambda folder: cut(folder / "text_encoder/model.safetensors"),
    "damaged index": lambda folder: cut(folder / "model_index.json"),
    "damaged config": lambda folder: cut(folder / "base/config.json"),
    "damaged tokenizer": lambda folder: cut(folder / "text_encoder/tokenizer.json"),
    "config that does not fit": lambda folder: change(folder / "base/config.json", dim=32),
    "text encoder that does not fit": lambda folder: change(folder / "text_encoder/config.json", d_ff=32),
    "text encoder of another depth": lambda folder: change(folder / "text_encoder/config.json", num_layers=3),
    "unknown field": lambda folder: change(folder / "vqgan/config.json", flavour="sweet"),
    "impossible config": lambda folder: change(folder / "base/config.json", heads=7),
    "unknown default": lambda folder: change(folder / "model_index.json", defaults={"strength": 1}),
    "another VQGAN": lambda folder: change(folder / "base/config.json", vqgan_fingerprint="0123456789ab"),
    "another codebook": lambda folder: change(folder / "vqgan/config.json", num_codes=32),
    "pickled base": lambda folder: to_pickle(folder / "base/model.safetensors"),
    "pickled text encoder": lambda folder: to_pickle(folder / "text_encoder/model.safetensors"),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_spoiled_model_is_refused_in_one_sentence(spoil, own_folder, refuse):
    spoil(own_folder)
    assert is_one_sentence(refuse("generate", APPLE, "--model", own_folder))


def test_weights_that_are_not_numbers_are_refused_in_one_sentence(own_folder, refuse):
    import torch
    from safetensors.torch import load_file, save_file

    path = own_folder / "base/model.safetensors"
    save_file({name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(path).items()}, path)
    assert "NaN" in refuse("generate", APPLE, "--model", own_folder)


def test_ctrl_c_says_so_and_leaves_no_file(tiny_folder, refuse, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Muse, "generate", interrupted)
    assert refuse("generate", APPLE, "--model", tiny_folder, code=130) == "muse: stopped\n"


# -- the rest -----------------------------------------------------------------------------------------------------


def test_info_says_what_a_model_is_without_reading_its_weights(tiny_folder, tiny_muse, capsys, monkeypatch):
    monkeypatch.setattr("muse.checkpoint.load_file", lambda *a: pytest.fail("weights were read"))
    assert main(["info", str(tiny_folder)]) == 0
    told = capsys.readouterr().out
    for part, network in zip(tiny_muse.modules, ("T5EncoderModel", "VQGAN", "MaskedTransformer"), strict=True):
        assert any(
            network in line and f"{sum(p.numel() for p in part.parameters()):,} parameters" in line
            for line in told.splitlines()
        )
    for fact in ("tiny", str(tiny_folder), "128 x 128", "8 x 8", "64 codes", "steps 6, guidance 2.0"):
        assert fact in told
    assert tiny_muse.vqgan.fingerprint() in told


@pytest.mark.parametrize(
    "spoil", ["missing index", "missing weights", "truncated base", "damaged config", "pickled base"]
)
def test_info_on_a_spoiled_model_says_so_in_one_sentence(spoil, own_folder, refuse):
    SPOILED[spoil](own_folder)
    assert is_one_sentence(refuse("info", own_folder))


def test_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"muse {muse.__version__}\n"


def test_help_answers_without_importing_torch():
    code = "import sys; from muse.apps.cli import main\ntry: main(['generate', '--help'])\nexcept SystemExit: pass\n"
    code += "print(sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)), file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": str(Path(muse.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stderr == "[]\n"
    assert "--guidance-ramp" in done.stdout
    assert "(default: the model's own)" in " ".join(done.stdout.replace("│", " ").split())


def test_pictures_of_a_batch_are_all_there_even_if_they_cannot_be_told_of(tiny_folder, here, monkeypatch):
    from tqdm import tqdm

    def fails(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(tqdm, "write", fails)
    arguments = ["--model", str(tiny_folder), "--n", "3", "--steps", "1", "--out", "a.png"]
    assert main(["generate", "a red apple", *arguments]) == 2
    assert len(list(here.glob("a-*.png"))) == 3


def test_a_file_of_another_name_is_never_touched(draw, here):
    (here / "a.png.tmp").write_text("mine")
    draw("a red apple", "--steps", 1, "--out", "a.png")
    assert (here / "a.png.tmp").read_text() == "mine"


def test_whoever_reads_only_the_first_names_is_told_nothing_else():
    command = f"{sys.executable} -m muse info emoji --names | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def test_whoever_reads_no_more_still_has_all_pictures_drawn(tiny_folder, here):
    drawn = f"{sys.executable} -m muse generate apple --model {tiny_folder} --steps 1 --n 12 --out many | true"
    command = f"{drawn}; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(Path(muse.__file__).parents[1])}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((here / "many").glob("*.png"))) == 12


def test_options_of_super_resolution_are_named_as_such(capsys):
    assert main(["generate", "a dog", "--superres-steps", "0"]) == 2
    assert capsys.readouterr().err == "muse: superres_steps is 0; give a whole number from 1 to 10,000\n"
