"""Any picture file becomes an upright RGB square, or is skipped by name."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from muse.data.options import SourceOptions
from muse.data.pictures import SUFFIXES, Tally, Unusable, clean, fit, read_picture
from muse.data.sources import FolderSource
from muse.evaluation.sources import PictureSet
from muse.images import open_image
from tests.data.picture_folders import BROKEN_EXIF, TURNED, awkward_folder, encoded, picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return awkward_folder(tmp_path_factory.mktemp("pictures") / "awkward")


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("plain.png", set()),
        ("cmyk.jpg", {"CMYK"}),
        ("deep.png", {"16-bit"}),
        ("animated.gif", {"animated", "palette"}),
        ("clear.png", {"transparent"}),
        ("rotated.jpg", {"rotated"}),
        ("palette.png", {"palette"}),
    ],
)
def test_every_kind_of_picture_is_read_as_rgb_and_its_kind_is_told(folder, name, kinds):
    image, found = read_picture(folder / name)
    assert image.mode == "RGB"
    assert found == kinds


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_a_picture_of_every_ending_is_read_in_training_and_in_evaluation(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    picture(0).save(path, "JPEG" if suffix in (".jfif", ".jpe") else None)
    (row,) = FolderSource(tmp_path, SourceOptions()).rows(0)
    assert isinstance(row.picture, Path)
    image, _ = read_picture(row.picture)
    real = PictureSet.of_folder(tmp_path).read([0])[0]
    assert image.size == real.size == (24, 20)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(real)).max() == 0


def test_what_another_program_would_have_to_draw_is_no_picture_under_any_name(tmp_path, monkeypatch):
    """Pillow hands EPS to Ghostscript, whatever the name of the file is."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    picture(0).save(tmp_path / "a.png", "EPS")
    with pytest.raises(Unusable, match=r"^damaged$"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png is no picture; take it away$"):
        PictureSet.of_folder(tmp_path).read([0])


def test_the_first_frame_of_an_animation_is_taken(folder):
    image, _ = read_picture(folder / "animated.gif")
    assert np.abs(np.asarray(image).astype(int) - np.asarray(picture(2))).mean() < 4


def test_what_is_transparent_is_white(folder):
    assert read_picture(folder / "clear.png")[0].getcolors() == [(24 * 20, (255, 255, 255))]


def test_sixteen_bits_keep_their_upper_eight(folder):
    grey = np.asarray(read_picture(folder / "deep.png")[0])[..., 0].flatten()
    assert (grey[0], grey[-1]) == (0, 255)
    np.testing.assert_allclose(grey, np.linspace(0, 255, 400), atol=1)


def test_the_camera_says_which_way_is_up(folder):
    image, _ = read_picture(folder / "rotated.jpg")
    turned = np.asarray(picture(5).transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert image.size == (20, 24)
    assert np.abs(np.asarray(image) - turned).mean() < 25  # JPEG blurs the edges; the wrong way up it is 80


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_sound_picture_is_used_whatever_its_exif_says(kind):
    image, kinds = read_picture(encoded(picture(0, 30, 20), kind, exif=BROKEN_EXIF))
    assert (image.size, kinds) == ((30, 20), set())
    image, kinds = read_picture(encoded(picture(0, 30, 20), kind, exif=TURNED))
    assert (image.size, kinds) == ((20, 30), {"rotated"})


@pytest.mark.parametrize("name", ["damaged.jpg", "empty.png"])
def test_a_damaged_picture_is_unusable(folder, name):
    with pytest.raises(Unusable, match=r"^damaged$"):
        read_picture(folder / name)


def test_a_picture_too_large_for_memory_is_unusable(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Unusable, match=r"^too large$"):
        read_picture(encoded(picture()))


@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (33, 33), (7, 90), (8, 8)])
def test_the_shorter_side_is_scaled_and_the_longer_one_cropped(shape):
    height, width = shape
    ramp = np.broadcast_to(np.linspace(0, 255, max(shape)).astype(np.uint8), (min(shape), max(shape)))
    ramp = ramp if width > height else ramp.T
    image = Image.fromarray(np.ascontiguousarray(ramp)).convert("RGB")
    squares = [np.asarray(fit(image, 16, (place, place)))[..., 0].astype(float) for place in (0.0, 0.5, 1.0)]
    assert all(square.shape == (16, 16) for square in squares)
    means = [square.mean() for square in squares]
    if height != width:
        assert means[0] < means[1] - 5 < means[2] - 10
    assert means[1] == pytest.approx(127.5, abs=6)


