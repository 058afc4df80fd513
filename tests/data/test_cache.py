"""Pictures to a token cache and back: whole, resumed, over several processes, and refused by another VQGAN."""

import copy
import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from muse.checkpoint import CheckpointError
from muse.data import tokenize as tokenizing
from muse.data.cache import CacheInfo, Grids, TokenCache, TokensOfStep, held_out_batches, write_index, write_shard
from muse.data.crops import PicturesOfStep
from muse.data.options import SourceOptions
from muse.data.order import shuffled
from muse.data.pictures import fit, read_picture
from muse.data.sources import RowSource, open_source
from muse.data.tokenize import Networks, TokenizeOptions, tokenize
from muse.images import to_batch
from tests.data.picture_folders import (
    SIZE,
    awkward_folder,
    encoded,
    mixed_tar,
    parquet_file,
    picture,
    plain_folder,
    tar_file,
    tar_with,
    vqgan,
)

OPTIONS = TokenizeOptions(size=SIZE, high_size=32, batch_size=4, threads=2)
LOW, HIGH = vqgan(0), vqgan(1)


def make(source, folder, networks=None, index=0, count=1, options=OPTIONS) -> Any:
    return tokenize(source, "mine", folder, networks or Networks(LOW), options, index, count)


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A folder of ten pictures in pieces of three."""
    folder = plain_folder(tmp_path_factory.mktemp("mine") / "pictures", 10)
    return open_source(str(folder), SourceOptions(rows_per_piece=3))


@pytest.fixture(scope="module")
def whole(mine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "tokens"
    assert make(mine, folder, Networks(LOW, HIGH)).sentence() == "10 of 10 pictures used"
    return folder


def rows_of(folder):
    cache = TokenCache(folder)
    return [(*cache.row(i)["captions"], *cache.row(i)["low"].tolist()) for i in range(len(cache))]


# -- making a cache -----------------------------------------------------------------------------------------------


def test_a_cache_holds_the_tokens_and_captions_of_every_picture(whole, mine):
    cache = TokenCache(whole)
    assert len(cache) == 10
    for i in range(10):
        image, _ = read_picture(mine.row(i).picture)
        row = cache.row(i)
        assert row["captions"] == [f"picture {i}", f"the number {i}"]
        with torch.no_grad():
            assert row["low"].tolist() == LOW.encode(to_batch([fit(image, 16)]))[0].tolist()
            assert row["high"].tolist() == HIGH.encode(to_batch([fit(image, 32)]))[0].tolist()
    assert len(np.unique(np.stack([cache.row(i)["low"] for i in range(10)]))) > 5
    assert cache.info.high is not None
    assert (cache.info.low.height, cache.info.high.width, cache.info.low.num_codes) == (4, 8, 32)


def test_a_cache_is_a_data_set_of_the_datasets_library(whole):
    import datasets

    table = datasets.load_from_disk(str(whole))
    assert set(table.column_names) == {"name", "low", "high", "captions"}
    assert table[3]["captions"] == ["picture 3", "the number 3"]
    assert table[3]["low"] == TokenCache(whole).row(3)["low"].tolist()


def test_every_awkward_picture_is_converted_or_skipped_and_counted(tmp_path):
    source = open_source(str(awkward_folder(tmp_path / "awkward")))
    tally = make(source, tmp_path / "tokens")
    assert tally.sentence() == (
        "7 of 10 pictures used; skipped 2 damaged, 1 without a caption; "
        "converted 1 16-bit, 1 CMYK, 1 animated, 2 palette, 1 rotated, 1 transparent"
    )
    assert len(TokenCache(tmp_path / "tokens")) == 7


def test_a_cache_stopped_between_two_pieces_goes_on_and_is_the_same(mine, whole, tmp_path, monkeypatch):
    write, made = tokenizing.write_shard, []

    def killed(folder, piece, *rest):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(piece)
        write(folder, piece, *rest)

    monkeypatch.setattr(tokenizing, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        make(mine, tmp_path / "tokens")
    with pytest.raises(CheckpointError, match="is no whole token cache; make one with: muse tokenize SOURCE"):
        TokenCache(tmp_path / "tokens")
    monkeypatch.setattr(tokenizing, "write_shard", lambda *rest: (made.append(rest[1]), write(*rest)))
    make(mine, tmp_path / "tokens")
    assert made == [0, 1, 2, 3]
    assert rows_of(tmp_path / "tokens") == rows_of(whole)


def test_several_processes_make_the_cache_of_one(mine, whole, tmp_path):
    folder = tmp_path / "tokens"
    assert make(mine, folder, index=1, count=3) is None
    assert make(mine, folder, index=0, count=3) is None
    assert make(mine, folder, index=2, count=3).rows == 10
    assert rows_of(folder) == rows_of(whole)


def test_a_folder_begun_with_another_vqgan_is_refused_with_one_sentence(mine, whole):
    with pytest.raises(ValueError, match=r"^\S+ was begun as another cache \(low differs\); give another folder, or"):
        make(mine, whole, Networks(HIGH, HIGH))


def add(folder):
    picture(9).save(folder / "0a.png")


def swap(folder):
    (folder / "5.png").rename(folder / "6.png")


def grow(folder):
    (folder / "0.txt").write_text("another caption")


def touch(folder):
    os.utime(folder / "4.png", (1, 1))


OTHER = r"^\S+tokens was begun as another cache \({}\); give another folder, or delete it$"
SINCE = r"^{} has changed since \S+tokens was made of it; give another folder for the tokens, or delete it$"


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (add, {}, OTHER.format("number of pictures was 6 and is 7")),
        (swap, {}, OTHER.format("names of pictures differs")),
        (grow, {}, SINCE.format("0.txt")),
        (touch, {}, SINCE.format("4.png")),
        (None, {"rows_per_piece": 5}, OTHER.format("--source.rows-per-piece was 4 and is 5")),
    ],
)
def test_a_source_that_changed_is_refused_with_one_sentence_that_says_what(tmp_path, change, options, sentence):
    folder, options = plain_folder(tmp_path / "mine"), {"rows_per_piece": 4, **options}
    tally = make(open_source(str(folder), SourceOptions(rows_per_piece=4)), tmp_path / "tokens")
    assert tally == make(open_source(str(folder), SourceOptions(rows_per_piece=4)), tmp_path / "tokens")
    if change is not None:
        change(folder)
    with pytest.raises(ValueError, match=sentence):
        make(open_source(str(folder), SourceOptions(**options)), tmp_path / "tokens")


def test_another_column_of_pictures_is_refused_with_one_sentence_that_says_so(tmp_path):
    path = str(tar_file(tmp_path / "a.tar", range(2)))
    make(open_source(path), tmp_path / "tokens")
    with pytest.raises(ValueError, match=OTHER.format("--source.picture-column was None and is png")):
        make(open_source(path, SourceOptions("png")), tmp_path / "tokens")


def test_captions_of_the_metadata_that_changed_are_named(tmp_path):
    folder = plain_folder(tmp_path / "mine")
    (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "a"}')
    make(open_source(str(folder)), tmp_path / "tokens")
    (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "b"}')
    with pytest.raises(ValueError, match=SINCE.format("the caption of 1.png")):
        make(open_source(str(folder)), tmp_path / "tokens")


@pytest.mark.parametrize("make_file", [tar_file, parquet_file])
def test_a_file_cut_short_that_was_got_again_goes_on_and_one_that_was_done_may_not_change(tmp_path, make_file):
    first, second = (make_file(tmp_path / f"in/{name}.{make_file.__name__[:-5]}", range(9)) for name in "ab")
    whole_file = second.read_bytes()
    second.write_bytes(whole_file[: len(whole_file) // 2])

    def again():
        options = SourceOptions(caption_column="words", picture_column="scan")
        return make(
            open_source(str(tmp_path / "in"), options if make_file is parquet_file else None), tmp_path / "tokens"
        )

    with pytest.raises(ValueError, match=rf"{second} is damaged or cut short after \d rows"):
        again()
    second.write_bytes(whole_file)
    assert again().sentence() == "18 of 18 pictures used"
    make_file(first, range(9, 18))
    os.utime(first, (1, 1))
    with pytest.raises(ValueError, match=SINCE.format(first)):
        again()
    shutil.copy(second, second.with_stem("c"))
    with pytest.raises(ValueError, match=OTHER.format("number of files was 2 and is 3")):
        again()


def test_a_cache_of_a_version_that_noted_less_is_refused(mine, tmp_path):
    make(mine, tmp_path / "tokens")
    plan = {**tokenizing.info_of(Networks(LOW), OPTIONS, "mine").as_json(), "pieces": 4}
    (tmp_path / "tokens" / tokenizing.PLAN).write_text(json.dumps(plan))
    with pytest.raises(ValueError, match=OTHER.format("number of pictures was not noted and is 10")):
        make(mine, tmp_path / "tokens")


@pytest.mark.parametrize(("name", "left"), [("plan.json", []), ("shard-00000.arrow", ["plan.json"])])
def test_a_full_disk_is_named_and_leaves_nothing_half_written(mine, tmp_path, monkeypatch, name, left):
    replace = os.replace

    def full(fresh, path):
        if Path(path).name == name:
            raise OSError(28, "No space left on device")
        replace(fresh, path)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match=rf"^\S+{name} cannot be written \(No space left on device\); make room"):
        make(mine, tmp_path / "tokens")
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == left


def test_pictures_without_captions_are_refused_with_one_sentence(tmp_path):
    folder = plain_folder(tmp_path / "mute", 2)
    for path in folder.glob("*.txt"):
        path.unlink()
    with pytest.raises(ValueError, match=r"^no picture of \S+ has a caption; write them in .txt files beside the pict"):
        make(open_source(str(folder)), tmp_path / "tokens")
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png", "title": "a nought"}')
    with pytest.raises(ValueError, match=r"metadata.jsonl has the columns file_name, title, and none is called like a"):
        make(open_source(str(folder)), tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()
    parquet_file(tmp_path / "a.parquet", range(2))
    source = open_source(str(tmp_path / "a.parquet"), SourceOptions(picture_column="scan"))
    with pytest.raises(ValueError, match=r"^no picture could be used \(0 of 2 .* skipped 2 without a caption\); see"):
        make(source, tmp_path / "other")


def test_a_size_that_is_no_multiple_of_the_stride_is_refused(mine, tmp_path):
    with pytest.raises(ValueError, match="size 18 is not a multiple of 4; try 16"):
        make(mine, tmp_path, options=TokenizeOptions(size=18))


@pytest.mark.parametrize(("high_size", "grid", "better"), [(40, 10, 32), (8, 2, 16)])
def test_a_high_size_that_super_resolution_could_not_be_aligned_with_is_warned_of(
    mine, tmp_path, caplog, high_size, grid, better
):
    options = dataclasses.replace(OPTIONS, high_size=high_size)
    make(mine, tmp_path / "low", Networks(LOW), options=options)  # without a VQGAN for them there are no high tokens
    assert not caplog.messages
    make(mine, tmp_path / "both", Networks(LOW, HIGH), options=options)
    (said,) = caplog.messages
    assert said.startswith(
        f"high_size {high_size} makes {grid} x {grid} high tokens, no multiple of the 4 x 4 low ones"
    )
    assert said.endswith(f"try {better}")


def test_text_states_are_those_of_the_text_encoder(mine, tmp_path, tiny_t5):
    make(mine, tmp_path / "tokens", Networks(LOW, None, tiny_t5, "t5"))
    batch = TokensOfStep(TokenCache(tmp_path / "tokens"), 4, seed=0)(0)
    text, is_word = tiny_t5(batch.captions)
    assert batch.text is not None
    assert batch.is_word is not None
    assert batch.is_word.equal(is_word)
    torch.testing.assert_close(batch.text[is_word], text[is_word], atol=2e-3, rtol=2e-3)


def test_the_same_text_encoder_and_pictures_by_other_names_are_the_same(tmp_path, tiny_t5, monkeypatch):
    plain_folder(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)

    def again(pictures, text_encoder, name):
        networks = Networks(LOW, None, text_encoder, name)
        return tokenizing.tokenize(open_source(pictures), pictures, Path("tokens"), networks, OPTIONS)

    tally = again("mine/", tiny_t5, "t5")
    assert "mine/" in (tmp_path / "tokens" / tokenizing.PLAN).read_text()
    assert again("./mine/", tiny_t5, "a/link/to/t5") == tally
    other = copy.deepcopy(tiny_t5)
    words = next(other.parameters())
    words.data = words.flip(0)
    with pytest.raises(
        ValueError, match=OTHER.replace(r"\S+", "").format(r"the text encoder was t5 and is other, with other weights")
    ):
        again("mine", other, "other")


def test_captions_that_are_too_long_are_cut_and_counted(tmp_path, tiny_t5):
    folder = plain_folder(tmp_path / "mine", 3)
    captions = ["a red apple " * 1000, "a dog", "a " * 77]
    (folder / "1.txt").write_text("\n".join(captions))
    tally = make(open_source(str(folder)), tmp_path / "tokens", Networks(LOW, None, tiny_t5, "t5"))
    assert tally.sentence() == "3 of 3 pictures used; cut 2 captions to what the text encoder reads"
    row = TokenCache(tmp_path / "tokens").row(1)
    assert row["captions"] == [" ".join(words.split()[:76]) for words in captions]
    assert [len(states) for states in row["text"]] == [77, 3, 77]


@pytest.mark.parametrize("name", ["size", "high_size", "batch_size", "threads"])
def test_a_number_below_one_is_refused_with_one_sentence(name):
    for value in (0, -16):
        with pytest.raises(ValueError, match=rf"^{name} is {value}; give a whole number of at least 1$"):
            TokenizeOptions(**{name: value})


def test_tars_are_tokenized_and_the_damaged_picture_in_one_is_skipped(tmp_path):
    tar_file(tmp_path / "tars/a.tar", range(3))
    tar_file(tmp_path / "tars/b.tar", range(3, 6), damaged=(4,))
    tally = make(open_source(str(tmp_path / "tars")), tmp_path / "tokens")
    assert tally.sentence() == "5 of 6 pictures used; skipped 1 damaged"
    assert [row[0] for row in rows_of(tmp_path / "tokens")] == ["p 0", "p 1", "p 2", "p 3", "p 5"]


def test_tars_whose_samples_are_not_alike_are_tokenized_and_what_cannot_be_is_counted_by_kind(tmp_path):
    tally = make(open_source(str(mixed_tar(tmp_path / "a.tar"))), tmp_path / "tokens")
    assert tally.sentence() == (
        "4 of 9 pictures used; skipped 1 with a damaged .json, 3 without a caption, 1 without a picture"
    )
    captions = [row[0] for row in rows_of(tmp_path / "tokens")]
    assert captions == ["a jpeg", "a large one", "a caf\xe9", "a text"]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_tar_whose_samples_are_torn_apart_says_how_to_pack_it(tmp_path, caplog, one_by_one):
    torn = {f"{i}.png": encoded(picture(i)) for i in range(3)} | {f"{i}.txt": b"a caption" for i in range(3)}
    tar_with(tmp_path / "torn.tar", torn)
    tar_with(tmp_path / "half.tar", {**torn, "whole.png": encoded(picture(4)), "whole.txt": b"a whole one"})
    advice = "the files of a sample must stand side by side in a tar, as tar --sort=name -cf packs them"
    counts = "0 of 6 pictures used; skipped 3 without a caption, 3 without a picture"
    with pytest.raises(ValueError, match=rf"^no picture could be used \({counts}\); {advice}$"):
        make(open_source(str(tmp_path / "torn.tar"), one_by_one=one_by_one), tmp_path / "none")
    assert not caplog.messages
    make(open_source(str(tmp_path / "half.tar"), one_by_one=one_by_one), tmp_path / "some")
    assert caplog.messages == [f"3 samples have no caption and 3 no picture; {advice}"]
    caplog.clear()
    make(open_source(str(tar_file(tmp_path / "good.tar", range(2), damaged=[0]))), tmp_path / "good")
    assert not caplog.messages


# -- reading it ---------------------------------------------------------------------------------------------------


def test_an_epoch_takes_every_row_once_and_never_one_that_is_held_out(whole):
    batches = TokensOfStep(TokenCache(whole), 4, seed=0, held_out=2)
    numbers = [int(caption[-1]) for step in range(4) for caption in batches(step).captions]
    held_out = {int(caption[-1]) for batch in held_out_batches(TokenCache(whole), 2, 4) for caption in batch.captions}
    first, second = numbers[:8], numbers[8:]
    assert set(first) == set(second) == set(range(10)) - held_out
    assert first != second
    captions = {caption.split()[0] for step in range(6) for caption in batches(step).captions}
    assert captions == {"picture", "the"}  # each of its captions, now and then


def test_other_rows_as_many_have_another_content(tmp_path):
    def contents(name):
        source, tokens = open_source(str(tmp_path / name)), tmp_path / f"tokens-{name}"
        assert isinstance(source, RowSource)
        make(source, tokens)
        return PicturesOfStep(source, SIZE, 4, 0).content, TokensOfStep(TokenCache(tokens), 4, 0).content

    shutil.copytree(plain_folder(tmp_path / "one", 5), tmp_path / "moved")
    pictures, rows = contents("one")
    assert contents("moved") == (pictures, rows)
    shutil.copy(tmp_path / "one/1.png", tmp_path / "moved/4.png")
    (tmp_path / "moved/0.txt").write_text("another caption")
    shutil.rmtree(tmp_path / "tokens-moved")
    other_pictures, other_rows = contents("moved")
    assert (other_pictures != pictures, other_rows != rows) == (True, True)
    (tmp_path / "moved/4.png").unlink()
    tar = tar_file(tmp_path / "a.tar", range(40))
    source = open_source(str(tar), one_by_one=True)
    assert isinstance(source, RowSource)
    assert len(PicturesOfStep(source, SIZE, 4, 0).content) == 12


def test_a_share_of_a_batch_is_the_same_rows_of_the_whole(whole):
    batches = pickle.loads(pickle.dumps(TokensOfStep(TokenCache(whole), 6, seed=3)))
    together, share = batches(5), batches.share(5, slice(1, None, 2))
    assert share.captions == together.captions[1::2]
    assert share.tokens.equal(together.tokens[1::2])
    assert share.high is not None
    assert together.high is not None
    assert share.high.equal(together.high[1::2])
    assert TokensOfStep(TokenCache(whole), 6, seed=4)(5).captions != together.captions


def test_a_cache_of_another_vqgan_is_refused_with_one_sentence(whole):
    cache = TokenCache(whole)
    cache.check(LOW.fingerprint(), HIGH.fingerprint())
    with pytest.raises(CheckpointError, match=r"^the low tokens of \S+ are of VQGAN \w+ and this is VQGAN \w+; "):
        cache.check(HIGH.fingerprint())


def test_a_shard_that_is_lost_is_named(mine, tmp_path):
    make(mine, tmp_path)
    (tmp_path / "shard-00001.arrow").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"shard-00001.arrow is missing or damaged \(.*\); tokenize again"):
        TokenCache(tmp_path).row(4)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:100])])
def test_a_shard_that_is_lost_is_made_again_and_the_others_stay(mine, tmp_path, spoil):
    make(mine, tmp_path)
    wanted, others = rows_of(tmp_path), [tmp_path / f"shard-0000{i}.arrow" for i in (0, 2, 3)]
    times = [path.stat().st_mtime_ns for path in others]
    spoil(tmp_path / "shard-00001.arrow")
    make(mine, tmp_path)
    assert rows_of(tmp_path) == wanted
    assert [path.stat().st_mtime_ns for path in others] == times


@pytest.mark.parametrize(
    ("counts", "said"),
    [((0, 0), "the batch size is 0"), ((2, -1), "-1 rows are to be held out"), ((2, 10), "10 are held out; hold out")],
)
def test_counts_that_make_no_batches_are_refused_with_one_sentence(mine, whole, counts, said):
    batch_size, held_out = counts
    with pytest.raises(ValueError, match=said):
        TokensOfStep(TokenCache(whole), batch_size, 0, held_out)
    with pytest.raises(ValueError, match=said):
        PicturesOfStep(mine, 16, batch_size, 0, held_out)


@pytest.mark.parametrize("num", [1, 2, 5, 64, 1000])
def test_a_shuffle_takes_every_place_once(num):
    orders = [shuffled(np.arange(num), num, (seed,)) for seed in range(3)]
    assert all(sorted(order) == list(range(num)) for order in orders)
    if num >= 64:
        assert all(not np.array_equal(orders[0], other) for other in orders[1:])
        assert abs(np.corrcoef(np.arange(num), orders[0])[0, 1]) < 0.4
        assert [shuffled(np.array([i]), num, (0,))[0] for i in (0, num - 1)] == [orders[0][0], orders[0][-1]]


MILLION = """
import os, sys, time
from pathlib import Path
from typing import Any
import numpy as np
import pyarrow, torch
from muse.data.cache import TokenCache, TokensOfStep

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

