from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from projects.emoji.captions import BACKGROUNDS, is_countable
from projects.emoji.dataset import EmojiArt
from projects.emoji.scenes import MOST_COPIES, RELATIONS, Scene, SceneWeights, is_held_out, paint, random_scene

some_seed = st.integers(0, 2**32 - 1)
seed_or_canonical = st.none() | some_seed


def generator(seed: int | None) -> np.random.Generator | None:
    return None if seed is None else np.random.default_rng(seed)


def count_blobs(picture: np.ndarray) -> int:
    """Connected dark regions; touching at a corner connects."""
    return ndimage.label((picture < 200).any(axis=-1), structure=np.ones((3, 3)))[1]  # pyright: ignore[reportIndexIssue]


def centre(picture: np.ndarray, art: EmojiArt, item: int) -> tuple[float, float]:
    """Where an item's own colour lies, (x, y)."""
    colour = art.pictures[item][art.size // 2, art.size // 2, :3].astype(int)
    y, x = np.nonzero(np.abs(picture.astype(int) - colour).max(axis=-1) <= 2)
    return float(x.mean()), float(y.mean())


@given(count=st.integers(1, MOST_COPIES), seed=seed_or_canonical)
def test_paint_keeps_the_count(art, count, seed):
    picture = paint(Scene("count", (1,), count=count), art, generator(seed))
    assert count_blobs(picture) == count


@given(relation=st.sampled_from(RELATIONS), seed=seed_or_canonical)
def test_a_pair_stands_in_its_relation_with_a_gap_between(art, relation, seed):
    first, second = 0, 9
    picture = paint(Scene("pair", (first, second), relation=relation), art, generator(seed))
    (x1, y1), (x2, y2) = centre(picture, art, first), centre(picture, art, second)
    far = art.size / 3
    assert {
        "left": x2 - x1 > far,
        "right": x1 - x2 > far,
        "above": y2 - y1 > far,
        "below": y1 - y2 > far,
        "and": max(abs(x1 - x2), abs(y1 - y2)) > far,
    }[relation]
    assert count_blobs(picture) == 2


@given(background=st.sampled_from(sorted(BACKGROUNDS)), seed=seed_or_canonical)
def test_corners_are_exactly_the_background(art, background, seed):
    picture = paint(Scene("single", (0,), background=background), art, generator(seed))
    assert picture.shape == (art.size, art.size, 3)
    assert picture.dtype == np.uint8
    for corner in (picture[0, 0], picture[0, -1], picture[-1, 0], picture[-1, -1]):
        assert tuple(corner) == BACKGROUNDS[background]


def test_an_unnamed_background_is_white(art):
    assert tuple(paint(Scene("single", (0,)), art)[0, 0]) == (255, 255, 255)


def test_no_dark_halo_where_transparent_pixels_are_black(art):
    white = np.zeros_like(art.pictures)
    white[:, 16:48, 16:48] = 255
    picture = paint(Scene("single", (0,)), replace(art, pictures=white))
    assert picture.min() >= 253


def test_the_same_seed_paints_the_same_picture(art):
    scene = Scene("count", (1,), count=3)
    first, again, other = (paint(scene, art, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()


@given(seed=some_seed, held_out=st.booleans())
def test_held_out_compositions_are_drawn_only_when_asked_for(art, seed, held_out):
    rng = np.random.default_rng(seed)
    scene = random_scene(art, rng, range(len(art.records)), held_out=held_out)
    assert is_held_out(scene, art) == held_out


@given(seed=some_seed)
def test_a_scene_draws_on_the_given_pictures_in_one_style(art, seed):
    rng, given_pictures = np.random.default_rng(seed), [0, 2, 4, 11, 13, 15]
    scene = random_scene(art, rng, given_pictures)
    assert set(scene.items) <= set(given_pictures)
    assert len({art.records[item].style for item in scene.items}) == 1
    assert len({art.records[item].concept for item in scene.items}) == len(scene.items)
    assert scene.kind != "count" or is_countable(art.records[scene.items[0]].concept)


def test_weights_choose_the_kinds(art):
    rng, everything = np.random.default_rng(0), range(len(art.records))
    only_counts = SceneWeights(single=0, count=1, pair=0, background=0)
    scenes = [random_scene(art, rng, everything, only_counts) for _ in range(50)]
    assert {scene.kind for scene in scenes} == {"count"}
    assert {scene.background for scene in scenes} == {None}
    assert {scene.count for scene in scenes} == {1, 2, 3, 4, 5}


def test_a_picture_is_never_put_on_its_own_colour(art):
    red = replace(art, pictures=np.broadcast_to(np.array([214, 40, 40, 255], np.uint8), art.pictures.shape))
    rng = np.random.default_rng(0)
    scenes = [random_scene(red, rng, [0], SceneWeights(1, 0, 0, background=1)) for _ in range(100)]
    assert {scene.background for scene in scenes} == set(BACKGROUNDS) - {"red"}


def test_no_pictures_is_an_error(art):
    with pytest.raises(ValueError, match="there are no pictures"):
        random_scene(art, np.random.default_rng(0), [])


def test_one_picture_allows_no_pair(art):
    with pytest.raises(ValueError, match="no scene found among 1 pictures"):
        random_scene(art, np.random.default_rng(0), [0], SceneWeights(single=0, count=0, pair=1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "pair", "items": (0,), "relation": "left"}, "cannot have 1 items"),
        ({"kind": "single", "items": (0,), "count": 2}, "cannot have 2 copies"),
        ({"kind": "count", "items": (0,), "count": 6}, "a count has 1 to 5"),
        ({"kind": "pair", "items": (0, 1)}, "cannot have the relation None"),
        ({"kind": "single", "items": (0,), "background": "teal"}, "'teal' is unknown"),
    ],
)
def test_an_impossible_scene_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Scene(**wrong)
