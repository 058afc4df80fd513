"""The page of `muse web`: what it does without a browser, and over HTTP on loopback."""

import json
import re
import urllib.request
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

from muse.apps.settings import Settings
from muse.apps.web.options import Web
from muse.apps.web.page import FILL, VARY, Page
from muse.apps.web.studio import Studio
from muse.canvas import Margins
from muse.images import read_png_text, save_png
from muse.sampling import EditOptions, SamplingOptions
from muse.vocabulary import Vocabulary

pytestmark = pytest.mark.xdist_group("page")  # two workers would choose one port
APPLE = "a red apple"
QUICK = SamplingOptions(steps=3, guidance=1.0)


@pytest.fixture
def studio(tiny_muse, tmp_path):
    studio = Studio(tiny_muse, tmp_path)
    yield studio
    studio.close()


@pytest.fixture
def photo():
    return Image.radial_gradient("L").resize((60, 40)).convert("RGB")


def finished(shown):
    """The pictures at the end of what is shown."""
    *before, last = shown
    assert not any(each.pictures for each in before)
    return last.pictures


# -- the studio -------------------------------------------------------------------------------------------------------


def test_pictures_are_those_of_generate_and_their_files_say_how_they_were_made(studio, tiny_muse):
    pictures = finished(studio.draw(APPLE, [3, 4], "blue", QUICK, None))
    wanted = tiny_muse.generate([APPLE] * 2, [3, 4], negatives=["blue"] * 2, options=QUICK)
    assert [Image.open(picture.path).tobytes() for picture in pictures] == [image.tobytes() for image in wanted]
    assert studio.load(pictures[1].path) == Settings(APPLE, 4, QUICK, "blue", None, "tiny", "float32")
    assert pictures[0].caption == "a red apple (seed 3)"


def test_the_best_of_some_says_its_own_seed(studio, tiny_muse):
    pictures = finished(studio.draw(APPLE, [3, 7], None, QUICK, None, best_of=4))
    chosen = tiny_muse.choose([APPLE] * 2, [3, 7], 4, options=QUICK)
    wanted = tiny_muse.generate([APPLE] * 2, chosen, options=QUICK)
    assert [Image.open(picture.path).tobytes() for picture in pictures] == [image.tobytes() for image in wanted]
    assert [int(picture.text["seed"]) for picture in pictures] == chosen


def test_previews_come_while_a_picture_is_drawn(studio, tiny_muse):
    shown = list(studio.draw(APPLE, [3], None, QUICK, None))
    assert 1 <= len(shown) <= 3
    assert all(each.previews[0].size == tiny_muse.size for each in shown)


def test_every_verb_gives_the_picture_of_the_model(studio, tiny_muse, photo):
    mask = Image.new("L", photo.size)
    mask.paste(255, (10, 10, 30, 30))
    few = EditOptions(iterations=3)
    pairs = [
        (
            studio.inpaint(photo, mask, APPLE, [3], None, QUICK),
            tiny_muse.inpaint(photo, mask, APPLE, [3], options=QUICK),
        ),
        (
            studio.outpaint(photo, Margins(left=8), APPLE, [3], "blue", QUICK),
            tiny_muse.outpaint(photo, Margins(left=8), APPLE, [3], negative="blue", options=QUICK),
        ),
        (studio.edit(photo, APPLE, [3], None, few), tiny_muse.edit(photo, APPLE, [3], options=few)),
        (studio.vary(photo, 0.3, None, [3], None, QUICK), tiny_muse.variations(photo, 0.3, [3], options=QUICK)),
        (
            studio.vary(photo, 0.3, APPLE, [3], "blue", QUICK),
            tiny_muse.variations(photo, 0.3, [3], prompt=APPLE, negative="blue", options=QUICK),
        ),
    ]
    for shown, wanted in pairs:
        (picture,) = finished(shown)
        assert Image.open(picture.path).tobytes() == wanted[0].tobytes()
        with pytest.raises(ValueError, match="made of another one"):
            studio.load(picture.path)


