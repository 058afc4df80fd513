"""Prompts and pictures on disk, whole and spoiled."""

import json
from typing import cast

import numpy as np
import pytest
from PIL import ExifTags, Image

from muse.data.sources import open_source
from muse.evaluation.protocols import PROTOCOLS, EvaluationOptions, protocol_named
from muse.evaluation.sources import (
    PictureSet,
    Prompt,
    read_picture,
    read_prompts,
    reference_folder,
    requests_for,
    size_of,
)

PARTI = "Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\t\nten cats\tAnimals\tQuantity\tx\n"
GENEVAL = '{"tag": "counting", "include": [], "prompt": "a photo of four clocks"}\n'
COCO = json.dumps({"images": [], "annotations": [{"image_id": 1, "id": 2, "caption": " A bicycle. "}]})


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("a.txt", "a fox\n\n  two owls \n", [Prompt("a fox"), Prompt("two owls")]),
        ("a.jsonl", '{"text": "a fox", "group": "single"}\n\n', [Prompt("a fox", "single")]),
        ("metadata.jsonl", '{"file_name": "1.png", "caption": "a fox"}\n', [Prompt("a fox")]),
        ("PartiPrompts.tsv", PARTI, [Prompt("bond", "Abstract"), Prompt("ten cats", "Animals")]),
        ("cc3m.tsv", 'a "sea" view\thttp://a\n', [Prompt('a "sea" view')]),
        ("evaluation_metadata.jsonl", GENEVAL, [Prompt("a photo of four clocks", "counting")]),
        ("captions_val2014.json", COCO, [Prompt("A bicycle.")]),
        ("a.txt", "\ufeffa fox\r\nan\u2028owl\r\n", [Prompt("a fox"), Prompt("an\u2028owl")]),
        ("a.tsv", "\ufeffPrompt\tCategory\na fox\tAnimals\n", [Prompt("a fox", "Animals")]),
        ("A.TXT", "a fox\n", [Prompt("a fox")]),
        ("a.CSV", "Prompt, Group\n'a' fox,Animals\n", [Prompt("'a' fox", "Animals")]),
        ("a.jsonl", '\ufeff{"prompt": "an\u2028owl"}\r\n', [Prompt("an\u2028owl")]),
        ("metadata.jsonl", '{"caption": ["", "a fox", "a red fox"]}\n', [Prompt("a fox")]),
        ("metadata.csv", 'file_name,text,tag\r\n1.png,"a fox, red",one\r\n\r\n', [Prompt("a fox, red", "one")]),
    ],
)
def test_prompts_are_read_with_their_groups(name, content, wanted, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert read_prompts(tmp_path / name) == wanted


def test_a_folder_has_its_prompts_in_a_file_or_beside_its_pictures(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("\na fox\na red fox\n")  # as training has it, a caption a line
    assert read_prompts(tmp_path) == [Prompt("a fox")]
    (tmp_path / "prompts.txt").write_text("an owl\n")
    assert read_prompts(tmp_path) == [Prompt("an owl")]
    assert reference_folder(tmp_path) == tmp_path
    (tmp_path / "reference").mkdir()
    assert reference_folder(tmp_path) == tmp_path / "reference"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", "\n\n", "has no prompts"),
        ("a.md", "a fox", "holds no prompts"),
        ("a.csv", "a fox", "has no prompts"),
        ("a.csv", "file_name\n1.png\n", "has no prompt or caption or text, only file_name"),
        ("a.csv", "prompt\n" + "x" * 200_000 + "\n", "cannot be read as a table"),
        ("a.jsonl", "{", "cannot be read as prompts"),
        ("a.jsonl", "[1]\n", "is a list; wanted an object"),
        ("a.jsonl", '{"file": "1.png"}\n', "has no prompt or caption or text, only file"),
        ("a.json", "{}", "cannot be read as prompts"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read as prompts"),
        ("a.tsv", "prompt\n" + "x" * 200_000 + "\n", "cannot be read as prompts"),
        ("a.json", "[" * 100_000, "cannot be read as prompts"),
    ],
)
def test_what_holds_no_prompts_is_refused_in_one_sentence(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=said) as error:
        read_prompts(tmp_path / name)
    assert "\n" not in str(error.value)


def test_captions_of_pictures_are_read_as_training_reads_them(tmp_path):
    for name in ("a.tif", "b.png", "c.png", "d.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "a.txt").write_bytes("grüne  Äpfel\n".encode("cp1252"))
    (tmp_path / "b.TXT").write_text("a fox\na red fox\n")
    lines = [{"file_name": "b.png", "caption": "an owl"}, {"file_name": "c.png", "caption": ["", "two owls"]}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = list(open_source(str(tmp_path)).rows(0))
    assert [row.captions for row in rows] == [["grüne Äpfel"], ["a fox", "a red fox", "an owl"], ["two owls"], []]
    assert read_prompts(tmp_path) == [Prompt(row.captions[0]) for row in rows[:3]]


def test_metadata_without_pictures_are_prompts(tmp_path):
    (tmp_path / "metadata.jsonl").write_text('{"prompt": "a fox", "group": "single"}\n')
    assert read_prompts(tmp_path) == [Prompt("a fox", "single")]
    (tmp_path / "metadata.csv").write_text("file_name,caption,group\n1.png,an owl,pair\n")
    assert read_prompts(tmp_path) == [Prompt("a fox", "single"), Prompt("an owl", "pair")]
    (tmp_path / "metadata.jsonl").unlink()
    assert read_prompts(tmp_path) == [Prompt("an owl", "pair")]


def test_what_is_not_there_is_said_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^there is no \S+nothing; give a file of prompts or a folder$"):
        read_prompts(tmp_path / "nothing")


@pytest.mark.parametrize("seed", [-1, 2**43])
def test_a_seed_of_which_pictures_have_no_seeds_is_refused(seed):
    with pytest.raises(ValueError, match=rf"^seed is {seed}; give a whole number from 0 to {2**43 - 1}$"):
        requests_for([Prompt("a")], None, 1, seed)
    assert requests_for([Prompt("a")], None, 1, 2**43 - 1)[0].seed < 2**63


def test_a_folder_without_captions_says_what_to_put_there(tmp_path):
    with pytest.raises(ValueError, match=r"has no captions; put one of metadata.jsonl, metadata.csv, prompts.jsonl"):
        read_prompts(tmp_path)


def test_every_prompt_comes_once_before_any_comes_again_and_no_seed_twice():
    prompts = [Prompt(str(i)) for i in range(5)]
    requests = requests_for(prompts, 12, 1, seed=3)
    assert {request.prompt.text for request in requests[:5]} == set("01234")
    assert {request.prompt.text for request in requests[5:10]} == set("01234")
    assert len({request.seed for request in requests}) == 12
    assert requests == requests_for(prompts, 12, 1, seed=3) != requests_for(prompts, 12, 1, seed=4)
    assert [request.prompt.text for request in requests_for(prompts[:2], None, 2, 0)] == ["0", "0", "1", "1"]


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_an_empty_reference_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no pictures"):
        PictureSet.of_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        PictureSet.of_folder(tmp_path / "nothing")


def test_pictures_of_mixed_sizes_are_refused_unless_they_are_resized(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (16, 8)).save(tmp_path / "b.jpg")
    with pytest.raises(ValueError, match=r"several sizes: a.png 8 x 8, b.jpg 16 x 8; give --resize"):
        PictureSet.of_folder(tmp_path).size()
    resized = PictureSet.of_folder(tmp_path, 12)
    assert resized.size() == (12, 12)
    assert [image.size for image in resized.read(range(2))] == [(12, 12)] * 2
    assert resized.fingerprint != PictureSet.of_folder(tmp_path).fingerprint


def test_a_damaged_picture_is_refused_by_name(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a.png is no whole picture"):
        PictureSet.of_folder(tmp_path).read([0])
    (tmp_path / "a.png").write_text("a text")
    with pytest.raises(ValueError, match=r"a.png is no picture"):
        PictureSet.of_folder(tmp_path).size()


def test_a_picture_is_read_upright_on_white_and_of_8_bits(tmp_path):
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.putpixel((4, 4), (255, 0, 0, 255))
    clear.save(tmp_path / "clear.png")
    Image.fromarray(np.array([[0, 128 * 257], [255 * 257, 1000]], np.uint16)).save(tmp_path / "deep.png")
    turned = Image.new("RGB", (16, 8), "blue")
    turned.paste("yellow", (0, 0, 8, 8))
    exif = turned.getexif()
    exif[ExifTags.Base.Orientation] = 6  # its left is up
    turned.save(tmp_path / "turned.png", exif=exif)
    turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)

    assert read_picture(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    assert read_picture(tmp_path / "clear.png").getpixel((4, 4)) == (255, 0, 0)
    assert np.asarray(read_picture(tmp_path / "deep.png"))[..., 0].tolist() == [[0, 128], [255, 4]]
    for name in ("turned.png", "turned.jpg"):
        picture = read_picture(tmp_path / name)
        assert picture.size == size_of(tmp_path / name) == (8, 16)
        red, _, blue = cast(tuple[int, int, int], picture.getpixel((4, 2)))
        assert red > 200 > 50 > blue


def test_a_sound_picture_has_a_size_whatever_its_exif_says(tmp_path):
    for name in ("broken.png", "broken.jpg"):
        Image.new("RGB", (16, 8), "blue").save(tmp_path / name, exif=b"this is no exif at all")
        assert size_of(tmp_path / name) == read_picture(tmp_path / name).size == (16, 8)


def test_what_was_read_otherwise_has_another_fingerprint(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    now = PictureSet.of_folder(tmp_path).fingerprint
    monkeypatch.setattr("muse.evaluation.sources.READING", 1)
    assert PictureSet.of_folder(tmp_path).fingerprint != now


def test_a_picture_that_cannot_be_shown_is_refused_by_name(tmp_path):
    Image.new("F", (8, 8)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"a.tiff cannot be read: a picture of mode F came"):
        read_picture(tmp_path / "a.tiff")


# -- options and protocols ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_says_what_it_is_and_gives_way_to_options(name):
    protocol = protocol_named(name)
    assert protocol.about
    assert protocol.data
    changed = protocol.with_options(num=3, metrics=None)
    assert (changed.num, changed.metrics) == (3, protocol.options.metrics)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": ()}, "no metric came; give one or more of fid, is"),
        ({"metrics": ("fid", "beauty")}, "there is no metric 'beauty'; give"),
        ({"num": 0}, "num is 0; give a whole number of at least 1"),
        ({"resamples": 5}, "resamples is 5; give"),
        ({"batch": -1}, "batch is -1; give"),
    ],
)
def test_options_out_of_range_are_refused_by_name(changes, said):
    with pytest.raises(ValueError, match=said):
        EvaluationOptions(**changes)


def test_an_unknown_protocol_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no protocol 'coco'; give one of coco-30k, cc3m"):
        protocol_named("coco")


def test_what_an_evaluation_has_drawn_is_no_real_picture(tmp_path):
    for place in ("1.png", "more/2.png", "evaluation/cache/3.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / place)
    real = PictureSet.of_folder(tmp_path, but=tmp_path / "evaluation")
    assert [path.name for path in real.paths] == ["1.png", "2.png"]
    assert len(PictureSet.of_folder(tmp_path / "evaluation/cache", but=tmp_path / "evaluation")) == 1
