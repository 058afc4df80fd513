"""Editing through the server, as the official client of the OpenAI API asks for it."""

import base64
import io
import json

import numpy as np
import openai
import pytest
from PIL import Image

from muse.apps.server.pictures import MOST_SIDE, encode
from muse.canvas import Box, Margins
from muse.sampling import EditOptions, SamplingOptions
from tests.data.picture_folders import BROKEN_EXIF, TURNED

PROMPT = "a red apple"
FEW = {"steps": 2, "guidance": 1.0}
QUICK = SamplingOptions(steps=2, guidance=1.0)
HOLE = Box(30, 40, 50, 33)


@pytest.fixture(scope="module")
def photo():
    """A picture of another size than the model's."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(pixels).resize((150, 110), Image.Resampling.BICUBIC)


def png(image):
    """A picture as a file, named as the client wants it."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return ("picture.png", file.getvalue(), "image/png")


def with_hole(image, is_black=False):
    """A picture that is wholly transparent in HOLE."""
    alpha = np.full((image.height, image.width), 255, np.uint8)
    alpha[HOLE.inside(image.size)] = 0
    holed = (Image.new("RGB", image.size) if is_black else image).convert("RGBA")
    holed.putalpha(Image.fromarray(alpha))
    return holed


def picture_of(shown):
    return Image.open(io.BytesIO(base64.b64decode(shown.b64_json)))


def pixels(answer):
    return [picture_of(shown).tobytes() for shown in answer.data]


def test_the_client_fills_a_hole_and_gets_the_very_pictures_of_inpaint(served, tiny_muse, photo):
    answer = served.client().images.edit(
        image=png(photo), mask=png(with_hole(photo, is_black=True)), prompt=PROMPT, n=2, extra_body=FEW | {"seed": 3}
    )
    wanted = tiny_muse.inpaint(photo, HOLE, PROMPT, [3, 4], options=QUICK)
    assert pixels(answer) == [image.tobytes() for image in wanted]
    assert answer.size == "150x110"
    text = picture_of(answer.data[1]).info
    assert (text["command"], text["seed"], json.loads(text["options"])["steps"]) == ("inpaint", "4", 2)
    alpha = np.asarray(with_hole(photo))[:, :, 3]
    assert np.array_equal(np.asarray(picture_of(answer.data[0]))[alpha > 0], np.asarray(photo)[alpha > 0])


def test_a_picture_that_is_transparent_itself_needs_no_mask(served, tiny_muse, photo):
    holed = with_hole(photo)
    answer = served.client().images.edit(image=png(holed), prompt=PROMPT, extra_body=FEW | {"seed": 3})
    assert pixels(answer) == [tiny_muse.inpaint(holed, HOLE, PROMPT, [3], options=QUICK)[0].tobytes()]


def test_margins_widen_a_picture(served, tiny_muse, photo):
    own = FEW | {"seed": 3, "left": 20, "top": 9, "negative_prompt": "blue"}
    answer = served.client().images.edit(image=[png(photo)], prompt=PROMPT, size="170x119", extra_body=own)
    (wanted,) = tiny_muse.outpaint(photo, Margins(left=20, top=9), PROMPT, [3], negative="blue", options=QUICK)
    assert pixels(answer) == [wanted.tobytes()]


@pytest.mark.parametrize("side", [{}, {"left": 4}])
def test_what_would_take_the_only_worker_for_hours_is_refused(side, served):
    """A file of a few hundred bytes: one pixel by so many that it is drawn in hundreds of windows."""
    size, alpha = (1, 16_000), 255 if side else 0
    with pytest.raises(openai.BadRequestError) as error:
        served.client().images.edit(
            image=png(Image.new("RGBA", size, (9, 9, 9, alpha))), prompt=PROMPT, extra_body=FEW | side
        )
    assert "windows one after the other, and at most 64 go; send a picture that is less long" in error.value.message


def test_without_a_mask_the_whole_picture_is_turned_into_the_prompt(served, tiny_muse, photo):
    own = {"seed": 3, "iterations": 4, "share": 0.3, "guidance": 1.0, "refresh": 3}
    answer = served.client().images.edit(image=png(photo), prompt=PROMPT, extra_body=own)
    options = EditOptions(iterations=4, share=0.3, guidance=1.0, refresh=3)
    assert pixels(answer) == [tiny_muse.edit(photo, PROMPT, [3], options=options)[0].tobytes()]


def test_edits_are_streamed_with_partial_pictures(served, tiny_muse, photo):
    events = list(
        served.client().images.edit(
            image=png(photo), prompt=PROMPT, stream=True, partial_images=3, extra_body={"seed": 3, "iterations": 8}
        )
    )
    assert [event.type.split(".") for event in events] == [["image_edit", "partial_image"]] * 3 + [
        ["image_edit", "completed"]
    ]
    wanted = tiny_muse.edit(photo, PROMPT, [3], options=EditOptions(iterations=8))
    assert picture_of(events[-1]).tobytes() == wanted[0].tobytes()
    assert len({picture_of(event).tobytes() for event in events}) > 1


@pytest.mark.filterwarnings("ignore:deprecated")
def test_variations_are_near_or_far_as_asked(served, tiny_muse, photo):
    client = served.client()
    near = client.images.create_variation(image=png(photo), n=2, extra_body=FEW | {"seed": 3, "strength": 0.2})
    far = client.images.create_variation(image=png(photo), n=2, extra_body=FEW | {"seed": 3, "strength": 1})
    assert pixels(near) == [image.tobytes() for image in tiny_muse.variations(photo, 0.2, [3, 4], options=QUICK)]
    assert pixels(far) == [image.tobytes() for image in tiny_muse.variations(photo, 1.0, [3, 4], options=QUICK)]


