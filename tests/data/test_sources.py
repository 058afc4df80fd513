"""Folders, tars, parquet: the same pictures and captions wherever they are; and one sentence where they are not."""

import codecs
import json
import os
import re
import shutil
import unicodedata
from dataclasses import replace

import pytest

from muse.data.options import SourceOptions
from muse.data.sources import FolderSource, open_source
from muse.evaluation.sources import PictureSet
from tests.data.picture_folders import (
    encoded,
    mixed_tar,
    parquet_file,
    picture,
    plain_folder,
    table_file,
    tar_file,
    tar_with,
)

CUT_SHORT = r"^\S*{} is damaged or cut short after {} rows \(.*\); get it again$"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def all_rows(source):
    return [row for piece in range(source.num_pieces) for row in source.rows(piece)]


def test_a_folder_has_a_caption_for_each_line_of_the_text_beside_a_picture(tmp_path):
    source = open_source(str(plain_folder(tmp_path / "mine")), SourceOptions(rows_per_piece=4))
    rows = all_rows(source)
    assert [row.name for row in rows] == [f"{i}.png" for i in range(6)]
    assert rows[2].captions == ["picture 2", "the number 2"]
    assert (source.num_pieces, len(list(source.rows(1)))) == (2, 2)


def test_a_folder_has_the_captions_of_its_metadata(tmp_path):
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    picture(0).save(folder / "deep/a.png")
    picture(1).save(folder / "b.JPG", "JPEG")
    lines = [{"file_name": "deep/a.png", "text": "an a"}, {"file_name": "b.JPG", "text": ["a b", "  "]}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert {row.name: row.captions for row in all_rows(open_source(str(folder)))} == {
        "b.JPG": ["a b"],
        "deep/a.png": ["an a"],
    }


def test_several_lines_of_the_metadata_are_several_captions_of_a_picture(tmp_path):
    folder = plain_folder(tmp_path / "mine", 1)
    lines = [{"file_name": "0.png", "text": "one"}, {"file_name": "0.png", "text": ["two", "three"]}]
    (folder / "metadata.jsonl").write_text("\r\n".join(map(json.dumps, lines)))
    (row,) = all_rows(open_source(str(folder)))
    assert row.captions == ["picture 0", "the number 0", "one", "two", "three"]


def test_a_caption_of_the_metadata_may_hold_any_letter(tmp_path):
    folder = plain_folder(tmp_path / "mine", 1)
    record = {"file_name": "0.png", "text": "one\u2028and\u0085the same"}
    (folder / "metadata.jsonl").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    (row,) = all_rows(open_source(str(folder)))
    assert row.captions[-1] == "one and the same"


def test_a_folder_has_the_captions_of_its_metadata_as_a_table_too(tmp_path):
    folder = plain_folder(tmp_path / "mine", 2)
    table = 'file_name,caption,place\r\n"0.png","a, so-called\nzero",here\r\n\r\n./0.png,nought\r\n1.png,,there\r\n'
    (folder / "metadata.csv").write_bytes(codecs.BOM_UTF8 + table.encode())
    (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "one"}')
    assert {row.name: row.captions for row in all_rows(open_source(str(folder)))} == {
        "0.png": ["picture 0", "the number 0", "a, so-called zero", "nought"],
        "1.png": ["picture 1", "the number 1", "one"],
    }
    (row, *_) = all_rows(open_source(str(folder), SourceOptions(caption_column="place")))
    assert row.captions[-1] == "here"


def test_a_column_that_no_metadata_has_is_asked_for_with_those_that_are_there(tmp_path):
    folder = plain_folder(tmp_path / "mine", 2)
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "title": "a"}\n{"file_name": "1.png", "size": 3}')
    sentence = (
        r"^\S+metadata.jsonl has the columns file_name, title, size, and none is called titel; "
        r"say which it is by --source.caption-column$"
    )
    with pytest.raises(ValueError, match=sentence):
        open_source(str(folder), SourceOptions(caption_column="titel"))
    assert all_rows(open_source(str(folder)))[0].captions == ["picture 0", "the number 0"]


