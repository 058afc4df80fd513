"""The editing verbs of `Muse`, on models of random weights with and without super-resolution."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from muse.canvas import Box, Margins, box_hole, hidden_cells, inpainting_windows
from muse.images import to_rgb
from muse.sampling import EditOptions, SamplingOptions

PROMPT, NEGATIVE = "a red apple", "two blue dog"
SEEDS = [3, 1, 4, 1]
QUICK = SamplingOptions(steps=1, guidance=0.0)
SHORT = SamplingOptions(steps=3, guidance=2.0)
FEW = EditOptions(iterations=4, share=0.3, guidance=1.0)
HOLE = Box(30, 40, 50, 33)


def picture(width=150, height=110, seed=0):
    """Colours that change slowly, and a little noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(coarse).astype(int) + rng.integers(-9, 10, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def pixels(images):
    return [image.tobytes() for image in images]


@pytest.fixture(params=["tiny_muse", "cascade"])
def muse(request):
    """A model without super-resolution, and one with."""
    return request.getfixturevalue(request.param)


def inpaint(muse, seeds=(7,), image=None, mask: Image.Image | Box = HOLE, **more):
    return muse.inpaint(picture() if image is None else image, mask, PROMPT, list(seeds), **{"options": SHORT, **more})


VERBS = {
    "inpaint": inpaint,
    "outpaint": lambda muse, seeds=(7,), image=None, **more: muse.outpaint(
        picture() if image is None else image,
        Margins(left=40, top=9),
        PROMPT,
        list(seeds),
        **{"options": SHORT, **more},
    ),
    "edit": lambda muse, seeds=(7,), image=None, **more: muse.edit(
        picture() if image is None else image, PROMPT, list(seeds), **{"options": FEW, **more}
    ),
    "variations": lambda muse, seeds=(7,), image=None, **more: muse.variations(
        picture() if image is None else image, 0.6, list(seeds), prompt=PROMPT, **{"options": SHORT, **more}
    ),
}
EVERY_VERB = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)


@pytest.fixture
def drawn(monkeypatch, muse):
    """What each network was asked to fill, and what it made of it: (stage, start, tokens)."""
    seen = []

    def spy(stage, draw):
        def draw_and_look(*arguments):
            tokens = draw(*arguments)
            seen.append((stage, arguments[-1], tokens))
            return tokens

        return draw_and_look

    monkeypatch.setattr(muse, "draw_base", spy("base", muse.draw_base))
    monkeypatch.setattr(muse, "draw_superres", spy("superres", muse.draw_superres))
    return seen


@pytest.fixture
def passes(muse):
    """Which network is asked, in turn."""
    seen = []
    networks = {"base": muse.base, "superres": muse.superres}
    handles = [
        network.register_forward_hook(lambda *_, name=name: seen.append(name))
        for name, network in networks.items()
        if network is not None
    ]
    yield seen
    for handle in handles:
        handle.remove()


# -- what every verb keeps --------------------------------------------------------------------------------------------


@EVERY_VERB
def test_the_same_seed_gives_the_same_picture_and_another_seed_another(verb, muse):
    assert pixels(verb(muse)) == pixels(verb(muse)) != pixels(verb(muse, seeds=[8]))


@EVERY_VERB
def test_a_batch_of_four_edits_equals_four_single_ones(verb, muse, alike):
    more = {"negative": NEGATIVE, "superres_options": replace(SHORT, steps=2) if muse.superres else None}
    together = verb(muse, seeds=SEEDS, **more)
    assert len(together) == 4
    assert together[1].tobytes() == together[3].tobytes()
    for seed, image in zip(SEEDS, together, strict=True):
        assert alike(verb(muse, seeds=[seed], **more)[0], image)


@EVERY_VERB
def test_a_negative_prompt_is_seen(verb, muse):
    assert pixels(verb(muse)) != pixels(verb(muse, negative=NEGATIVE))


