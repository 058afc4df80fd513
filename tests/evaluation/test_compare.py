"""The blind page and its votes."""

import json
import re

import pytest
from PIL import Image

from muse.evaluation.compare import Pair, count_votes, sentence_of, write_page
from muse.evaluation.sources import Prompt, requests_for

PROMPTS = [Prompt(f"prompt {i}") for i in range(20)] + [Prompt("</script><script>alert(1)</script>")]
RED, BLUE = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")


@pytest.fixture
def page(tmp_path):
    pairs = [Pair(request, RED, BLUE) for request in requests_for(PROMPTS, None, 1, 0)]
    return write_page(pairs, ("first-model", "second-model"), tmp_path, seed=0)


def content_of(page):
    (found,) = re.findall(r'<script id="content" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(found)


def votes_file(page, choose, folder, rater="a", num=None):
    """What a rater downloads: choose(pair) for each of the first pairs."""
    content = content_of(page)
    votes = [{"id": pair["id"], "choice": choose(pair)} for pair in content["pairs"][:num]]
    path = folder / f"votes-{rater}.json"
    path.write_text(json.dumps({"page": content["page"], "rater": rater, "votes": votes}))
    return path


def likes(image, key):
    """A rater who always prefers the first model's colour, by looking at the picture alone."""
    red = next(
        pair["left"]
        for pair, told in zip(content_of(key.parent / "compare.html")["pairs"], read(key)["pairs"], strict=True)
        if told["one_is_left"] == (image is RED)
    )
    return lambda pair: "left" if pair["left"] == red else "right"


def read(path):
    return json.loads(path.read_text())


def test_the_page_needs_nothing_else_and_tells_nothing_of_the_models(page):
    text = page[0].read_text()
    assert not re.search(r"first-model|second-model|one_is_left", text)
    assert not re.search(r"""(src|href)=["'](?!data:)|https?://|@import|url\(""", text)
    assert "{{" not in text


def test_a_prompt_cannot_end_the_script_of_the_page(page):
    text = page[0].read_text()
    assert "alert(1)</script>" not in text
    assert content_of(page[0])["pairs"][-1]["prompt"] == PROMPTS[-1].text


def test_sides_are_mixed_and_the_key_knows_them(page):
    sides = [pair["one_is_left"] for pair in read(page[1])["pairs"]]
    assert 4 < sum(sides) < 17
    assert [pair["prompt"] for pair in read(page[1])["pairs"]] == [prompt.text for prompt in PROMPTS]


def test_a_page_of_one_seed_is_the_same_twice(page, tmp_path):
    pairs = [Pair(request, RED, BLUE) for request in requests_for(PROMPTS, None, 1, 0)]
    again = write_page(pairs, ("first-model", "second-model"), tmp_path / "again", seed=0)
    other = write_page(pairs, ("first-model", "second-model"), tmp_path / "other", seed=1)
    assert again[0].read_text() == page[0].read_text() != other[0].read_text()


def test_a_rater_who_always_prefers_the_first_model_counts_fully_for_it(page, tmp_path):
    preference = count_votes(page[1], [votes_file(page[0], likes(RED, page[1]), tmp_path)])
    assert (preference.num_votes, preference.num_ties) == (21, 0)
    assert preference.share is not None
    assert preference.share.value == 1
    assert preference.share.low == pytest.approx(0.845, abs=1e-3)  # Wilson, 21 of 21
    against = count_votes(page[1], [votes_file(page[0], likes(BLUE, page[1]), tmp_path)])
    assert against.share is not None
    assert against.share.value == 0


def test_a_rater_who_always_takes_one_side_prefers_nobody(page, tmp_path):
    preference = count_votes(page[1], [votes_file(page[0], lambda pair: "left", tmp_path)])
    assert preference.share is not None
    assert preference.share.low < 0.5 < preference.share.high


def test_ties_are_left_out_and_prompts_go_to_the_majority(page, tmp_path):
    likes_red, likes_blue = likes(RED, page[1]), likes(BLUE, page[1])
    files = [
        votes_file(page[0], likes_red, tmp_path, "a"),
        votes_file(page[0], likes_red, tmp_path, "b"),
        votes_file(page[0], likes_blue, tmp_path, "c", num=10),
        votes_file(page[0], lambda pair: "tie", tmp_path, "d"),
    ]
    preference = count_votes(page[1], files)
    assert (preference.num_raters, preference.num_votes, preference.num_ties) == (4, 73, 21)
    assert preference.share is not None
    assert preference.share_of_prompts is not None
    assert preference.share.value == pytest.approx(42 / 52)
    assert preference.share_of_prompts.value == 1
    said = sentence_of(preference)
    assert "first-model is preferred to second-model in 80.8%" in said
    assert "21 ties left out" in said


def test_votes_of_ties_alone_are_no_share(page, tmp_path):
    preference = count_votes(page[1], [votes_file(page[0], lambda pair: "tie", tmp_path)])
    assert preference.share is None
    assert "nothing" in sentence_of(preference)


def test_votes_that_are_none_are_refused_in_one_sentence(page, tmp_path):
    good = votes_file(page[0], lambda pair: "tie", tmp_path)
    spoiled = {
        "is no JSON": "{",
        "has no page, rater, votes": "[]",
        "has no rater": json.dumps({"page": 1, "votes": []}),
        "votes on page other": json.dumps({**read(good), "page": "other"}),
        "a vote that is none": json.dumps({**read(good), "votes": [{"id": 0, "choice": "both"}]}),
        r"a vote that is none: \{'id': \[0\]": json.dumps({**read(good), "votes": [{"id": [0], "choice": "tie"}]}),
        "no rater's list of votes": json.dumps({**read(good), "votes": 5}),
        "votes on pair 0 more than once": json.dumps({**read(good), "votes": 2 * [{"id": 0, "choice": "tie"}]}),
    }
    for said, text in spoiled.items():
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=said):
            count_votes(page[1], [tmp_path / "bad.json"])
    with pytest.raises(ValueError, match="of a rater that came before"):
        count_votes(page[1], [good, good])
    with pytest.raises(ValueError, match="no votes came"):
        count_votes(page[1], [])
    key = json.loads(page[1].read_text())
    (tmp_path / "key.json").write_text(json.dumps({**key, "pairs": [{"one_is_left": True}]}))
    with pytest.raises(ValueError, match="holds a pair that is none"):
        count_votes(tmp_path / "key.json", [good])