@pytest.mark.parametrize("place", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(2000, 60), (60, 2000)])
def test_of_a_long_picture_the_square_is_scaled_alone_and_looks_as_it_did(place, shape, monkeypatch):
    image = picture(3, *shape).resize(shape, Image.Resampling.BICUBIC)
    quick = np.asarray(fit(image, 32, (place, place))).astype(int)
    monkeypatch.setattr("muse.data.pictures.LONG", 100)
    assert np.abs(quick - np.asarray(fit(image, 32, (place, place)))).max() <= 3


@pytest.mark.parametrize("shape", [(65_000, 1), (1, 65_000)])
def test_a_picture_of_one_row_of_pixels_takes_no_more_memory_than_its_square(shape, monkeypatch):
    resize, sizes = Image.Image.resize, []
    monkeypatch.setattr(
        Image.Image, "resize", lambda image, size, *rest, **more: (sizes.append(size), resize(image, (1, 1)))[1]
    )
    fit(Image.new("RGB", shape), 64)
    monkeypatch.undo()
    assert sizes == [(64, 64)]
    assert fit(Image.new("RGB", shape, "red"), 64).getcolors() == [(64 * 64, (255, 0, 0))]


def test_captions_are_stripped_and_empty_ones_dropped():
    assert clean(["  a red\n apple ", "", " \t"]) == ["a red apple"]


def test_a_tally_says_all_counts_in_one_line():
    tally = Tally(1000)
    tally.skipped.update({"damaged": 1, "without a caption": 2})
    tally.converted["CMYK"] += 3
    assert tally.sentence() == ("997 of 1,000 pictures used; skipped 1 damaged, 2 without a caption; converted 3 CMYK")
    tally.add(Tally(captions_cut=4))
    assert tally.sentence().endswith("; converted 3 CMYK; cut 4 captions to what the text encoder reads")


def test_every_grey_of_16_bits_is_the_nearest_of_8_in_training_and_in_editing(tmp_path):
    levels = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(levels).save(tmp_path / "a.png")
    (tmp_path / "a.pgm").write_bytes(b"P5 256 256 65535\n" + levels.astype(">u2").tobytes())
    nearest = np.round(levels / 257)
    for read in (open_image(tmp_path / "a.png"), *(read_picture(tmp_path / f"a.{kind}")[0] for kind in ("png", "pgm"))):
        assert (np.asarray(read) == nearest[..., None]).all()


def test_numbers_of_which_nobody_says_what_white_is_are_unusable_and_16_bits_are_not(tmp_path):
    levels = np.linspace(0, 255, 64).reshape(8, 8)
    for name, numbers in {"float.tif": levels.astype(np.float32), "whole.tif": levels.astype(np.int32)}.items():
        Image.fromarray(numbers).save(tmp_path / name)
        with pytest.raises(Unusable, match="without a range"):
            read_picture(tmp_path / name)
    (tmp_path / "deep.pgm").write_bytes(b"P5 2 1 65535\n" + bytes([0xFF, 0xFF, 0x80, 0x00]))
    image, kinds = read_picture(tmp_path / "deep.pgm")
    assert ([image.getpixel((x, 0)) for x in range(2)], kinds) == ([(255, 255, 255), (128, 128, 128)], {"16-bit"})