@pytest.mark.parametrize("has_metadata", [False, True])
def test_a_column_of_a_folder_without_any_is_refused_with_one_sentence(tmp_path, has_metadata):
    """Metadata of no picture has none either."""
    folder = plain_folder(tmp_path / "mine", 2)
    if has_metadata:
        (folder / "metadata.jsonl").write_text("\n")
    sentence = (
        r"^--source.caption-column is title and \S+mine has no columns, as only a metadata.jsonl or metadata.csv or "
        r"metadata.parquet has; write one with file_name and title, or leave the option out and captions are those of "
        r"the .txt files$"
    )
    with pytest.raises(ValueError, match=sentence):
        open_source(str(folder), SourceOptions(caption_column="title"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", " File_Name , Caption\n0.png,a nought\n1.png,a one\n"),
        ("metadata.csv", "file_name;caption\n0.png;a nought\n1.png;a one\n"),
        ("metadata.csv", "file_name\tcaption\r0.png\ta nought\r1.png\ta one\r"),
        ("metadata.csv", "sep=;\r\nfile_name;caption\r\n0.png;a nought\r\n1.png;a one\r\n"),
        ("metadata.csv", "\r\nfile_name,caption\r\n0.png,a nought\r\n1.png,a one\r\n"),
        ("metadata.csv", "size, in px;file_name;caption\n1;0.png;a nought\n1;1.png;a one\n"),
        ("metadata.jsonl", '{"FILE_NAME": "0.png", "Text": "a nought"}\n{"file_name": "1.png", "TEXT": "a one"}\n'),
    ],
)
def test_metadata_is_read_however_its_columns_are_written_and_apart(tmp_path, caplog, name, content):
    folder = plain_folder(tmp_path / "mine", 2)
    (folder / name).write_bytes(content.encode())
    assert [row.captions[-1] for row in all_rows(open_source(str(folder)))] == ["a nought", "a one"]
    assert not caplog.messages


def test_a_comma_in_a_header_is_what_stands_between_columns(tmp_path):
    folder = plain_folder(tmp_path / "mine", 1)
    (folder / "metadata.csv").write_text("file_name,caption,a;b\n0.png,one; two,c\n")
    assert all_rows(open_source(str(folder)))[0].captions[-1] == "one; two"


def test_metadata_whose_captions_are_not_found_is_warned_of_with_its_columns(tmp_path, caplog):
    """The .txt of one picture would hide that all others have no caption."""
    folder = plain_folder(tmp_path / "mine", 2)
    (folder / "1.txt").unlink()
    (folder / "metadata.csv").write_text("file_name,Title\n0.png,a nought\n1.png,a one\n")
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a nought"}')
    sentence = (
        f"{folder}/metadata.csv has the columns file_name, {{}}, and none is called {{}}; "
        "say which it is by --source.caption-column"
    )

    def warned(options=None):
        caplog.clear()
        source = open_source(str(folder), options)
        assert isinstance(source, FolderSource)
        assert not caplog.messages, "who reads no captions is not told"
        source.warn_of_captions()
        return source

    warned()
    assert caplog.messages == [sentence.format("Title", "like a caption")]
    rows = all_rows(warned(SourceOptions(caption_column="text")))
    assert [row.captions[-1:] for row in rows] == [["a nought"], []]
    assert caplog.messages == [sentence.format("Title", "text")]
    (folder / "metadata.jsonl").unlink()
    rows = all_rows(warned(SourceOptions(caption_column="title")))
    assert [row.captions[-1] for row in rows] == ["a nought", "a one"]
    assert not caplog.messages


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.jsonl", '{"file_name": "0.png", "caption": null, "captions": ["", " "], "text": "a nought"}'),
        ("metadata.csv", 'file_name,caption,description,text\n0.png,," ",a nought\n'),
    ],
)
def test_a_field_that_says_nothing_leaves_the_word_to_the_next(tmp_path, name, content):
    folder = plain_folder(tmp_path / "mine", 1)
    (folder / name).write_text(content)
    assert all_rows(open_source(str(folder)))[0].captions[-1] == "a nought"


