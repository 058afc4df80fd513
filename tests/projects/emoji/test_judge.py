"""The judge on synthetic shapes; its network is a few random convolutions, or the pixels themselves."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from projects.emoji.captions import BACKGROUNDS
from projects.emoji.judge import (
    JUDGE_SIZE,
    Gallery,
    Judge,
    background_of,
    features_of,
    is_one_piece,
    segments,
)
from projects.emoji.scenes import Scene, paint

Discs = list[tuple[int, int, int]]
"""Centre x, centre y and radius, in pixels."""


def picture_of(discs: Discs, background: str = "white", colour: str = "teal") -> np.ndarray:
    image = Image.new("RGB", (JUDGE_SIZE, JUDGE_SIZE), BACKGROUNDS[background])
    pen = ImageDraw.Draw(image)
    for x, y, radius in discs:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return np.array(image)


def pixels(pictures: torch.Tensor) -> torch.Tensor:
    """A network that sees 8x8 pixels."""
    return F.adaptive_avg_pool2d(pictures, 8).flatten(1)[..., None, None]


@pytest.fixture(scope="module")
def judge(art) -> Judge:
    return Judge(pixels, Gallery.of(art, pixels))


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_background_is_told_from_the_frame_even_with_noise(background):
    picture = picture_of([(64, 64, 60)], background)
    noise = np.random.default_rng(0).integers(-12, 13, picture.shape)
    assert background_of((picture + noise).clip(0, 255).astype(np.uint8)) == background


@pytest.mark.parametrize("background", ["white", "black", "pink"])
@pytest.mark.parametrize(
    "discs", [[(32, 32, 20)], [(32, 32, 30), (96, 32, 30)], [(20, 64, 19), (64, 64, 19), (108, 64, 19)]]
)
def test_each_thing_is_a_segment_with_its_centre(discs, background):
    found = sorted(segments(picture_of(discs, background)), key=lambda segment: segment.x)
    assert len(found) == len(discs)
    for segment, (x, y, _) in zip(found, discs, strict=True):
        assert (segment.x * JUDGE_SIZE, segment.y * JUDGE_SIZE) == pytest.approx((x, y), abs=1)


def test_an_empty_picture_has_no_segments():
    assert segments(picture_of([])) == []


def test_specks_are_no_segments():
    assert len(segments(picture_of([(64, 64, 30), (10, 10, 1), (118, 10, 4)]))) == 1


def test_pieces_whose_boxes_overlap_are_one_thing():
    ring_and_dot = picture_of([(64, 64, 50)])
    ImageDraw.Draw(image := Image.fromarray(ring_and_dot)).ellipse((24, 24, 104, 104), fill="white")
    ImageDraw.Draw(image).ellipse((54, 54, 74, 74), fill="teal")
    assert len(segments(np.array(image))) == 1


def test_neighbours_four_pixels_apart_stay_two():
    picture = np.full((JUDGE_SIZE, JUDGE_SIZE, 3), 255, np.uint8)
    picture[40:90, 10:60] = picture[40:90, 64:114] = (20, 80, 160)
    assert len(segments(picture)) == 2


def test_a_crop_is_the_thing_alone_on_white_and_as_large_as_a_single():
    crop = np.asarray(segments(picture_of([(32, 32, 20), (96, 96, 18)], "blue"))[0].crop)
    assert tuple(crop[0, 0]) == (255, 255, 255)
    rows = np.flatnonzero((crop < 200).any(axis=(1, 2)))
    assert rows[-1] - rows[0] + 1 == pytest.approx(0.92 * JUDGE_SIZE, abs=2)


def test_art_in_two_pieces_cannot_be_counted(art):
    pieces = np.zeros_like(art.pictures)
    pieces[:, 8:24, 8:24] = pieces[:, 40:56, 40:56] = (200, 30, 30, 255)
    assert is_one_piece(art, 0)
    assert not is_one_piece(type(art)(art.records, pieces), 0)


def test_a_real_picture_is_nearest_to_itself(judge, art):
    images = [Image.fromarray(paint(Scene("single", (i,)), art)) for i in range(0, 40, 7)]
    for i, seen in zip(range(0, 40, 7), judge.look(images), strict=True):
        assert seen.nearest == art.records[i]
        assert seen.ranks[judge.gallery.place_of[art.records[i].concept]] == 0


def test_nearest_orders_concepts_by_their_best_picture(judge, art):
    image = Image.fromarray(paint(Scene("single", (3,)), art))
    names = judge.nearest(judge.features([image]), k=4)[0]
    ranks = judge.look([image])[0].ranks
    assert names[0] == art.records[3].concept
    assert [ranks[judge.gallery.place_of[name]] for name in names] == [0, 1, 2, 3]


def test_without_a_family_its_pictures_are_not_looked_at(judge, art):
    seen = judge.look([Image.fromarray(paint(Scene("single", (0,)), art))])[0]
    place = judge.gallery.place_of[art.records[0].concept]
    assert seen.ranks_without["noto"][place] == 0
    # Disc 10 is of family "fluent" too; without them the colours nearest to disc 0 are those of discs 20, 21, ...
    assert seen.ranks_without["fluent"].tolist() == list(range(len(judge.gallery.concepts)))


def test_of_equals_each_concept_gets_the_worst_rank(art):
    def blind(pictures):
        return torch.ones(len(pictures), 4, 1, 1)

    seen = Judge(blind, Gallery.of(art, blind)).look([Image.new("RGB", (32, 32))])[0]
    assert (seen.ranks == len(art.concepts) - 1).all()


def test_a_picture_is_judged_alike_alone_and_among_others(judge):
    images = [
        Image.fromarray(picture_of([(32, 40, 20), (96, 80, 25)], colour=name))
        for name in BACKGROUNDS
        if " " not in name
    ][1:]
    alone, among = judge.look(images[2:3])[0], judge.look(images)[2]
    assert (alone.ranks == among.ranks).all()
    assert len(alone.things) == len(among.things) == 2


def test_features_are_of_one_size_whatever_the_picture():
    image = Image.new("RGB", (256, 256), "red")
    assert torch.allclose(features_of(pixels, [image])[0], features_of(pixels, [image.resize((64, 64))])[0])