@EVERY_VERB
def test_options_of_super_resolution_are_seen(verb, cascade):
    assert pixels(verb(cascade)) != pixels(verb(cascade, superres_options=SamplingOptions(steps=2)))


@EVERY_VERB
def test_every_step_of_both_networks_is_seen_and_counted(verb, muse):
    seen = []
    result = verb(muse, callback=lambda progress: seen.append((progress.done, progress.total, progress.show())))
    assert [done for done, _, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total, _ in seen} == {len(seen)}
    assert all([image.size for image in shown] == [result[0].size] for _, _, shown in seen)
    assert pixels(seen[-1][2]) == pixels(result)
    assert pixels(seen[0][2]) != pixels(result)


@EVERY_VERB
def test_the_picture_that_is_given_is_left_as_it_is(verb, muse):
    image = picture()
    before = image.copy()
    verb(muse, image=image)
    assert image.tobytes() == before.tobytes()


@EVERY_VERB
@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.convert("CMYK"),
        lambda image: image.convert("L"),
        lambda image: image.quantize(16),
        lambda image: Image.fromarray((np.asarray(image.convert("L")).astype(np.uint16)) * 257),
        lambda image: Image.merge("RGBA", [*image.split(), Image.linear_gradient("L").resize(image.size)]),
    ],
    ids=["CMYK", "grey", "palette", "16 bits", "alpha"],
)
def test_a_picture_of_any_mode_is_edited_as_its_rgb_would_be(verb, change, tiny_muse):
    image = change(picture())
    assert pixels(verb(tiny_muse, image=image)) == pixels(verb(tiny_muse, image=to_rgb(image)))


@EVERY_VERB
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (1500, 90), (128, 128), (257, 255)])
def test_a_picture_of_any_size_comes_back_at_its_size(verb, size, tiny_muse):
    image = Image.new("RGB", size, "orange")
    more = {"mask": Box(0, 0, 1, 1)} if verb is inpaint else {}
    (result,) = verb(tiny_muse, image=image, **more)
    grown = (40, 9) if verb is VERBS["outpaint"] else (0, 0)
    assert result.size == (size[0] + grown[0], size[1] + grown[1])


@pytest.mark.parametrize("verb", ["inpaint", "edit"])
def test_a_picture_of_20_000_pixels_is_edited_without_its_window_ever_being_in_memory(verb, tiny_muse):
    more = {"mask": Box(15_000, 20, 60, 50)} if verb == "inpaint" else {}
    image = Image.new("RGB", (20_000, 600), "orange")
    (result,) = VERBS[verb](tiny_muse, image=image, **more)
    assert result.size == (20_000, 600)


@EVERY_VERB
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"seeds": []}, "no seed came"),
        ({"seeds": [-1]}, "seed is -1; give a whole number"),
        ({"negative": " "}, "the negative prompt is empty"),
        ({"image": Image.new("RGB", (0, 4))}, "0 x 4 pixels came"),
        ({"image": Image.new("F", (4, 4))}, "a picture of mode F came"),
    ],
)
def test_what_cannot_be_edited_is_refused_in_one_sentence(verb, more, message, tiny_muse):
    with pytest.raises(ValueError, match=message) as error:
        verb(tiny_muse, **more)
    assert "\n" not in str(error.value)


