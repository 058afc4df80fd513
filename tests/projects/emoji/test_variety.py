"""Variety and near copies, of drawers that copy, repeat themselves or invent."""

import numpy as np
import pytest
import torch
from PIL import Image

from projects.emoji.captions import STYLE_PHRASES
from projects.emoji.scenes import Scene, paint
from projects.emoji.variety import VarietyOptions, mean_distances, run

OPTIONS = VarietyOptions(concepts=5, seeds=3, draws=20)
NOISE = np.random.default_rng(0).integers(-6, 7, (128, 128, 3))


def copy_of(art, prompt, seed):
    """The real picture of a prompt; without a style, another style with every seed."""
    styles = list(STYLE_PHRASES)
    words, _, phrase = prompt.partition(", ")
    style = next((name for name, phrases in STYLE_PHRASES.items() if phrase in phrases), None)
    concept = words.split(" ", 1)[1]
    items = [record.index for record in art.records if record.concept == concept and style in (None, record.style)]
    assert items, (words, styles)
    return Image.fromarray(paint(Scene("single", (items[seed % len(items)],)), art))


def nearly(images):
    """What a good VQGAN gives back."""
    return [Image.fromarray((np.asarray(image).astype(int) + NOISE).clip(0, 255).astype(np.uint8)) for image in images]


@pytest.fixture(scope="module")
def copies(block_art, block_judge):
    return run(
        lambda prompts, seeds: [copy_of(block_art, *each) for each in zip(prompts, seeds, strict=True)],
        nearly,
        block_art,
        block_judge,
        OPTIONS,
    )


def test_a_drawer_that_copies_is_found_out(copies):
    assert copies.copies.value == copies.own.value == 1
    assert 0 < copies.threshold < copies.real.value
    assert len(copies.pairs) == 40
    assert copies.pairs[0].tobytes() == copies.pairs[1].tobytes()


def test_a_drawer_that_copies_every_style_is_as_varied_as_they_are(copies):
    assert copies.drawn.value == pytest.approx(copies.real.value, rel=0.5)


def test_a_drawer_that_repeats_one_invented_picture_has_no_variety_and_copies_nothing(block_art, block_judge):
    ramp = np.linspace(0, 255, 128).astype(np.uint8)
    image = Image.fromarray(np.stack([np.broadcast_to(ramp, (128, 128))] * 3, axis=-1))
    report = run(lambda prompts, seeds: [image for _ in prompts], nearly, block_art, block_judge, OPTIONS)
    assert report.drawn.value == pytest.approx(0, abs=1e-5)
    assert report.copies.value == 0
    assert "near copies" in report.as_markdown()


def test_mean_distances_are_those_between_different_members_of_a_group():
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [3.0, 0.0]])
    assert mean_distances(features, 2).tolist() == pytest.approx([1.0, 0.0])


def test_one_seed_shows_no_variety():
    with pytest.raises(ValueError, match="two seeds"):
        VarietyOptions(seeds=1)