def test_metadata_as_parquet_is_read_as_that_of_the_folder(tmp_path, caplog):
    folder = plain_folder(tmp_path / "mine", 3)
    (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "as JSON"}')
    table_file(folder / "metadata.parquet", file_name=["0.png", "1.png"], Caption=[None, "one"], text=["zero", "none"])
    source = open_source(str(folder))
    assert isinstance(source, FolderSource)
    assert [list(row.captions[2:]) for row in all_rows(source)] == [["zero"], ["as JSON", "one"], []]
    assert not caplog.messages
    table_file(folder / "metadata.parquet", file_name=["0.png"], caption=[["several", "words"]])
    assert all_rows(open_source(str(folder)))[0].captions[2:] == ["several", "words"]


def test_a_parquet_file_called_metadata_that_has_the_pictures_is_a_source_like_others(tmp_path):
    parquet_file(tmp_path / "metadata.parquet", range(2))
    rows = all_rows(open_source(str(tmp_path), SourceOptions("scan", "words")))
    assert [row.captions for row in rows] == [["p 0"], ["p 1"]]


def test_metadata_as_parquet_that_is_damaged_is_named_with_one_sentence(tmp_path):
    folder = plain_folder(tmp_path / "mine", 1)
    (folder / "metadata.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=CUT_SHORT.format("metadata.parquet", 0)):
        open_source(str(folder))


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("metadata.csv", "name, caption"),
        ("metadata.csv", "file_name|caption"),
        ("metadata.csv", "name"),
        ("metadata.parquet", "image, caption"),
    ],
)
def test_a_table_without_a_column_for_names_of_files_is_refused_with_those_it_has(tmp_path, name, columns):
    folder = plain_folder(tmp_path / "mine")
    if name == "metadata.csv":
        (folder / name).write_text(f"{columns.replace(', ', ',')}\n0.png,a\n")
    else:
        table_file(folder / name, **{column: ["a"] for column in columns.split(", ")})
    sentence = (
        rf"^\S+{name} has the columns {re.escape(columns)}, and none is file_name; rename that of the pictures' names$"
    )
    with pytest.raises(ValueError, match=sentence):
        open_source(str(folder))


def test_a_row_without_a_name_of_a_file_is_refused_by_its_line(tmp_path):
    folder = plain_folder(tmp_path / "mine")
    (folder / "metadata.csv").write_text("caption,file_name\na,0.png\nb\n")
    with pytest.raises(ValueError, match=r"^line 3 of .*metadata.csv is no record with a file_name \('file_name'\)"):
        open_source(str(folder))


def test_metadata_that_cannot_be_read_is_named_by_its_line(tmp_path):
    folder = plain_folder(tmp_path / "mine")
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a"}\n{"text": "b"}\n')
    with pytest.raises(ValueError, match=r"^line 2 of .*metadata.jsonl is no record with a file_name \('file_name'\)"):
        open_source(str(folder))
    (folder / "metadata.jsonl").write_text("[1]\n")
    with pytest.raises(
        ValueError, match=r"^line 1 of .*metadata.jsonl is no record with a file_name \(it is a list\);"
    ):
        open_source(str(folder))


@pytest.mark.parametrize("one_by_one", [False, True])
def test_tars_have_pictures_and_the_captions_of_their_json(tmp_path, one_by_one):
    tar_file(tmp_path / "tars/a.tar", range(4))
    tar_file(tmp_path / "tars/b.tar", range(4, 7))
    source = open_source(str(tmp_path / "tars"), one_by_one=one_by_one)
    rows = all_rows(source)
    assert [list(row.captions) for row in rows] == [[f"p {i}"] for i in range(7)]
    assert [row.picture for row in rows] == [encoded(picture(i)) for i in range(7)]
    assert source.num_pieces == (1 if one_by_one else 2)
    only_b = open_source(str(tmp_path / "tars/b*.tar"))
    assert [row.name for row in all_rows(only_b)] == ["0004", "0005", "0006"]