@EVERY_VERB
@pytest.mark.parametrize(
    ("more", "message"),
    [
        *(
            ({"image": image}, f"the picture is of type {kind}; give one of PIL, as muse.images.open_image reads it")
            for image, kind in (
                ("a.png", "str"),
                (Path("a.png"), "PosixPath"),
                (np.ones((4, 4, 3), np.uint8), "ndarray"),
                (torch.ones(3, 4, 4), "Tensor"),
                ([Image.new("RGB", (4, 4))], "list"),
            )
        ),
        ({"options": {"steps": 2}}, "^options is of type dict; give muse"),
        ({"superres_options": {"steps": 2}}, "superres_options is of type dict; give muse.SamplingOptions"),
        ({"superres_options": EditOptions()}, "superres_options is of type EditOptions; give muse.SamplingOptions"),
    ],
)
def test_what_is_of_another_kind_is_refused_in_one_sentence_before_anything_is_drawn(
    verb, more, message, cascade, monkeypatch, without_type_checks
):
    monkeypatch.setattr(cascade, "base", None)
    with pytest.raises(ValueError, match=message) as error:
        verb(cascade, **more)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda muse: muse.edit(picture(), PROMPT, 1), "seeds is of type int; give a list of seeds"),
        (lambda muse: muse.variations(picture(), 0.5, torch.Generator()), "seeds is of type Generator; give a list"),
        (lambda muse: muse.edit(picture(), None), "the prompt is of type NoneType; give it as a string"),
        (lambda muse: muse.inpaint(picture(), HOLE, None), "the prompt is of type NoneType"),
        (lambda muse: muse.outpaint(picture(), Margins(9), [PROMPT]), "the prompt is of type list"),
        (lambda muse: muse.edit(picture(), PROMPT, negative=b"blue"), "the negative prompt is of type bytes; give it"),
        (
            lambda muse: muse.edit(picture(), PROMPT, options=SamplingOptions()),
            "options is of type SamplingOptions; give",
        ),
        (lambda muse: muse.inpaint(picture(), HOLE, PROMPT, options=FEW), "options is of type EditOptions; give"),
        (lambda muse: muse.variations(picture(), options=FEW), "options is of type EditOptions; give"),
        (lambda muse: muse.inpaint(picture(), (1, 2, 3, 4), PROMPT), "the mask is of type tuple; give a PIL picture, "),
        (lambda muse: muse.inpaint(picture(), "mask.png", PROMPT), "the mask is of type str; give a PIL picture, "),
        (lambda muse: muse.inpaint(picture(), np.ones((110, 150)), PROMPT), "the mask is of type ndarray; give"),
        (lambda muse: muse.outpaint(picture(), 30, PROMPT), "margins is of type int; give muse.canvas.Margins"),
        (lambda muse: muse.draft("a.png"), "the picture is of type str; give one of PIL"),
        (lambda muse: muse.update(picture(), PROMPT, 1), "the draft is of type Image; give what Muse.draft made"),
        (lambda muse: muse.update(muse.draft(picture()), PROMPT, None), "seed is None; give a whole number"),
        (lambda muse: muse.update(muse.draft(picture()), None, 1), "the prompt is of type NoneType"),
        (
            lambda muse: muse.update(muse.draft(picture()), PROMPT, 1, options=QUICK),
            "options is of type SamplingOptions",
        ),
        (
            lambda muse: muse.update(muse.draft(picture()), PROMPT, 1, superres_options=FEW),
            "superres_options is of type EditOptions",
        ),
    ],
)
def test_a_request_of_another_kind_is_refused_in_one_sentence(ask, message, cascade, without_type_checks):
    with pytest.raises(ValueError, match=message) as error:
        ask(cascade)
    assert "\n" not in str(error.value)


def test_numbers_of_numpy_edit_too(tiny_muse, without_type_checks):
    box = Box(*np.array([30, 40, 50, 33]))
    assert (box, type(box.x)) == (HOLE, int)
    left: Any = np.int16(3)
    assert type(Margins(left).left) is int
    assert pixels(inpaint(tiny_muse, seeds=np.array([7]), mask=box, context=np.float16(2))) == pixels(
        inpaint(tiny_muse)
    )
    varied = tiny_muse.variations(picture(), np.float32(0.5), np.array([7]))
    assert pixels(varied) == pixels(tiny_muse.variations(picture(), 0.5, [7]))


# -- inpainting -------------------------------------------------------------------------------------------------------