def test_a_cascade_draws_in_both_its_sizes_and_edits_in_its_own(serving, cascade, photo):
    client, own = serving(cascade).client(), {"seed": 3, "superres_steps": 2}
    large = client.images.generate(prompt=PROMPT, extra_body=own)
    wanted = cascade.generate([PROMPT], [3], superres_options=SamplingOptions(steps=2, guidance=2.0))
    assert (large.size, pixels(large)) == ("256x256", [wanted[0].tobytes()])
    small = client.images.generate(prompt=PROMPT, size="128x128", extra_body={"seed": 3})
    assert pixels(small) == [cascade.generate([PROMPT], [3], size="low")[0].tobytes()]
    assert large.usage.output_tokens - small.usage.output_tokens == 256
    with pytest.raises(openai.BadRequestError, match="no super-resolution is drawn"):
        client.images.generate(prompt=PROMPT, size="128x128", extra_body=own)
    edited = client.images.edit(image=png(photo), prompt=PROMPT, extra_body={"seed": 3, "iterations": 2})
    assert pixels(edited) == [cascade.edit(photo, PROMPT, [3], options=EditOptions(iterations=2))[0].tobytes()]
    events = list(client.images.generate(prompt=PROMPT, stream=True, partial_images=3, extra_body=own))
    assert {event.size for event in events} == {"256x256"}


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_an_edit_keeps_the_colour_profile_in_every_format(kind, served, photo):
    file = io.BytesIO()
    photo.save(file, "PNG", icc_profile=b"a profile")
    picture = ("picture.png", file.getvalue(), "image/png")
    own = {"seed": 3, "iterations": 1}
    answer = served.client().images.edit(image=picture, prompt=PROMPT, output_format=kind, extra_body=own)
    shown = picture_of(answer.data[0])
    assert (shown.format, shown.info["icc_profile"]) == (kind.upper(), b"a profile")


@pytest.mark.parametrize("exif", [BROKEN_EXIF, TURNED], ids=["broken", "turned"])
def test_a_sound_picture_is_taken_whatever_its_exif_says(exif, served, tiny_muse, photo):
    file = io.BytesIO()
    photo.save(file, "PNG", exif=exif)
    picture, own = ("picture.png", file.getvalue(), "image/png"), {"seed": 3, "iterations": 1}
    answer = served.client().images.edit(image=picture, prompt=PROMPT, extra_body=own)
    upright = photo if exif == BROKEN_EXIF else photo.transpose(Image.Transpose.ROTATE_270)
    assert pixels(answer) == [tiny_muse.edit(upright, PROMPT, [3], options=EditOptions(iterations=1))[0].tobytes()]


@pytest.mark.parametrize(("kind", "most"), [("webp", 16_383), ("jpeg", 65_500)])
def test_a_format_that_has_no_room_for_the_picture_is_refused_before_anything_is_drawn(kind, most, serving, brake):
    client = serving().client()
    for size, margin in (((most, 2), {"left": 1}), ((2, 9), {"top": most - 8}), ((2, most + 1), {"iterations": 2})):
        picture = png(Image.new("RGB", size))
        with pytest.raises(openai.BadRequestError, match=f"{kind} has room for {most} a side; ask for png") as error:
            client.images.edit(image=picture, prompt=PROMPT, output_format=kind, extra_body=margin)
        assert error.value.param == "output_format"
    assert brake.rows == []


@pytest.mark.parametrize("kind", MOST_SIDE)
def test_a_format_has_room_for_as_much_as_it_says(kind):
    content = encode(Image.new("RGB", (MOST_SIDE[kind], 1)), kind, 50, {})
    assert Image.open(io.BytesIO(content)).size == (MOST_SIDE[kind], 1)
    with pytest.raises((OSError, ValueError)):
        encode(Image.new("RGB", (MOST_SIDE[kind] + 1, 1)), kind, 50, {})


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"mask": "opaque"}, "mask"),
        ({"mask": "full alpha"}, "mask"),
        ({"mask": "other size"}, "mask"),
        ({"mask": "good", "left": 5}, "mask"),
        ({"mask": "good", "iterations": 5}, "iterations"),
        ({"steps": 5}, "steps"),
        ({"context": 2}, "context"),
        ({"left": 100_000}, "left"),
        ({"left": 10, "size": "150x110"}, "size"),
        ({"superres_steps": 5}, "superres_steps"),
        ({"iterations": 101}, "iterations"),
        ({"share": 0}, "share"),
        ({"flavour": "sweet"}, "flavour"),
    ],
)
def test_edits_that_cannot_be_are_refused_in_the_apis_own_words(more, param, served, photo):
    masks = {
        "opaque": photo,
        "full alpha": photo.convert("RGBA"),
        "other size": with_hole(photo).resize((10, 10)),
        "good": with_hole(photo),
    }
    given = {"mask": png(masks[more.pop("mask")])} if "mask" in more else {}
    with pytest.raises(openai.BadRequestError) as error:
        served.client().images.edit(image=png(photo), prompt=PROMPT, extra_body=dict(more), **given)
    assert error.value.param == param