def test_parquet_has_columns_by_name(tmp_path):
    parquet_file(tmp_path / "a.parquet", range(3))
    options = SourceOptions(picture_column="scan", caption_column="words")
    rows = all_rows(open_source(str(tmp_path / "a.parquet"), options))
    assert [(row.captions, row.picture) for row in rows] == [([f"p {i}"], encoded(picture(i))) for i in range(3)]


def test_a_column_that_is_not_found_is_asked_for_with_those_that_are_there(tmp_path):
    parquet_file(tmp_path / "a.parquet", range(3))
    sentence = r"^.*a.parquet has the columns scan, words, and none is called like a picture; say .* --source.picture"
    with pytest.raises(ValueError, match=sentence):
        all_rows(open_source(str(tmp_path / "a.parquet")))
    with pytest.raises(ValueError, match=r"and none is called verses; say which it is by --source.caption-column$"):
        all_rows(open_source(str(tmp_path / "a.parquet"), SourceOptions("scan", "verses")))


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize(
    "name", ["x[1].parquet", "lay[pq]/a.parquet", "all*.parquet", "what?.parquet", "{a,b}.PARQUET"]
)
def test_a_parquet_file_whose_name_looks_like_a_pattern_is_read(tmp_path, name, one_by_one):
    path = parquet_file(tmp_path / "in" / name, range(2))
    options = SourceOptions(picture_column="scan", caption_column="words")
    for source in (path, path.parent):
        rows = all_rows(open_source(str(source), options, one_by_one=one_by_one))
        assert [row.captions for row in rows] == [["p 0"], ["p 1"]]


def test_columns_are_found_in_letters_of_any_size_and_the_next_speaks_where_one_says_nothing(tmp_path):
    png = encoded(picture(0))
    path = table_file(tmp_path / "a.parquet", Image=[png, png], Caption=[None, "one"], text=["zero", "another"])
    rows = all_rows(open_source(str(path)))
    assert [(row.picture, row.captions) for row in rows] == [(png, ["zero"]), (png, ["one"])]
    tar = tar_with(tmp_path / "a.tar", {"0.PNG": png, "0.json": b'{"Caption": "zero"}'})
    for options in (None, SourceOptions("PNG", "JSON.caption")):
        (row,) = all_rows(open_source(str(tar), options))
        assert (row.picture, row.captions) == (png, ["zero"])


@pytest.mark.parametrize("one_by_one", [False, True])
def test_endings_of_files_are_known_in_letters_of_any_size(tmp_path, one_by_one):
    tar = tar_file(tmp_path / "tars/A.TAR", range(2))
    for source in (tar, tar.parent, tar.parent / "*"):
        assert len(all_rows(open_source(str(source), one_by_one=one_by_one))) == 2


def test_a_tar_that_is_cut_short_is_named_with_one_sentence(tmp_path):
    path = tar_file(tmp_path / "whole.tar", range(12))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(path.read_bytes()[:11_000])
    with pytest.raises(ValueError, match=CUT_SHORT.format("cut.tar", r"\d+")):
        all_rows(open_source(str(cut)))
    cut.write_bytes(b"nothing like a tar")
    with pytest.raises(ValueError, match=CUT_SHORT.format("cut.tar", 0)):
        open_source(str(cut))


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("end", [5 * 1024, 5 * 1024 + 300])  # between two samples, and in a header
def test_a_tar_that_is_cut_where_a_file_ends_is_cut_short_too(tmp_path, one_by_one, end):
    tar_file(tmp_path / "a.tar", range(2))
    cut = tar_file(tmp_path / "b.tar", range(12))
    assert cut.read_bytes()[5 * 1024 :].startswith(b"0002.json")
    cut.write_bytes(cut.read_bytes()[:end])
    with pytest.raises(ValueError, match=CUT_SHORT.format("b.tar", 2)):
        all_rows(open_source(str(tmp_path), one_by_one=one_by_one))