def test_whoever_stops_looking_gives_the_picture_up(studio):
    shown = studio.draw(APPLE, [3], None, SamplingOptions(steps=2000, guidance=0.0), None)
    next(shown)
    shown.close()
    assert finished(studio.draw(APPLE, [4], None, QUICK, None))  # long before 2000 steps are over


@pytest.mark.parametrize(
    ("prompt", "seeds", "message"),
    [
        ("", [1], "prompt is empty"),
        (APPLE, [], "0 pictures"),
        (APPLE, [1] * 9, "9 pictures"),
        (APPLE, [-1], "seed is -1"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(prompt, seeds, message, studio):
    with pytest.raises(ValueError, match=message):
        studio.draw(prompt, seeds, None, QUICK, None)


def test_a_prompt_that_is_too_long_is_told_when_it_is_read(studio):
    with pytest.raises(ValueError, match="sub-words"):
        list(studio.draw("apple " * 200, [1], None, QUICK, None))


def test_the_oldest_files_go_first(studio, monkeypatch):
    monkeypatch.setattr("muse.apps.web.studio.MOST_FILES", 2)
    paths = [finished(studio.draw(APPLE, [seed], None, QUICK, None))[0].path for seed in range(3)]
    assert [path.exists() for path in paths] == [False, True, True]


@pytest.mark.parametrize("port", [0, 70_000])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ValueError, match="port"):
        Web(port=port).run()


def test_visitors_are_told_which_words_were_in_no_caption(studio, photo, monkeypatch):
    told = []
    monkeypatch.setattr("muse.apps.web.page.gr.Info", told.append)
    monkeypatch.setattr(studio.muse, "vocabulary", Vocabulary(("red apple",), frozenset(["red", "apple"])))
    page = Page(studio)
    assert page.reword(APPLE, False) == APPLE
    assert told == []
    assert page.reword("a crimson apple", False) == "a red apple"
    assert told == ['No caption that tiny learnt from holds "crimson", so it draws "a red apple".']
    canvas = {"background": photo, "layers": [], "composite": photo}
    *_, (captioned, *_) = page.edit(VARY, canvas, "a dog", False, "", 1, 3, False, 0, 0, 0, 0, 4, 0.5, [])
    assert len(told) == 2
    assert captioned[0][1].startswith("a red apple (seed 3")
    *_, (captioned, *_) = page.edit(VARY, canvas, "a dog", True, "", 1, 3, False, 0, 0, 0, 0, 4, 0.5, [])
    assert captioned[0][1].startswith("a dog (seed 3")
    assert told[2] == 'No caption that tiny learnt from holds "dog" (nearest: red apple).'


def test_what_a_picture_was_drawn_with_beyond_the_controls_is_told(cascade, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("muse.apps.web.page.gr.Warning", told.append)
    page, options = Page(Studio(cascade)), cascade.defaults
    usual = cascade.superres_defaults
    for i, (low, high) in enumerate(
        [
            (options, replace(usual, steps=2)),
            (options, None),
            (options, replace(usual, temperature=0.2)),
            (replace(options, steps=120), usual),
            (options, replace(usual, guidance=21.0)),
        ]
    ):
        text = Settings(APPLE, 1, low, None, high, cascade.name).to_text()
        save_png(Image.new("RGB", (8, 8)), tmp_path / f"{i}.png", text)
        controls = page.load(str(tmp_path / f"{i}.png"))
        assert controls[5] <= 100  # what the page would refuse to draw with is not set
        assert controls[15] <= 20
    wanted = ("no super-resolution", "other options of super-resolution", "steps 120", "guidance 21")
    assert all(each in message for each, message in zip(wanted, told, strict=True))
    text = Settings(APPLE, 2**60 + 1, options, None, usual, cascade.name).to_text()
    save_png(Image.new("RGB", (8, 8)), tmp_path / "seed.png", text)
    assert page.load(str(tmp_path / "seed.png"))[3] == 2**53 - 1
    assert str(2**60 + 1) in told[-1]


def test_the_gallery_tells_of_the_picture_that_is_shown_though_others_were_drawn_since(cascade, tmp_path):
    page = Page(Studio(cascade, tmp_path))
    kept = [finished(page.studio.draw(APPLE, [seed], None, QUICK, QUICK))[0] for seed in (1, 2, 3)]
    shown, there = page.gallery(kept[:2])
    assert [caption for _, caption in shown] == ["a red apple (seed 1)", "a red apple (seed 2)"]
    kept[0].path.unlink()
    assert page.settings_of(there, gr.SelectData(None, {"index": 1, "value": None}))["seed"] == "2"
    assert len(page.gallery(kept)[0]) == 2
    page.studio.close()


def test_an_edit_of_the_page_says_how_super_resolution_was_drawn(cascade, tmp_path, photo):
    studio = Studio(cascade, tmp_path)
    (picture,) = finished(studio.vary(photo, 0.5, None, [1], None, QUICK))
    options = json.loads(picture.text["superres_options"])
    assert SamplingOptions(**options) == cascade.superres_defaults
    studio.close()


# -- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(url, tmp_path_factory):
    """The page's address, and a client of its functions."""
    from gradio_client import Client

    folder = str(tmp_path_factory.mktemp("client"))
    return url, Client(url, verbose=False, analytics_enabled=False, download_files=folder)


def test_the_page_draws_and_its_download_says_how_it_was_made_and_sets_the_controls_again(page, tiny_muse):
    _, client = page
    asked = {"prompt": APPLE, "negative": "blue", "num": 2, "seed": 5, "is_random": False, "steps": 3, "guidance": 1.0}
    asked |= {"remask": 0.5, "refresh": 2}
    pictures, said, seed, *_ = client.predict(**asked, api_name="/draw")
    path = Path(pictures[1]["image"])
    text = read_png_text(path)
    assert (text["prompt"], text["negative"], text["seed"]) == (APPLE, "blue", "6")
    options = SamplingOptions(**json.loads(text["options"]))
    assert (options.steps, options.guidance, options.remask, options.refresh) == (3, 1.0, 0.5, 2)
    wanted = tiny_muse.generate([APPLE], [6], negatives=["blue"], options=options)
    assert Image.open(path).tobytes() == wanted[0].tobytes()
    assert (said["seed"], seed, pictures[0]["caption"]) == ("5", 5, "a red apple (seed 5)")
    from gradio_client import handle_file

    controls = client.predict(handle_file(path), api_name="/load")
    # The prompt that was drawn is drawn again, literally.
    assert controls[:7] == (APPLE, True, "blue", 6, False, 3, 1.0)
    assert controls[12:14] == (0.5, 2)


def test_a_picture_of_another_program_sets_no_controls_and_says_why(page, tmp_path, photo):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    save_png(photo, tmp_path / "foreign.png", {})
    with pytest.raises(AppError, match="does not say its"):
        page[1].predict(handle_file(tmp_path / "foreign.png"), api_name="/load")


@pytest.mark.parametrize(
    "kind", ["Fill what is painted over", "Widen the picture", "Change the whole picture", "Vary it"]
)
def test_the_page_edits_a_picture_that_is_painted_over(kind, page, photo, tmp_path):
    from gradio_client import handle_file

    layer = Image.new("RGBA", photo.size)
    layer.paste((255, 255, 255, 255), (10, 10, 30, 30))
    photo.save(tmp_path / "photo.png")
    layer.save(tmp_path / "layer.png")
    background = handle_file(tmp_path / "photo.png")
    canvas = {"background": background, "layers": [handle_file(tmp_path / "layer.png")], "composite": background}
    asked = {"kind": kind, "canvas": canvas, "prompt": APPLE, "seed": 5, "is_random": False}
    few = {"left": 8, "iterations": 3}
    answer = page[1].predict(**(asked | few), api_name="/edit")
    result = Image.open(answer[0][0]["image"])
    assert result.size == ((68, 40) if kind == "Widen the picture" else photo.size)
    if kind == "Fill what is painted over":
        assert result.getpixel((5, 5)) == photo.getpixel((5, 5))
        assert result.getpixel((20, 20)) != photo.getpixel((20, 20))


def test_a_negative_prompt_of_an_edit_brings_guidance_where_the_model_has_none(studio, photo, monkeypatch):
    from muse.apps.web.page import KINDS, Page

    monkeypatch.setattr(studio.muse, "defaults", SamplingOptions(steps=2, guidance=0.0))
    layer = Image.new("RGBA", photo.size, (255, 255, 255, 255))
    canvas = {"background": photo, "layers": [layer]}
    for negative, guidance in (("fox", 1.0), ("", 0.0)):
        *_, last = Page(studio).edit(KINDS[0], canvas, APPLE, False, negative, 1, 5, False, 0, 0, 0, 0, 3, 0.3, [])
        (path, _), *_ = last[0]
        assert json.loads(read_png_text(Path(path))["options"])["guidance"] == guidance


def test_a_seed_that_stays_draws_the_same_again_though_the_best_of_some_is_another(page):
    asked = {"prompt": APPLE, "seed": 5, "is_random": False, "steps": 3, "best_of": 4}
    first, again = (page[1].predict(**asked, api_name="/draw") for _ in range(2))
    assert first[1]["seed"] == again[1]["seed"] != "5"
    assert first[2] == again[2] == 5


def test_what_is_kept_of_an_edit_on_its_way_is_small(studio, photo):
    large = photo.resize((1500, 1000))
    canvas = {"background": large, "layers": []}
    *_, last = Page(studio).edit(VARY, canvas, APPLE, False, "", 1, 5, False, 0, 0, 0, 0, 3, 0.3, [])
    assert len(last[4]) > 2
    assert {frame.size for frame in last[4]} == {(512, 341)}
    assert Image.open(last[0][0][0]).size == (1500, 1000)


def test_a_hole_must_be_painted(studio, photo):
    with pytest.raises(gr.Error, match="Nothing is painted over; paint over what shall be filled"):
        next(
            Page(studio).edit(
                FILL, {"background": photo, "layers": []}, APPLE, False, "", 1, 5, False, 0, 0, 0, 0, 3, 0.3, []
            )
        )


def test_a_file_that_is_no_picture_is_told_of_by_its_name_alone(studio, tmp_path):
    (tmp_path / "fake.png").write_bytes(b"nothing")
    with pytest.raises(gr.Error, match=r"^'?The file fake.png is no PNG") as error:
        Page(studio).load(str(tmp_path / "fake.png"))
    assert not error.value.print_exception
    save_png(Image.new("RGB", (8, 8)), tmp_path / "seed.png", Settings(APPLE, -5, QUICK).to_text())
    with pytest.raises(gr.Error, match="seed is -5"):
        Page(studio).load(str(tmp_path / "seed.png"))


def test_what_cannot_be_drawn_is_told_on_the_page_in_one_sentence(page):
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match="The prompt is empty; say in a few words what the picture shows"):
        page[1].predict(prompt=" ", api_name="/draw")


def test_every_control_has_a_label_and_the_page_asks_no_other_host(page):
    url, _ = page
    config = json.loads(urllib.request.urlopen(f"{url}config", timeout=20).read())
    controls = [part for part in config["components"] if part["type"] in LABELLED]
    assert len(controls) > 25
    assert all(part["props"].get("label") for part in controls)
    labels = [part["props"]["label"] for part in controls]
    assert {"Prompt", "Negative prompt", "Steps", "Pictures", "What to do"} <= set(labels)
    theme = urllib.request.urlopen(f"{url}theme.css", timeout=20).read().decode()
    assert not re.search(r"fonts\.(googleapis|gstatic)", theme)


LABELLED = {"textbox", "slider", "number", "checkbox", "radio", "gallery", "image", "imageeditor", "file", "json"}
