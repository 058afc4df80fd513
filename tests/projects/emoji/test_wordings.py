"""As people ask: what is drawn in which wording, and counted, on synthetic art."""

from PIL import Image

from projects.emoji.scenes import paint
from projects.emoji.wordings import KINDS, as_markdown, run, scenes_of, worded

NUM = 3


def test_each_wording_is_drawn_as_it_is_and_in_other_words_and_nothing_twice(block_art, block_judge):
    scenes = {}
    for kind in KINDS:
        prompts = scenes_of(kind, block_art, NUM, seed=0)
        assert {prompt.scene.relation for prompt in prompts} == {kind.relation}
        scenes |= {worded(kind.wordings[0], prompt, block_art): prompt.scene for prompt in prompts}
    drawn = []

    def draw(prompts, seeds):
        drawn.extend(zip(prompts, seeds, strict=True))
        return [
            Image.fromarray(paint(scenes[prompt], block_art)) if prompt in scenes else Image.new("RGB", (128, 128))
            for prompt in prompts
        ]

    def reword(prompt):
        return prompt.replace("next to", "and").replace("sitting on", "above")

    rows = {row.wording: row for row in run(draw, reword, block_judge, block_art, NUM)}
    assert list(rows) == [wording for kind in KINDS for wording in kind.wordings]
    for own in ("{a}", "{a} and {b}", "{a} above {b}", "{a} to the left of {b}"):
        assert (rows[own].as_it_is.value, rows[own].reworded.value) == (1, 1)
    for better in ("{a} next to {b}", "{a} sitting on {b}"):
        assert (rows[better].as_it_is.value, rows[better].reworded.value) == (0, 1)
    assert (rows["{a} near {b}"].as_it_is.value, rows["{a} near {b}"].reworded.value) == (0, 0)
    assert len(drawn) == len(set(drawn)) == NUM * len(rows)
    assert "| {a} next to {b} | 3 | 0.0 (" in as_markdown(list(rows.values()))


def test_a_wording_names_the_things_of_its_scene(block_art):
    pair = next(kind for kind in KINDS if kind.category == "pair")
    for prompt in scenes_of(pair, block_art, 2, seed=1):
        first, second = (block_art.records[item].concept for item in prompt.scene.items)
        told = worded("{n}: {a} and {b}", prompt, block_art)
        assert told.startswith(f"{first}: a")
        assert told.endswith(f" {second}")