@pytest.mark.parametrize("one_by_one", [False, True])
def test_samples_of_a_tar_need_not_be_alike(tmp_path, one_by_one):
    """One without a picture or a caption has none, and says so if its .json is damaged; the others are whole."""
    source = open_source(str(mixed_tar(tmp_path / "a.tar")), one_by_one=one_by_one)
    rows = {row.name: (row.picture is not None, list(row.captions), row.flaw) for row in all_rows(source)}
    assert rows == {
        "in/mute": (True, [], ""),
        "in/jpeg": (True, ["a jpeg"], ""),
        "in/large": (True, ["a large one"], ""),
        "in/broken": (True, [], "with a damaged .json"),
        "in/latin": (True, ["a caf\xe9"], ""),
        "in/blind": (False, ["no picture"], ""),
        "in/both": (True, ["a text"], ""),
        "in/number": (True, [], ""),
        "in/list": (True, [], ""),
    }


@pytest.mark.parametrize("one_by_one", [False, True])
def test_the_lines_of_a_text_in_a_tar_are_captions_as_they_are_in_a_folder(tmp_path, one_by_one):
    path = tar_with(tmp_path / "a.tar", {"0.png": encoded(picture(0)), "0.txt": b"a fox\r\n\n a red one \n"})
    (row,) = all_rows(open_source(str(path), one_by_one=one_by_one))
    assert row.captions == ["a fox", "a red one"]


def test_endings_of_a_tar_are_chosen_by_name(tmp_path):
    png = encoded(picture(0))
    files = {"0.jpg": b"other", "0.mask.png": png, "0.txt": b"other", "0.meta.json": b'{"text": "mine"}'}
    path = str(tar_with(tmp_path / "a.tar", files))
    (row,) = all_rows(open_source(path, SourceOptions("mask.png", "meta.json.text")))
    assert (row.picture, row.captions) == (png, ["mine"])
    with pytest.raises(
        ValueError, match=r"a.tar has the columns jpg, mask.png, txt, meta.json, meta.json.text, and non"
    ):
        open_source(path, SourceOptions(caption_column="verses"))


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("damage", ["cut", "torn"])
def test_a_parquet_file_that_is_cut_short_is_named_with_one_sentence(tmp_path, number, one_by_one, damage):
    paths = [parquet_file(tmp_path / f"p/{i}.parquet", range(3)) for i in range(2)]
    content = paths[number].read_bytes()
    torn = content[:300] + bytes(300) + content[600:]
    paths[number].write_bytes(content[:-50] if damage == "cut" else torn)
    with pytest.raises(ValueError, match=CUT_SHORT.format(f"{number}.parquet", 0)):
        all_rows(open_source(str(tmp_path / "p"), SourceOptions(picture_column="scan"), one_by_one=one_by_one))


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        ("a \u732b\nfox".encode(), ["a \u732b", "fox"]),
        ("a \u732b\nfox".encode("utf-8-sig"), ["a \u732b", "fox"]),
        (codecs.BOM_UTF16_LE + "a \u732b\r\nfox".encode("utf-16-le"), ["a \u732b", "fox"]),
        (codecs.BOM_UTF16_BE + "a \u732b\r\nfox".encode("utf-16-be"), ["a \u732b", "fox"]),
        ("the caf\xe9\u2019s dog".encode("cp1252"), ["the caf\xe9\u2019s dog"]),
        (b"caf\xe9 \x81", ["caf\xe9 \ufffd"]),
        ("a fox".encode("utf-16-le"), []),
        (b"a fox\n\0\0\0", ["a fox"]),
    ],
)
def test_a_text_is_read_as_windows_writes_it_too_and_what_holds_nuls_is_no_caption(tmp_path, content, captions):
    folder = plain_folder(tmp_path / "mine", 1)
    (folder / "0.txt").write_bytes(content)
    tar = tar_with(tmp_path / "a.tar", {"0.png": encoded(picture(0)), "0.txt": content})
    for source in (folder, tar):
        (row,) = all_rows(open_source(str(source)))
        assert row.captions == captions


