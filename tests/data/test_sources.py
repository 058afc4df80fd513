"""Folders, tars, parquet: the same pictures and captions wherever they are; and one sentence where they are not."""

import json
import shutil

import pytest

from muse.data.options import SourceOptions
from muse.data.sources import open_source
from tests.data.picture_folders import encoded, parquet_file, picture, plain_folder, tar_file


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


def test_metadata_that_cannot_be_read_is_named_by_its_line(tmp_path):
    folder = plain_folder(tmp_path / "mine")
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a"}\n{"text": "b"}\n')
    with pytest.raises(ValueError, match=r"^line 2 of .*metadata.jsonl is no record with a file_name \('file_name'\)"):
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


def test_a_tar_that_is_cut_short_is_named_with_one_sentence(tmp_path):
    path = tar_file(tmp_path / "whole.tar", range(12))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(path.read_bytes()[:11_000])
    with pytest.raises(ValueError, match=r"^\S*cut.tar is damaged or cut short after \d+ rows \(.*\); get it again$"):
        all_rows(open_source(str(cut)))
    cut.write_bytes(b"nothing like a tar")
    with pytest.raises(ValueError, match=r"^\S*cut.tar cannot be read as webdataset \(.*\); get it again or"):
        open_source(str(cut))


def test_a_folder_without_pictures_is_refused_with_one_sentence(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"^\S+ has no pictures, tars or parquet files in it; give a folder that has$"):
        open_source(str(tmp_path))


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
