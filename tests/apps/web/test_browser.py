"""The page in a real browser, Debian's Chromium without a screen: what a person clicks, types and paints.

`make test` installs Chromium where it may, and leaves these tests out where it may not."""

import io
import json
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from muse.images import read_png_text

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("page")]  # two workers would choose one port
APPLE = "a red apple"
PATIENCE = 60_000
"""Milliseconds that a picture may take on a busy machine."""


@pytest.fixture
def visit(browser, url):
    """Open the page; at the end no script has failed, and no other host was asked."""
    contexts, failures, hosts = [], [], set()

    def visit(path="", **looks):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **looks}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page.goto(url + path)
        page.get_by_label("Prompt", exact=True).wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert failures == []
    assert hosts - {None} == {urlsplit(url).hostname}


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def finished(page, prompt):
    """The file of the newest picture of a prompt that the page shows when it has finished."""
    shown = page.locator(f"img[alt^='{prompt} (seed']").first
    shown.wait_for()
    return urllib.request.urlopen(shown.get_attribute("src"), timeout=20).read()


def colours(page, selector="body"):
    """Red, green and blue of a part's background."""
    value = page.locator(selector).first.evaluate("part => getComputedStyle(part).backgroundColor")
    return [int(part) for part in value[value.index("(") + 1 : -1].split(",")[:3]]


def test_a_typed_prompt_becomes_a_picture_that_says_how_it_was_made(visit, tiny_muse):
    page = visit()
    page.get_by_label("Prompt", exact=True).fill(APPLE)
    page.get_by_label("Another seed each time").first.uncheck()
    page.get_by_label("Seed", exact=True).first.fill("5")
    button(page, "Draw").click()
    file = finished(page, APPLE)
    assert Image.open(io.BytesIO(file)).tobytes() == tiny_muse.generate([APPLE], [5])[0].tobytes()
    page.get_by_role("tab", name="Gallery").click()
    page.locator(f"img[alt='{APPLE} (seed 5)']:visible").first.wait_for()


def test_the_file_of_a_picture_sets_the_controls_of_a_new_visit(visit, tmp_path):
    page = visit()
    page.get_by_label("Prompt", exact=True).fill(APPLE)
    button(page, "Draw").click()
    path = tmp_path / "apple.png"
    path.write_bytes(finished(page, APPLE))
    again = visit()
    again.locator("input[type=file][accept='.png']").set_input_files(path)
    again.wait_for_function("text => document.querySelector('textarea').value === text", arg=APPLE)
    assert not again.get_by_label("Another seed each time").first.is_checked()
    assert again.get_by_label("Seed", exact=True).first.input_value() == read_png_text(path)["seed"]


def test_a_hole_that_is_painted_by_hand_is_filled_and_the_rest_stays(visit, tmp_path):
    picture = Image.radial_gradient("L").convert("RGB")
    picture.save(tmp_path / "picture.png")
    page = visit()
    page.get_by_role("tab", name="Edit").click()
    canvas = page.locator("canvas:visible").last
    canvas.wait_for()
    page.wait_for_timeout(1500)  # before the editor has made its layers, it loses a picture that is given to it
    page.locator("input[type=file][accept*=image]").set_input_files(tmp_path / "picture.png")
    page.wait_for_timeout(1500)  # the editor fits the picture into the canvas in an animation
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y)
    page.mouse.down()
    for step in range(13):
        page.mouse.move(x - 30 + 5 * step, y)
    page.mouse.up()
    page.get_by_label("Prompt of the edit", exact=True).fill(APPLE)
    button(page, "Edit").click()
    result = Image.open(io.BytesIO(finished(page, APPLE)))
    assert result.size == picture.size
    changed = (np.asarray(result) != np.asarray(picture)).any(-1)
    rows, columns = np.nonzero(changed)
    assert 200 < changed.sum() < 0.4 * changed.size
    assert abs(rows.mean() - 128) < 24
    assert abs(columns.mean() - 128) < 24