def test_captions_are_found_by_names_that_a_mac_or_a_hand_has_written_otherwise(tmp_path, caplog):
    folder = plain_folder(tmp_path / "mine", 1)
    accented = "\xe9.png"
    for name in ("E.PNG", "deep.png", unicodedata.normalize("NFD", accented)):
        picture(1).save(folder / name)
    (folder / "E.TXT").write_text("an E")
    texts = {"./deep.png": "a deep one", accented: "an accent", "lost.png": "nothing", "gone.png": "nothing"}
    lines = [json.dumps({"file_name": name, "text": text}) for name, text in texts.items()]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    source = open_source(str(folder))
    assert [row.captions for row in all_rows(source)][1:] == [["an E"], ["a deep one"], ["an accent"]]
    assert "E.TXT" in source.states(0)
    assert "metadata.jsonl names pictures that are not there (2, gone.png for one)" in caplog.text


def test_metadata_of_no_picture_alone_are_no_captions(tmp_path):
    picture(0).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "a b"}')
    source = open_source(str(tmp_path))
    assert isinstance(source, FolderSource)
    assert not source.has_captions


def test_linked_folders_are_read_too_each_once(tmp_path):
    folder = plain_folder(tmp_path / "mine", 2)
    other = plain_folder(tmp_path / "other", 1)
    (other / "back").symlink_to(folder)
    (other / "round").symlink_to(other)
    (folder / "a-link").symlink_to(other)
    (folder / "z-link").symlink_to(other)
    (folder / "itself").symlink_to(folder)
    rows = all_rows(open_source(str(folder)))
    assert [row.name for row in rows] == ["0.png", "1.png", "a-link/0.png"]
    assert rows[2].captions == ["picture 0", "the number 0"]
    tar_file(other / "a.tar", range(3))
    assert len(all_rows(open_source(str(folder)))) == 3, "of the tar"


def test_a_folder_without_pictures_is_refused_with_one_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"^\S+ has no pictures, tars or parquet files in it; give a folder that has$"):
        open_source(str(tmp_path))


def test_pictures_that_are_not_read_are_counted_and_named_where_there_are_no_others(tmp_path):
    for name in ("a.HEIC", "b.heic", "c.heif"):
        (tmp_path / name).touch()
    advice = r"2 files end in \.heic and 1 file ends in \.heif, which is not read: save them as JPEG or PNG"
    with pytest.raises(ValueError, match=rf"^\S+ has no pictures, tars or parquet files in it; {advice}$"):
        open_source(str(tmp_path))
    with pytest.raises(ValueError, match=rf"^\S+ has no pictures \(.*\); {advice}$"):
        PictureSet.of_folder(tmp_path)


def test_pictures_that_are_not_read_are_counted_and_named_beside_others_too(tmp_path, caplog):
    folder = plain_folder(tmp_path / "mine", 2)
    open_source(str(folder))
    assert "passed over" not in caplog.text
    (folder / "deep").mkdir()
    for name in ("a.HEIC", "b.heic", "deep/c.CR2"):
        (folder / name).touch()
    source = open_source(str(folder))
    assert isinstance(source, FolderSource)
    assert len(source) == 2
    (said,) = [record.message for record in caplog.records]
    assert said == (
        f"{folder} has pictures that are passed over: 1 file ends in .cr2 and 2 files end in .heic, which is not read: "
        "save them as JPEG or PNG"
    )


