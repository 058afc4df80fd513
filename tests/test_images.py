"""Pictures as tensors and as files that say how they were made."""

import io
import os
import stat

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from muse.images import (
    contact_sheet,
    open_image,
    orientation,
    read_png_text,
    resized,
    save_animation,
    save_png,
    to_images,
    to_rgb,
    to_tensor,
    upright,
)
from tests.data.picture_folders import BROKEN_EXIF, TURNED

TEXT = {"prompt": "a red apple", "negative": "日本語, ä 🦊\nsecond line", "seed": "7", "options": '{"top_k": null}'}


@pytest.fixture
def picture():
    pixels = torch.randint(0, 256, (3, 20, 30), generator=torch.Generator().manual_seed(0))
    return to_images(pixels[None] / 255)[0]


def test_a_picture_comes_back_from_a_tensor_as_it_was(picture):
    assert to_images(to_tensor(picture)[None])[0].tobytes() == picture.tobytes()


def test_colours_outside_the_range_are_clamped_not_wrapped():
    assert to_images(torch.tensor([-1.0, 0.5, 2.0]).reshape(1, 3, 1, 1))[0].getpixel((0, 0)) == (0, 128, 255)


def test_a_png_keeps_its_pixels_and_its_text(picture, tmp_path):
    save_png(picture, tmp_path / "a.png", TEXT)
    assert read_png_text(tmp_path / "a.png") == TEXT
    assert Image.open(tmp_path / "a.png").tobytes() == picture.tobytes()
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_png_of_another_program_has_no_text(picture, tmp_path):
    picture.save(tmp_path / "a.png")
    assert read_png_text(tmp_path / "a.png") == {}


def test_text_is_read_from_a_png_only(picture, tmp_path):
    picture.save(tmp_path / "a.jpg")
    with pytest.raises(OSError, match=r"a\.jpg is no PNG, or a damaged one"):
        read_png_text(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError):
        read_png_text(tmp_path / "b.png")


def test_a_damaged_png_has_no_text_and_says_so(picture, tmp_path):
    save_png(picture, tmp_path / "a.png", TEXT)
    content = (tmp_path / "a.png").read_bytes()
    length = content.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(content[:length] + b"\0\0\0\x63" + content[length + 4 :])
    with pytest.raises(OSError, match=r"a.png is damaged or too large .*; get the picture again$"):
        read_png_text(tmp_path / "a.png")


@pytest.mark.parametrize(
    "save", [lambda image, path: save_png(image, path, TEXT), lambda *a: save_animation([a[0]], a[1])]
)
def test_a_picture_that_cannot_be_written_leaves_the_old_one_and_nothing_else(picture, tmp_path, monkeypatch, save):
    def full_disk(image, path, **options):
        path.write_bytes(b"half a pict")
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.png"
    path.write_bytes(b"the old picture")
    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save(picture, path)
    assert path.read_bytes() == b"the old picture"
    assert os.listdir(tmp_path) == ["a.png"]


def test_a_png_has_the_mode_of_any_new_file(picture, tmp_path):
    (tmp_path / "any").touch()
    save_png(picture, tmp_path / "a.png", {})
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == stat.S_IMODE((tmp_path / "any").stat().st_mode)


@pytest.mark.parametrize("num", [1, 2, 5])
def test_an_animation_shows_every_picture_in_turn(num, tmp_path):
    save_animation([Image.new("RGB", (8, 8), (50 * i, 0, 0)) for i in range(num)], tmp_path / "a.webp")
    with Image.open(tmp_path / "a.webp") as animation:
        assert (animation.format, getattr(animation, "n_frames", 1)) == ("WEBP", num)


def test_a_sheet_holds_all_pictures_in_rows(picture):
    assert contact_sheet([picture] * 5, columns=3, gap=4).size == (3 * 34 + 4, 2 * 24 + 4)
    with pytest.raises(ValueError, match="none came"):
        contact_sheet([], columns=3)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda image: [], "at least one picture is wanted and none came"),
        (lambda image: image, "images is of type Image; give a list of images, even for a single one"),
        (lambda image: (image for _ in range(3)), "images is of type generator; give a list of images"),
        (lambda image: ["a.png"], "the picture is of type str; give one of PIL, as muse.images.open_image reads it"),
    ],
)
def test_what_is_no_list_of_pictures_is_refused_in_one_sentence(give, message, picture, tmp_path, without_type_checks):
    with pytest.raises(ValueError, match=message):
        contact_sheet(give(picture), 2)
    with pytest.raises(ValueError, match=message):
        save_animation(give(picture), tmp_path / "a.webp")
    assert os.listdir(tmp_path) == []


def test_a_sheet_has_columns(picture):
    with pytest.raises(ValueError, match="columns is 0; give a whole number of at least 1"):
        contact_sheet([picture], 0)


def test_a_path_may_be_text(picture, tmp_path):
    save_png(picture, str(tmp_path / "a.png"), TEXT)
    save_animation([picture], str(tmp_path / "a.webp"))
    assert read_png_text(tmp_path / "a.png") == TEXT
    assert open_image(tmp_path / "a.webp").size == picture.size


# -- what people give -------------------------------------------------------------------------------------------------