@given(
    size=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    share=st.floats(0.0005, 0.9),
    blob=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_outside_of_100_random_masks_and_sizes_no_pixel_differs_at_all(size, share, blob, seed, tiny_muse):
    # diffusers' aMUSEd: known pixels come back degraded
    rng = np.random.default_rng(seed)
    blobs = rng.random((-(-size[1] // blob), -(-size[0] // blob))) < share
    is_hole = np.kron(blobs, np.ones((blob, blob), bool))[: size[1], : size[0]]
    is_hole[rng.integers(size[1]), rng.integers(size[0])] = True
    image = picture(*size, seed=seed)
    (result,) = tiny_muse.inpaint(image, Image.fromarray(is_hole), PROMPT, [seed], options=QUICK)
    difference = np.abs(np.asarray(result).astype(int) - np.asarray(image))
    assert difference[~is_hole].max(initial=0) == 0


def test_at_both_scales_no_pixel_outside_differs_and_inside_something_does(muse):
    result = np.asarray(inpaint(muse)[0]).astype(int)
    difference = np.abs(result - np.asarray(picture())).max(axis=-1)
    is_hole = box_hole(HOLE, (150, 110))
    assert difference[~is_hole].max() == 0
    assert (difference[is_hole] > 0).mean() > 0.9


def test_known_tokens_are_never_drawn_again_and_those_of_the_hole_all_are_at_both_scales(muse, drawn):
    inpaint(muse, seeds=[1, 2])
    (window,) = inpainting_windows(HOLE, (150, 110), muse.size, 2)
    assert [stage for stage, _, _ in drawn] == ["base", "superres"][: len(drawn)]
    for stage, start, tokens in drawn:
        config = muse.base.config if stage == "base" else muse.superres.config
        cells = hidden_cells(box_hole(HOLE, (150, 110)), window, config.height, config.width).flatten()
        assert 0 < cells.sum() < len(cells)
        assert ((start == config.mask_id) == cells).all()
        assert tokens[:, ~cells].equal(start[:, ~cells])
        assert tokens.max() < config.mask_id


def test_a_box_is_the_mask_of_that_box(muse):
    mask = Image.fromarray(box_hole(HOLE, (150, 110)))
    assert pixels(inpaint(muse)) == pixels(inpaint(muse, mask=mask))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "CMYK"])
def test_a_mask_of_any_mode_is_read_by_its_white(mode, tiny_muse):
    mask = Image.fromarray(box_hole(HOLE, (150, 110)))
    if mode == "RGBA":  # as painting programs save it: white on nothing
        mask = Image.merge("RGBA", [Image.new("L", mask.size, 255)] * 3 + [mask.convert("L")])
    else:
        mask = mask.convert("RGB").convert(mode)
    assert pixels(inpaint(tiny_muse, mask=mask)) == pixels(inpaint(tiny_muse))


def test_a_full_mask_draws_a_new_picture_of_that_size(muse, drawn):
    (result,) = inpaint(muse, mask=Image.new("L", (150, 110), 255))
    assert result.size == (150, 110)
    assert all((start == start.max()).all() for _, start, _ in drawn)
    other = muse.inpaint(picture(seed=5), Image.new("L", (150, 110), 255), PROMPT, [7], options=SHORT)
    assert pixels([result]) == pixels(other)  # what stood there plays no part


def test_what_stands_in_the_hole_plays_no_part(muse):
    spoiled = picture()
    spoiled.paste("red", (HOLE.x, HOLE.y, HOLE.right, HOLE.bottom))
    assert pixels(inpaint(muse, image=spoiled)) == pixels(inpaint(muse))


def test_a_hole_longer_than_the_picture_is_high_is_filled_window_by_window(muse, drawn):
    image = picture(700, 64)
    (result,) = inpaint(muse, image=image, mask=Box(20, 10, 600, 30))
    assert len(drawn) > 2
    is_hole = box_hole(Box(20, 10, 600, 30), (700, 64))
    assert (np.asarray(result)[~is_hole] == np.asarray(image)[~is_hole]).all()
    starts = [start for stage, start, _ in drawn if stage == "base"]
    is_known = [(start != muse.base.config.mask_id).float().mean() for start in starts]
    assert min(is_known[1:]) >= 0.25  # each sees what the last one drew


def test_windows_have_noise_of_their_own(tiny_muse):
    seeds = []
    original = tiny_muse.draw_base
    try:
        tiny_muse.draw_base = lambda *given: (seeds.append(given[2]), original(*given))[1]
        inpaint(tiny_muse, image=Image.new("RGB", (700, 64)), mask=Box(0, 0, 700, 64), seeds=[2**63 - 1])
    finally:
        del tiny_muse.draw_base
    assert seeds[0] == (2**63 - 1,)
    assert len({seed[0] & 0xFFFFFFFF for seed in seeds}) == len(seeds) > 2


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (110, 150), 255), "the mask has 110 x 150 pixels and the picture 150 x 110; give a mask of"),
        (Image.new("L", (150, 110), 0), "the mask is empty"),
        (Box(140, 100, 20, 20), "is not wholly on the picture of 150 x 110"),
        (Box(500, 500, 20, 20), "is not wholly on the picture"),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused_in_one_sentence(mask, message, tiny_muse):
    with pytest.raises(ValueError, match=message) as error:
        inpaint(tiny_muse, mask=mask)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("context", [0.5, float("nan"), float("inf")])