def test_a_comparison_of_no_prompts_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one prompt"):
        write_page([], ("a", "b"), tmp_path, 0)


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.mark.browser
def test_a_rater_votes_by_keys_goes_back_closes_the_page_and_downloads_the_votes(browser, page, tmp_path):
    red = next(
        pair["left"] if told["one_is_left"] else pair["right"]
        for pair, told in zip(content_of(page[0])["pairs"], read(page[1])["pairs"], strict=True)
    )
    context, failures = browser.new_context(), []
    view = context.new_page()
    view.on("pageerror", lambda error: failures.append(str(error)))
    view.goto(page[0].as_uri())

    def press_for_red():
        is_left = view.locator("#left-image").get_attribute("src") == red
        view.keyboard.press("ArrowLeft" if is_left else "ArrowRight")

    def count():
        return int(view.locator("#count").inner_text())

    orders = []
    for _ in range(3):
        orders.append(view.locator("#prompt").inner_text())
        press_for_red()
    view.keyboard.press("Backspace")
    assert count() == 2
    view.keyboard.press("ArrowDown")
    view.reload()  # closed and opened again, all votes are there
    assert count() == 3
    view.locator("#back").click()
    assert view.locator("#prompt").inner_text() == orders[2]
    while count() < len(PROMPTS):
        press_for_red()
    assert view.get_by_text("That was the last pair").is_visible()
    assert not view.locator("#rating").is_visible()
    with view.expect_download() as download:
        view.keyboard.press("d")
    votes = tmp_path / download.value.suggested_filename
    download.value.save_as(votes)
    context.close()
    assert failures == []
    preference = count_votes(page[1], [votes])
    assert (preference.num_votes, preference.num_ties) == (21, 0)
    assert preference.share is not None
    assert preference.share.value == 1
    assert [vote["id"] for vote in read(votes)["votes"]] != list(range(21))  # an order of the rater's own