def test_a_cmyk_a_palette_a_grey_and_a_bilevel_picture_become_their_colours():
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert to_rgb(red.convert("CMYK")).getpixel((3, 3)) == (255, 0, 0)
    assert to_rgb(red.quantize(4)).getpixel((3, 3)) == (255, 0, 0)
    assert to_rgb(Image.new("L", (8, 8), 77)).getpixel((3, 3)) == (77, 77, 77)
    assert to_rgb(Image.new("1", (8, 8), 1)).getpixel((3, 3)) == (255, 255, 255)


def test_16_bits_become_8_and_do_not_turn_white(tmp_path):
    levels = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    assert np.asarray(open_image(tmp_path / "a.png"))[..., 0].ravel().tolist() == list(range(256))


def test_a_grey_level_of_16_bits_that_is_transparent_is_laid_on_white_and_its_neighbour_is_not(tmp_path):
    levels = np.full((4, 4), 1000, np.uint16)
    levels[0], levels[1] = 1001, 65535
    Image.fromarray(levels).save(tmp_path / "a.png", transparency=1000)
    assert np.asarray(open_image(tmp_path / "a.png"))[..., 0].tolist() == [[4] * 4, *[[255] * 4] * 3]


def test_what_is_transparent_is_laid_on_white_and_what_is_not_stays_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 4), np.uint8)
    pixels[:3, :, 3], pixels[3:6, :, 3] = 0, 255
    flat = np.asarray(to_rgb(Image.fromarray(pixels)))
    assert (flat[:3] == 255).all()
    assert (flat[3:6] == pixels[3:6, :, :3]).all()
    assert (np.asarray(to_rgb(Image.fromarray(pixels), "black"))[:3] == 0).all()
    palette = Image.fromarray(pixels[..., :3]).quantize(8)
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    image = Image.new("RGB", (30, 20), "white")
    image.paste("red", (0, 0, 10, 20))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned right
    image.save(tmp_path / "a.png", exif=exif)
    upright = open_image(tmp_path / "a.png")
    assert upright.size == (20, 30)
    assert upright.getpixel((10, 2)) == (255, 0, 0)
    assert upright.getpixel((10, 28)) == (255, 255, 255)
    assert to_rgb(upright).size == (20, 30)  # once


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
@pytest.mark.parametrize(("exif", "size"), [(BROKEN_EXIF, (30, 20)), (TURNED, (20, 30))], ids=["broken", "turned"])
def test_a_sound_picture_is_read_whatever_its_exif_says(tmp_path, name, exif, size):
    Image.new("RGB", (30, 20)).save(tmp_path / name, exif=exif)
    image = open_image(tmp_path / name)
    assert image.size == to_rgb(image).size == size


@pytest.mark.parametrize("turn", range(1, 9))
def test_an_upright_picture_is_what_pillow_makes_of_it_and_says_nothing_more(turn):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = turn
    image.save(file, "PNG", exif=exif)
    turned = upright(Image.open(file))
    assert orientation(Image.open(file)) == turn
    assert turned.tobytes() == ImageOps.exif_transpose(Image.open(file)).tobytes()
    assert upright(turned).tobytes() == turned.tobytes()
    assert "exif" not in turned.info


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("blue", "red")]
    for name in ("a.gif", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert open_image(tmp_path / name).getpixel((2, 2)) == (0, 0, 255)


def test_a_colour_profile_is_kept_where_it_fits_and_nothing_else_is():
    image = Image.new("RGB", (8, 8))
    image.info |= {"icc_profile": b"a profile", "dpi": (300, 300), "comment": "where I live"}
    assert to_rgb(image).info == {"icc_profile": b"a profile"}
    inks = image.convert("CMYK")
    inks.info["icc_profile"] = b"of inks"
    assert to_rgb(inks).info == {}


def write_bytes(content):
    return lambda path: path.write_bytes(content)


def write_truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])


def write_huge(path):
    """A file of a few hundred kilobytes that says it has 400 million pixels."""
    Image.new("1", (20_000, 20_000)).save(path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_bytes(b"a poem, not a picture"), "a.png is no picture that can be read; give a PNG, JPEG"),
        (write_bytes(b""), "a.png is no picture that can be read"),
        (write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "is no picture that can be read"),
        (write_truncated, "a.png is damaged .*; get the picture again"),
        (write_huge, "a.png has more than 80,000,000 pixels; scale it down"),
        (
            lambda path: Image.new("1", (10_000, 9_000)).save(path),
            "a.png cannot be used: .*10000 x 9000 pixels",
        ),
        (lambda path: Image.new("F", (9, 9)).save(path, "TIFF"), "a.png cannot be used: a picture of mode F came"),
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
    ],
)
def test_a_picture_that_cannot_be_read_is_refused_in_one_sentence(write, message, tmp_path):
    write(tmp_path / "a.png")
    with pytest.raises((ValueError, OSError), match=message) as error:
        open_image(tmp_path / "a.png")
    assert "\n" not in str(error.value)


def test_a_long_picture_is_read(tmp_path):
    Image.new("RGB", (20_000, 3)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").size == (20_000, 3)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ValueError, match=r"0 x 5 pixels came.*give one that has some"):
        to_rgb(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(("size", "fits"), [((512, 512), True), ((33, 32), True), ((1, 2), False), ((10, 11), False)])
def test_a_picture_may_be_off_by_a_pixel_unless_that_is_much_of_it(size, fits):
    picture = Image.new("RGB", size, "red")
    if fits:
        assert resized(picture, (128, 128)).size == (128, 128)
    else:
        with pytest.raises(ValueError, match="crop it to that shape"):
            resized(picture, (128, 128))