def test_a_context_that_is_none_is_refused(context, tiny_muse):
    with pytest.raises(ValueError, match=r"context is .*; give a number of at least 1"):
        inpaint(tiny_muse, context=context)


def test_options_are_not_changed_by_an_edit(tiny_muse):
    # diffusers' aMUSEd: inpainting changes the shared scheduler
    before = tiny_muse.generate([PROMPT], [1])
    defaults = replace(tiny_muse.defaults)
    for verb in VERBS.values():
        verb(tiny_muse)
    assert tiny_muse.defaults == defaults
    assert pixels(tiny_muse.generate([PROMPT], [1])) == pixels(before)


# -- outpainting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "margins", [Margins(right=30), Margins(left=300, top=1), Margins(10, 20, 30, 40), Margins(bottom=500)]
)
def test_a_picture_that_is_widened_keeps_every_pixel_in_its_place(margins, muse):
    image = picture()
    (result,) = muse.outpaint(image, margins, PROMPT, [5], options=QUICK, superres_options=QUICK)
    assert result.size == (150 + margins.left + margins.right, 110 + margins.top + margins.bottom)
    box = (margins.left, margins.top, margins.left + 150, margins.top + 110)
    assert result.crop(box).tobytes() == image.tobytes()


# -- editing without a mask -------------------------------------------------------------------------------------------


def test_fewer_iterations_are_the_earlier_picture(tiny_muse):
    shown = []
    tiny_muse.edit(picture(), PROMPT, [7], options=FEW, callback=lambda progress: shown.append(progress.show()))
    stopped = tiny_muse.edit(picture(), PROMPT, [7], options=replace(FEW, iterations=2))
    assert pixels(shown[1]) == pixels(stopped)


def test_an_edit_is_one_pass_of_the_base_an_iteration_guided_alike_in_all(muse, passes):
    VERBS["edit"](muse)
    assert passes.count("base") == FEW.iterations
    assert pixels(VERBS["edit"](muse)) != pixels(VERBS["edit"](muse, options=replace(FEW, guidance=0.0)))


def test_all_of_super_resolution_is_drawn_after_an_edit(cascade, monkeypatch):
    starts = []
    draw = cascade.draw_superres
    monkeypatch.setattr(cascade, "draw_superres", lambda *given: (starts.append(given[-1]), draw(*given))[1])
    VERBS["edit"](cascade)
    assert starts == [None]