started = time.monotonic()
cache = TokenCache(Path(sys.argv[1]))
batches = TokensOfStep(cache, 256, seed=0)
batches(0)
opened = time.monotonic() - started
before = anonymous()
for step in range(1, 150):
    batches(step)
print(len(cache), opened, anonymous() - before)
"""


def test_a_million_rows_open_within_a_second_and_memory_stays_flat(tmp_path):
    """Anonymous memory: what is mapped from the files is the system's to give back."""
    info = CacheInfo(Grids("0" * 12, 4, 4, 8192))
    num = 100_000
    columns = {
        "name": [""] * num,
        "captions": [["a caption of some words"]] * num,
        "low": np.random.default_rng(0).integers(0, 8192, (num, 16)),
    }
    write_shard(tmp_path, 0, columns, info)
    for piece in range(1, 10):
        os.link(tmp_path / "shard-00000.arrow", tmp_path / f"shard-{piece:05}.arrow")
    write_index(tmp_path, info, [num] * 10, "")
    paths = {**os.environ, "PYTHONPATH": str(Path(tokenizing.__file__).parents[2])}
    ran = subprocess.run([sys.executable, "-c", MILLION, str(tmp_path)], env=paths, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    rows, seconds, grown = ran.stdout.split()
    assert int(rows) == 1_000_000
    assert float(seconds) < 1
    assert float(grown) < 20


# -- pictures for a VQGAN -----------------------------------------------------------------------------------------


def test_crops_are_random_by_the_seed_and_a_share_is_the_same(mine):
    crops = PicturesOfStep(mine, 16, 4, seed=0, held_out=2)
    assert crops(3).equal(crops(3))
    assert crops.share(3, slice(1, None, 2)).equal(crops(3)[1::2])
    assert not crops(3).equal(PicturesOfStep(mine, 16, 4, seed=1, held_out=2)(3))
    assert crops.watched().shape == (2, 3, 16, 16)
    assert 0 <= crops(0).min() < crops(0).max() <= 1


def test_a_damaged_picture_gives_way_to_another_and_all_kinds_are_counted_once(tmp_path):
    source = open_source(str(awkward_folder(tmp_path / "awkward")))
    assert isinstance(source, RowSource)
    crops = PicturesOfStep(source, 16, 5, seed=0)
    for step in range(8):
        assert crops(step).shape == (5, 3, 16, 16)
    assert crops.tally.sentence() == (
        "8 of 10 pictures used; skipped 2 damaged; "
        "converted 1 16-bit, 1 CMYK, 1 animated, 2 palette, 1 rotated, 1 transparent"
    )


def test_of_pictures_that_were_not_looked_at_nothing_is_said(mine):
    crops = PicturesOfStep(mine, 16, 2, seed=0, held_out=1)
    crops.share(0, slice(1))
    crops.share(0, slice(1))
    assert crops.sentence() == "1 of 1 pictures that this run looked at were used"
    crops.watched()
    assert crops.sentence() == "2 of 2 pictures that this run looked at were used"


def test_one_picture_among_damaged_ones_is_found_and_those_are_read_once(tmp_path, monkeypatch):
    for i in range(60):
        (tmp_path / f"{i:02}.png").write_bytes(encoded(picture(0)) if i == 41 else b"no picture")
    source = open_source(str(tmp_path))
    assert isinstance(source, RowSource)
    read: list[int] = []
    monkeypatch.setattr(source, "row", lambda index, row=source.row: (read.append(index), row(index))[1])
    crops = PicturesOfStep(source, 16, 5, seed=0, held_out=1)
    assert all(crops(step).equal(crops(step)) for step in range(4))
    assert 40 < len(set(read)) == len(read) - (read.count(41) - 1)


def test_a_source_without_a_single_picture_is_refused_with_one_sentence(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"no picture")
    source = open_source(str(tmp_path))
    assert isinstance(source, RowSource)
    with pytest.raises(ValueError, match=r"^none of the 3 pictures can be read; see that the source holds pictures$"):
        PicturesOfStep(source, 16, 2, seed=0)(0)


def test_a_folder_that_holds_other_things_takes_no_tokens(tmp_path):
    folder = plain_folder(tmp_path / "pictures", 4)
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(ValueError, match=r"pictures holds other things, \S+ for one; give the tokens another folder$"):
        make(open_source(str(folder)), folder)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_size_beyond_all_measure_is_refused():
    with pytest.raises(ValueError, match=r"^size is 1,000,000 pixels; give at most 16,384$"):
        TokenizeOptions(size=1_000_000)