def test_a_picture_is_drawn_by_keyboard_alone(visit):
    page = visit()
    reached = ""
    for _ in range(12):
        page.keyboard.press("Tab")
        reached = page.evaluate("document.activeElement.closest('label')?.innerText ?? ''")
        if reached.strip() == "Prompt":
            break
    assert reached.strip() == "Prompt"
    page.keyboard.type(APPLE)
    page.keyboard.press("Shift+Enter")
    finished(page, APPLE)


def test_an_example_is_one_click_and_a_mistake_is_one_sentence(visit):
    page = visit()
    button(page, "Draw").click()
    page.get_by_text("The prompt is empty; say in a few words what the picture shows").first.wait_for()
    page.get_by_label("Prompt", exact=True).fill(APPLE)
    button(page, "Draw").click()
    finished(page, APPLE)


def test_after_a_mistake_the_seed_can_be_put_right(visit, tiny_muse):
    page = visit()
    page.get_by_label("Prompt", exact=True).fill(APPLE)
    page.get_by_label("Another seed each time").first.uncheck()
    seed = page.get_by_label("Seed", exact=True).first
    seed.fill("")
    button(page, "Draw").click()
    page.get_by_text("There is no seed; give a whole number").first.wait_for()
    seed.click()
    page.keyboard.type("12")
    assert seed.input_value() == "12"
    button(page, "Draw").click()
    file = finished(page, APPLE)
    assert Image.open(io.BytesIO(file)).tobytes() == tiny_muse.generate([APPLE], [12])[0].tobytes()


def test_several_pictures_are_all_seen_whole(visit):
    page = visit()
    page.get_by_label("Prompt", exact=True).fill(APPLE)
    page.get_by_label("number input for How many pictures").first.fill("4")
    button(page, "Draw").click()
    finished(page, APPLE)
    page.wait_for_timeout(500)
    heights = "part => [part.scrollHeight, part.clientHeight]"
    all_of_it, shown = page.locator(".grid-wrap:visible").first.evaluate(heights)
    assert all_of_it <= shown + 1


def test_labels_stand_out_from_what_is_behind_them(visit):
    page = visit(color_scheme="light")
    for wanted in ("Negative prompt", "Else they are put in words that the model's captions held"):
        text = page.get_by_text(wanted, exact=True).first
        ink, paper = text.evaluate(COLOURS)
        light, dark = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (wanted, ink, paper)


COLOURS = """part => {
    let behind = part
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement
    return [getComputedStyle(part).color, getComputedStyle(behind).backgroundColor]
}"""


def luminance(colour):
    """Relative luminance of rgb(...). WCAG 2."""
    shares = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("tab", ["Draw", "Edit", "Gallery"])
def test_on_a_phone_nothing_is_wider_than_the_screen(visit, tab):
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page.get_by_role("tab", name=tab).click()
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_it_is_dark_where_the_person_has_it_dark(visit):
    light, dark = (colours(visit(color_scheme=scheme)) for scheme in ("light", "dark"))
    assert sum(light) > 600
    assert sum(dark) < 200


def test_a_screen_reader_has_a_name_for_every_control(visit):
    page = visit()
    page.get_by_text("More options").first.click()  # they have names too
    page.wait_for_function(f"({UNNAMED})().named >= 30")  # the prompt is there before the controls beside it
    names = page.evaluate(UNNAMED)
    assert names["named"] >= 30
    assert names["unnamed"] == [], json.dumps(names["unnamed"])


UNNAMED = """() => {
    const kinds = "input:not([type=file]), textarea, button, [role=tab], [role=slider]"
    const controls = [...document.querySelectorAll(kinds)]
    const name = part => part.getAttribute("aria-label") || part.title || part.innerText?.trim() || part.placeholder
        || [...(part.labels ?? [])].map(label => label.innerText.trim()).join("")
        || document.getElementById(part.getAttribute("aria-labelledby"))?.innerText
    const seen = controls.filter(part => part.checkVisibility())
    return {named: seen.filter(name).length, unnamed: seen.filter(part => !name(part)).map(part => part.outerHTML)}
}"""
