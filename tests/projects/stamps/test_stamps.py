"""Stamps become the folder that training takes, and the bench tells a model that draws them from one that does not."""

import json

import pytest
import torch
from PIL import Image

from muse.models.transformer import MaskedTransformer
from projects.stamps import bench, prepare


@pytest.fixture
def stamps(tmp_path):
    """Five stamps of two kinds, one without a text, and a file that is no stamp."""
    folder = tmp_path / "stamps"
    for kind, name, text in (
        ("food", "b/apple", "A red apple.\nde.utf8=Ein Apfel.\n"),
        ("animals", "cat", "A Cat!\n"),
        ("animals", "z/dog", "A dog\n"),
        ("animals", "nameless", None),
        ("symbols", "star", "A star."),
    ):
        path = folder / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGBA", (30, 20), (255, 0, 0, 128)).save(path)
        if text is not None:
            path.with_suffix(".txt").write_text(text)
    (folder / "food/readme.md").write_text("food")
    return folder


def test_the_folder_has_the_pictures_and_their_english_captions(stamps, tmp_path, capsys):
    prepare.main(prepare.Command(tmp_path / "out", stamps, num=3))
    captions = [path.read_text() for path in sorted((tmp_path / "out").glob("*.txt"))]
    assert captions == ["a cat\n", "a dog\n", "a red apple\n"]
    assert len(list((tmp_path / "out").glob("*.png"))) == 3
    assert "3 pictures" in capsys.readouterr().out
    images, read = bench.read(tmp_path / "out", 16)
    assert read == ["a cat", "a dog", "a red apple"]
    assert [image.size for image in images] == [(16, 16)] * 3
    assert images[0].getpixel((8, 8)) == (255, 127, 127)  # laid on white


def test_too_few_stamps_or_none_are_refused_with_one_sentence(stamps, tmp_path):
    with pytest.raises(SystemExit, match=r"has 3 stamps with captions in animals, food and 4 were wanted; install"):
        prepare.main(prepare.Command(tmp_path / "out", stamps, num=4))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"has no PNG files; make it with"):
        bench.read(tmp_path, 16)


def test_a_row_counts_what_is_found_among_the_real_pictures_with_the_caption():
    real = torch.eye(8)[:7]
    captions = ["a", "b", "c", "d", "e", "f", "a"]
    row = bench.row_of("perfect", 3 * real, real, captions)
    assert (row.at_1.value, row.at_5.value) == (1.0, 1.0)
    # Each picture looks like the next one: the last one like the first, which has the same caption.
    row = bench.row_of("shifted", real.roll(-1, 0), real, captions)
    assert row.at_1.value == pytest.approx(1 / 7)


def test_the_bench_writes_a_table_and_a_sheet(stamps, tiny_folder, tmp_path, monkeypatch, capsys):
    prepare.main(prepare.Command(tmp_path / "pictures", stamps, kinds=("animals", "food", "symbols"), num=4))
    monkeypatch.setattr(bench, "efficientnet_lite0", lambda weights: lambda pictures: pictures[..., ::16, ::16])
    bench.main(bench.Command(str(tiny_folder), tmp_path / "pictures", tmp_path / "out"))
    report = json.loads((tmp_path / "out/stamps.json").read_text())
    assert [row["name"] for row in report["rows"]][:2] == ["trained", "untrained"]
    assert report["num"] == 4
    assert Image.open(tmp_path / "out/sheet.png").width > 12 * 128
    assert "| untrained |" in capsys.readouterr().out


def test_untrained_is_the_same_model_with_other_weights_in_the_base_alone(tiny_muse):
    before = bench.untrained(tiny_muse)
    assert before.vqgan is tiny_muse.vqgan
    assert isinstance(before.base, MaskedTransformer)
    assert before.base.config == tiny_muse.base.config
    assert not before.base.embed.weight.equal(tiny_muse.base.embed.weight)