def test_what_is_nothing_is_refused_with_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"^\S+nowhere is no folder, .tar, .parquet or data set of the hub"):
        open_source(str(tmp_path / "nowhere"))


def test_a_data_set_that_the_hub_does_not_give_is_refused_with_one_sentence():
    with pytest.raises(ValueError, match=r"^the data set nobody/nothing is no folder here and the hub did not give it"):
        open_source("nobody/nothing")


def test_a_data_set_that_was_saved_is_read(tmp_path):
    import datasets

    table = datasets.Dataset.from_dict({"image": [encoded(picture(0))], "text": ["a text"]})
    table.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "saved")
    (row,) = all_rows(open_source(str(tmp_path / "saved")))
    assert (row.captions, row.picture) == (["a text"], encoded(picture(0)))
    shutil.rmtree(tmp_path / "saved")


def test_several_data_sets_that_were_saved_together_are_named(tmp_path):
    import datasets

    one = datasets.Dataset.from_dict({"text": ["a text"]})
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "saved")
    sentence = r"^\S+saved holds several data sets \(test, train\); give one of them, like \S+saved/test$"
    with pytest.raises(ValueError, match=sentence):
        open_source(str(tmp_path / "saved"))


@pytest.mark.parametrize(
    ("kind", "option", "has_none"),
    [
        ("folder", "picture_column", "columns of pictures, which are files here"),
        *((kind, "split", "splits, as only a data set of the hub has") for kind in ("folder", "tar", "pq", "saved")),
        *((kind, "config", "configurations, as only a data set of the hub has") for kind in ("folder", "tar", "pq")),
    ],
)
def test_an_option_that_would_do_nothing_is_refused_with_one_sentence(tmp_path, kind, option, has_none):
    import datasets

    path = {
        "folder": lambda: plain_folder(tmp_path / "mine", 1),
        "tar": lambda: tar_file(tmp_path / "mine.tar", range(1)),
        "pq": lambda: parquet_file(tmp_path / "mine.parquet", range(1)),
        "saved": lambda: (
            datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "mine") or tmp_path / "mine"
        ),
    }[kind]()
    name = option.replace("_", "-")
    with pytest.raises(
        ValueError, match=rf"^--source.{name} is scan and {path} has no {has_none}; leave the option out$"
    ):
        open_source(str(path), replace(SourceOptions(), **{option: "scan"}))


def test_sheets_that_runs_leave_in_the_folder_of_their_pictures_are_none_of_them(tmp_path):
    folder = plain_folder(tmp_path / "mine", 3)
    before = open_source(str(folder))
    run = folder / "runs/vqgan"
    (run / "kept").mkdir(parents=True)
    (run / "metrics.jsonl").touch()
    for name in ("reconstructions-000002.png", "kept/sheet.png"):
        picture(0).save(run / name)
    (folder / "runs/more").mkdir()
    picture(1).save(folder / "runs/more/own.png")
    after = open_source(str(folder))
    assert [row.name for row in all_rows(after)] == [*(row.name for row in all_rows(before)), "runs/more/own.png"]
    assert len(all_rows(open_source(str(run)))) == 2  # who asks for the sheets themselves gets them


def test_names_that_are_no_utf8_are_told_apart(tmp_path):
    folder = plain_folder(tmp_path / "mine", 1)
    for name in (b"a\xff.png", b"a\xfe.png"):
        picture(0).save(os.path.join(os.fsencode(folder), name).decode(errors="surrogateescape"))
    assert [row.name for row in all_rows(open_source(str(folder)))] == ["0.png", "a\\xfe.png", "a\\xff.png"]


def test_pictures_beside_a_tar_are_not_read_and_that_is_said(tmp_path, caplog):
    folder = plain_folder(tmp_path / "mine", 3)
    tar_file(folder / "more.tar", range(2))
    open_source(str(folder))
    assert "mine has .tar files, which are read, and 3 pictures, which are not" in caplog.text
