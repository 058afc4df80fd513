"""Pictures as tensors and as files that say how they were made."""

import os
import stat

import pytest
import torch
from PIL import Image

from muse.images import contact_sheet, read_png_text, save_animation, save_png, to_images, to_tensor

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
    with pytest.raises(OSError, match="cannot identify"):
        read_png_text(tmp_path / "a.jpg")
    with pytest.raises(FileNotFoundError):
        read_png_text(tmp_path / "b.png")


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
