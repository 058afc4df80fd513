"""Where the model looks on a picture, and how what it draws is put back: no network is needed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from muse.canvas import (
    MOST_BEYOND,
    MOST_WINDOWS,
    Box,
    Margins,
    bounds,
    box_hole,
    continued,
    crop,
    hidden_cells,
    inpainting_windows,
    mask_hole,
    matched_to_surroundings,
    outpainting_windows,
    paste,
    view,
    whole_view,
    whole_window,
    widen,
    windows_in_use,
)

CANVAS = (128, 128)
SIDES = st.integers(1, 700)


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@st.composite
def pictures_with_boxes(draw, most=700):
    width, height = draw(st.integers(1, most)), draw(st.integers(1, most))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return (width, height), Box(x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))


def covers(windows, is_hole):
    is_left = is_hole.copy()
    for window in windows:
        is_left[window.inside(is_hole.shape[::-1])] = False
    return not is_left.any()


def is_within(window, size):
    return window.x >= 0 and window.y >= 0 and window.right <= size[0] and window.bottom <= size[1]


# -- windows ----------------------------------------------------------------------------------------------------------


@given(pictures_with_boxes(), st.floats(1, 8), st.sampled_from([CANVAS, (512, 512), (160, 96)]))
@settings(deadline=None)
def test_windows_cover_every_hole_have_the_shape_of_the_canvas_and_stay_on_the_picture_where_there_is_room(
    case, context, canvas
):
    size, box = case
    windows = inpainting_windows(box, size, canvas, context)
    assert covers(windows, box_hole(box, size))
    for window in windows:
        # rounding up to whole pixels, no more
        assert abs(window.width / canvas[0] - window.height / canvas[1]) <= 2 / min(canvas)
        if window.width <= size[0] and window.height <= size[1]:
            assert is_within(window, size)


def test_a_small_hole_is_seen_at_the_models_own_scale_and_a_large_one_with_context():
    assert inpainting_windows(Box(300, 300, 20, 20), (1000, 1000), CANVAS, 2) == [Box(246, 246, 128, 128)]
    assert inpainting_windows(Box(300, 300, 200, 100), (1000, 1000), CANVAS, 2) == [Box(200, 150, 400, 400)]
    assert inpainting_windows(Box(300, 300, 200, 100), (1000, 1000), CANVAS, 9) == [Box(0, 0, 1000, 1000)]
    assert inpainting_windows(Box(0, 0, 20, 20), (1000, 1000), CANVAS, 2) == [Box(0, 0, 128, 128)]
    assert inpainting_windows(Box(5, 5, 20, 20), (64, 64), CANVAS, 2) == [Box(0, 0, 64, 64)]


def test_a_long_hole_has_several_windows_each_half_over_the_last():
    windows = inpainting_windows(Box(0, 20, 2000, 50), (2000, 128), CANVAS, 2)
    assert len(windows) > 1
    assert covers(windows, box_hole(Box(0, 20, 2000, 50), (2000, 128)))
    steps = np.diff([window.x for window in windows])
    assert 0 < steps.min() <= steps.max() <= 64
    moderate = Box(0, 0, int(128 * MOST_BEYOND), 50)
    assert len(inpainting_windows(moderate, (2000, 128), CANVAS, 2)) == 1


@given(
    st.tuples(SIDES, SIDES),
    st.tuples(*[st.integers(0, 300)] * 4).filter(any),
    st.sampled_from([CANVAS, (512, 512), (160, 96)]),
)
@settings(deadline=None)
def test_every_margin_is_covered_and_every_window_meets_what_is_known_or_was_filled_before(size, sides, canvas):
    margins = Margins(*sides)
    image = Image.new("RGB", size)
    pixels, is_hole = widen(image, margins)
    inner = Box(margins.left, margins.top, *size)
    windows = windows_in_use(outpainting_windows(inner, (pixels.shape[1], pixels.shape[0]), canvas), is_hole)
    assert covers(windows, is_hole)
    is_left = is_hole.copy()
    for window in windows:
        inside = window.inside((pixels.shape[1], pixels.shape[0]))
        assert is_left[inside].any()
        assert not is_left[inside].all()
        is_left[inside] = False


def test_a_picture_of_the_models_size_is_widened_by_windows_of_that_size_half_over_it():
    inner = Box(0, 0, 128, 128)
    assert outpainting_windows(inner, (256, 128), CANVAS)[1:] == [Box(64, 0, 128, 128), Box(128, 0, 128, 128)]


def test_a_large_picture_is_widened_at_the_scale_at_which_the_model_sees_all_of_its_short_side():
    windows = outpainting_windows(Box(0, 0, 800, 512), (1200, 512), CANVAS)
    assert {(window.width, window.height) for window in windows} == {(512, 512)}


def test_a_thin_picture_has_windows_that_are_not_much_longer_than_it_is_high_but_not_thousands():
    windows = inpainting_windows(Box(0, 0, 700, 64), (700, 64), (256, 256), 2)
    assert {(window.width, window.height) for window in windows} == {(128, 128)}
    windows = inpainting_windows(Box(0, 0, 700, 1), (700, 1), (256, 256), 2)
    assert {(window.width, window.height) for window in windows} == {(32, 32)}


def test_too_many_windows_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match=f"at most {MOST_WINDOWS:,} are drawn; give a smaller hole"):
        outpainting_windows(Box(0, 0, 1, 1), (8000, 8000), CANVAS)


@given(SIDES, SIDES)
@settings(deadline=None)
def test_the_whole_picture_lies_in_its_window(width, height):
    if max(width, height) > 40 * min(width, height):
        with pytest.raises(ValueError, match="too long to be seen as a whole"):
            whole_window((width, height), CANVAS)
        return
    window = whole_window((width, height), CANVAS)
    assert window.x <= 0 <= width <= window.right
    assert window.y <= 0 <= height <= window.bottom
    assert max(width, height) == window.width == window.height


# -- what is seen -----------------------------------------------------------------------------------------------------


def test_a_view_at_the_models_scale_shows_every_known_pixel_as_it_is():
    pixels, is_hole = noise(300, 200), box_hole(Box(60, 70, 30, 20), (300, 200))
    seen = view(pixels, is_hole, Box(10, 20, 128, 128), CANVAS)
    levels = (seen.picture * 255).round().byte().permute(1, 2, 0).numpy()
    assert (seen.is_known.numpy() == ~is_hole[20:148, 10:138]).all()
    assert (levels == pixels[20:148, 10:138])[seen.is_known.numpy()].all()


@pytest.mark.parametrize("side", [32, 128, 500])
def test_what_stands_in_a_hole_is_not_seen_at_any_scale(side):
    is_hole = box_hole(Box(side // 4, side // 4, side // 2, side // 3), (side, side))
    plain = np.full((side, side, 3), 200, np.uint8)
    spoiled = np.where(is_hole[..., None], np.uint8(0), plain)
    seen = view(spoiled, is_hole, Box(0, 0, side, side), CANVAS)
    assert not seen.is_known.all()
    assert (seen.picture * 255 - 200).abs().max() < 3  # what 8 bits round away
    assert seen.picture.equal(view(plain, is_hole, Box(0, 0, side, side), CANVAS).picture)


def test_beyond_the_picture_a_view_goes_on_as_the_picture_ends():
    pixels = np.zeros((60, 20, 3), np.uint8)
    pixels[:, 10:] = 255
    seen = whole_view(Image.fromarray(pixels), whole_window((20, 60), CANVAS), CANVAS)
    assert seen.is_known.sum() < 0.4 * seen.is_known.numel()
    assert seen.picture[:, 64, 0].max() < 0.2
    assert seen.picture[:, 64, -1].min() > 0.8


def test_the_continuation_keeps_what_is_known_and_never_leaves_its_colours():
    picture = torch.rand(3, 37, 53, generator=torch.Generator().manual_seed(0)) / 2 + 0.25
    is_known = torch.rand(37, 53, generator=torch.Generator().manual_seed(1)) > 0.7
    filled = continued(picture, is_known)
    assert filled[:, is_known].equal(picture[:, is_known])
    assert picture.min() - 1e-6 <= filled.min() <= filled.max() <= picture.max() + 1e-6
    assert (continued(picture, torch.zeros_like(is_known)) - 0.5).abs().max() < 1e-6


@given(pictures_with_boxes(300), st.integers(1, 16), st.integers(1, 16))
@settings(deadline=None)
def test_a_token_is_hidden_exactly_if_a_pixel_of_the_hole_is_on_it(case, rows, columns):
    size, box = case
    window = whole_window(size, CANVAS) if max(size) <= 40 * min(size) else Box(0, 0, *size)
    cells = hidden_cells(box_hole(box, size), window, rows, columns)
    for row in range(rows):
        for column in range(columns):
            left, right = (window.x + window.width * i / columns for i in (column, column + 1))
            top, bottom = (window.y + window.height * i / rows for i in (row, row + 1))
            touches = left < box.right and box.x < right and top < box.bottom and box.y < bottom
            is_beyond = left < 0 or top < 0 or right > size[0] or bottom > size[1]
            assert bool(cells[row, column]) == (touches or is_beyond)


# -- what is put back -------------------------------------------------------------------------------------------------


@given(pictures_with_boxes(), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_only_the_hole_within_the_window_changes(case, seed):
    size, box = case
    pixels, is_hole = noise(*size), box_hole(box, size)
    is_hole &= np.random.default_rng(seed).random(is_hole.shape) < 0.7
    result = pixels.copy()
    for window in inpainting_windows(box, size, CANVAS, 2):
        seen = view(result, is_hole, window, CANVAS)
        paste(result, is_hole, window, seen, Image.fromarray(noise(*CANVAS, seed)))
    assert (result[~is_hole] == pixels[~is_hole]).all()


def test_a_drawing_that_equals_its_surroundings_is_pasted_unchanged():
    pixels = noise(128, 128)
    is_hole = box_hole(Box(40, 40, 50, 50), (128, 128))
    holed = np.where(is_hole[..., None], np.uint8(7), pixels)
    window = Box(0, 0, 128, 128)
    paste(holed, is_hole, window, view(holed, is_hole, window, CANVAS), Image.fromarray(pixels))
    assert (holed == pixels).all()


def test_the_seam_vanishes_at_the_edge_of_the_hole_and_its_middle_stays_as_drawn():
    plain = np.full((128, 128, 3), 200, np.uint8)
    is_hole = box_hole(Box(32, 32, 64, 64), (128, 128))
    seen = view(plain, is_hole, Box(0, 0, 128, 128), CANVAS)
    matched = matched_to_surroundings(torch.full((3, 128, 128), 160 / 255), seen) * 255
    assert (matched[:, 32, 64] - 200).abs().max() < 6  # 40 levels were missed
    assert (matched[:, 64, 64] - 160).abs().max() < 0.01
    along = matched[0, 32:64, 64]
    assert (along.diff() <= 1e-4).all()  # from the surroundings to the drawing, without a jump back
    assert along.diff().abs().max() < 10


def test_another_picture_in_the_hole_is_not_tinged_far_by_what_is_around_it():
    white = np.full((128, 128, 3), 255, np.uint8)
    is_hole = box_hole(Box(32, 32, 64, 64), (128, 128))
    seen = view(white, is_hole, Box(0, 0, 128, 128), CANVAS)
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 128, 128)
    green = matched_to_surroundings(red, seen)[1]
    assert green[36, 64] < 0.1  # four pixels within: no halo


def test_windows_fade_into_each_other_but_never_into_what_was_given():
    pixels = np.full((128, 192, 3), 100, np.uint8)
    is_hole = box_hole(Box(64, 0, 128, 128), (192, 128))
    is_left = is_hole.copy()
    for window, level in ((Box(0, 0, 128, 128), 110), (Box(64, 0, 128, 128), 190)):
        is_drawn = is_hole & ~is_left
        seen = view(pixels, is_left, window, CANVAS, is_drawn)
        paste(pixels, is_left, window, seen, Image.new("RGB", CANVAS, (level,) * 3), is_drawn)
        is_left[window.inside((192, 128))] = False
    row = pixels[64, :, 0].astype(int)
    assert (row[:64] == 100).all()
    assert row[-1] == 190
    assert np.abs(np.diff(row[:120])).max() <= 8  # no edge where the second window begins
    assert np.abs(np.diff(row)).max() <= 8


def test_what_was_drawn_of_a_whole_picture_comes_back_at_its_size():
    image = Image.fromarray(noise(100, 60)).resize((100, 60))
    window = whole_window(image.size, CANVAS)
    smooth = Image.linear_gradient("L").convert("RGB").resize((100, 60))
    seen = whole_view(smooth, window, CANVAS)
    drawn = Image.fromarray((seen.picture * 255).round().byte().permute(1, 2, 0).numpy())
    back = crop(drawn, window, smooth.size)
    assert back.size == (100, 60)
    assert np.abs(np.asarray(back).astype(int) - np.asarray(smooth)).mean() < 2


# -- what people give -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Box(0, 0, 0, 5), "a box of 0 x 5 pixels came; give it at least 1 x 1"),
        (lambda: Margins(), "all margins are 0; give at least one"),
        (lambda: Margins(left=-1), "left is -1; give"),
        (lambda: box_hole(Box(90, 0, 20, 20), (100, 100)), "from 90, 0 of 20 x 20 pixels is not wholly on the picture"),
        (lambda: box_hole(Box(-1, 0, 20, 20), (100, 100)), "not wholly on the picture of 100 x 100"),
        (
            lambda: mask_hole(Image.new("RGB", (9, 9), "white"), (9, 8)),
            "the mask has 9 x 9 pixels and the picture 9 x 8",
        ),
        (lambda: mask_hole(Image.new("RGB", (9, 9)), (9, 9)), "the mask is empty"),
        (lambda: widen(Image.new("RGB", (9, 9)), Margins(left=10**8)), "scale it down"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(wrong, message):
    with pytest.raises(ValueError, match=message) as error:
        wrong()
    assert "\n" not in str(error.value)


def test_a_mask_is_white_where_it_is_to_be_filled_and_its_bounds_are_those_of_the_white():
    mask = Image.new("L", (20, 10))
    mask.paste(255, (3, 4, 9, 6))
    mask.paste(100, (0, 0, 2, 2))
    assert bounds(mask_hole(mask.convert("RGB"), (20, 10))) == Box(3, 4, 6, 2)


def test_a_picture_that_is_widened_keeps_its_place():
    image = Image.fromarray(noise(7, 5))
    pixels, is_hole = widen(image, Margins(left=2, right=3, top=4, bottom=1))
    assert pixels.shape == (10, 12, 3)
    assert (pixels[4:9, 2:9] == np.asarray(image)).all()
    assert is_hole.sum() == 120 - 35
    assert not is_hole[4:9, 2:9].any()