def test_an_update_is_one_pass_of_the_base_and_eight_of_super_resolution(muse, passes):
    draft = muse.draft(picture())
    passes.clear()
    after, image = muse.update(draft, PROMPT, 1, superres_options=SamplingOptions(steps=8))
    assert passes == ["base"] + ["superres"] * 8 * (muse.superres is not None)
    assert image.size == (150, 110)
    changed = (after.tokens != draft.tokens).float().mean()
    assert 0 < changed <= 0.1


def test_updates_go_on_from_each_other_and_the_quick_inpainting_is_one_pass_too(muse, passes):
    draft = muse.draft(picture())
    for seed in range(6):
        draft, _ = muse.update(draft, PROMPT, seed, options=EditOptions(share=0.5))
    assert (draft.tokens != muse.draft(picture()).tokens).float().mean() > 0.6
    passes.clear()
    inpaint(muse, options=SamplingOptions(steps=1))
    assert passes.count("base") == 1


# -- variations -------------------------------------------------------------------------------------------------------


def test_strength_zero_is_the_reconstruction_whatever_the_seed(muse, drawn):
    first, second = (muse.variations(picture(), 0, [seed], prompt=PROMPT) for seed in (1, 2))
    assert pixels(first) == pixels(second)
    assert all(start.equal(tokens) for _, start, tokens in drawn)


def test_strength_one_is_as_free_as_drawing(tiny_muse):
    square = picture(128, 128)
    free = tiny_muse.variations(square, 1, SEEDS, prompt=PROMPT)
    assert pixels(free) == pixels(tiny_muse.generate([PROMPT] * 4, SEEDS))


def test_more_strength_draws_more_tokens_again_at_both_scales(muse, drawn):
    # diffusers' aMUSEd: img2img at strength 1.0 masks nothing, at 0.9 masks 97%
    for strength in (0.0, 0.25, 0.5, 0.9, 1.0):
        muse.variations(picture(), strength, [5])
    for stage, network in (("base", muse.base), ("superres", muse.superres)):
        hidden = [start == network.config.mask_id for name, start, _ in drawn if name == stage]
        assert [float(each.float().mean()) for each in hidden] == pytest.approx(
            [0.0, 0.25, 0.5, 0.9, 1.0][: len(hidden)], abs=0.02
        )
        assert all((one <= other).all() for one, other in pairwise(hidden))


def test_a_variation_needs_no_prompt_and_a_prompt_is_seen(muse, alike):
    without = muse.variations(picture(), 0.7, SEEDS)
    assert len(without) == 4
    assert pixels(without) != pixels(muse.variations(picture(), 0.7, SEEDS, prompt=PROMPT))
    for seed, image in zip(SEEDS, without, strict=True):
        assert alike(muse.variations(picture(), 0.7, [seed])[0], image)
    with pytest.raises(ValueError, match="a negative prompt came without a prompt"):
        muse.variations(picture(), 0.7, SEEDS, negative=NEGATIVE)


@pytest.mark.parametrize("strength", [-0.1, 1.01])
def test_a_strength_outside_its_range_is_refused(strength, tiny_muse):
    with pytest.raises(ValueError, match="give a number from 0"):
        tiny_muse.variations(picture(), strength, [1])


def test_a_picture_too_long_to_be_seen_as_a_whole_is_refused(tiny_muse):
    for call in (VERBS["edit"], VERBS["variations"]):
        with pytest.raises(ValueError, match="too long to be seen as a whole"):
            call(tiny_muse, image=Image.new("RGB", (20_000, 100)))


def test_a_colour_profile_comes_through(tiny_muse):
    image = picture()
    image.info["icc_profile"] = b"a profile"
    for verb in VERBS.values():
        assert verb(tiny_muse, image=image)[0].info == {"icc_profile": b"a profile"}


def test_the_tokens_of_a_picture_do_not_depend_on_those_beside_it(tiny_muse):
    draft = tiny_muse.draft(picture())
    assert draft.tokens.shape == (1, 64)
    assert torch.equal(draft.tokens, tiny_muse.draft(picture()).tokens)
