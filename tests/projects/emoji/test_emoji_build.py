"""The builder on four tiny packages that the test makes."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from projects.emoji import build as builder
from projects.emoji import dataset, rasterise, sources
from projects.emoji.build import BuildConfig, build
from projects.emoji.files import BuildError
from projects.emoji.packages import Package, Style
from projects.emoji.rasterise import draw
from projects.emoji.sources import Concept, match_names, plain_codepoint

EMOJI = {"🍎": "red apple", "🐙": "octopus", "🚀": "rocket", "☂️": "umbrella", "🕐": "one o’clock", "👩": "woman"}
GROUPS = {"🕐": "Travel & Places", "👩": "People & Body"}
SQUARE = '<rect x="8" y="8" width="48" height="48" fill="#ff0000"/>'
CHARTED = {
    "prefix": "charted",
    "width": 64,
    "height": 64,
    "icons": {
        "apple": {"body": SQUARE},
        "squid-like": {"body": '<path d="M0 0'},
        "rocket": {"body": '<rect width="64" height="32" fill="#0000ff"/>', "height": 32},
        "brolly": {"body": SQUARE},
    },
}
CHART = {"1f34e": "apple", "1f419": "squid-like", "1f680": "rocket", "2602-fe0f": "brolly"}
NAMED = {
    "prefix": "named",
    "icons": {"redapple": {"body": SQUARE}, "rocket": {"body": SQUARE}},
    "aliases": {"octopus": {"parent": "redapple"}, "umbrella": {"parent": "rocket", "hFlip": True}},
    "width": 64,
    "height": 64,
}


def write_package(folder: Path, name: str, files: Mapping[str, object]) -> Package:
    package = Package(name, "1.0.0", "MIT", "")
    archive = folder / package.archive_name
    with tarfile.open(archive, "w:gz") as tar:
        for path, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            entry = tarfile.TarInfo(f"package/{path}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return replace(package, sha256=hashlib.sha256(archive.read_bytes()).hexdigest())


def webp(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA", (40, 40), colour).save(buffer, "webp", lossless=True)
    return buffer.getvalue()


@pytest.fixture
def config(tmp_path, monkeypatch) -> BuildConfig:
    """A configuration whose packages lie ready, and the tables of packages changed to match."""
    folder = tmp_path / "packages"
    folder.mkdir()
    names = {emoji: {"name": name, "group": GROUPS.get(emoji, "Objects")} for emoji, name in EMOJI.items()}
    unicode_names = write_package(folder, "names", {"data-by-emoji.json": names})
    codepoints = {emoji: "-".join(f"{ord(character):04X}" for character in emoji) for emoji in EMOJI}
    entries = [{"hexcode": codepoints[emoji], "tags": ["Thing", EMOJI[emoji]], "subgroup": 7} for emoji in EMOJI]
    messages = {"subgroups": [{"order": 7, "key": "food-fruit"}]}
    emojibase = write_package(folder, "base", {"en/data.json": entries, "en/messages.json": messages})
    emojilib = write_package(folder, "lib", {"dist/emoji-en-US.json": {"🍎": ["red_apple", "fresh_fruit"]}})
    charted = write_package(folder, "@icons/charted", {"icons.json": CHARTED, "chars.json": CHART})
    named = write_package(folder, "@icons/named", {"icons.json": NAMED})
    files = {"assets/1f34e.webp": webp("red"), "assets/2602-fe0f.webp": webp("blue"), "assets/1f680.webp": b"damaged"}
    pictures = write_package(folder, "@icons/pictures", files)
    styles = {
        "fluent-3d": Style("fluent-3d", "fluent", pictures),
        "noto": Style("noto", "noto", charted, charted_by=charted),
        "noto-v1": Style("noto-v1", "noto-v1", named),
    }
    for module, name, value in (
        (sources, "UNICODE_NAMES", unicode_names),
        (sources, "EMOJIBASE", emojibase),
        (sources, "EMOJILIB", emojilib),
        (sources, "WORD_PACKAGES", (unicode_names, emojibase, emojilib)),
        (sources, "STYLES", styles),
        (builder, "STYLES", styles),
        (rasterise, "SHARD_LENGTH", 3),
        (builder, "SHARD_LENGTH", 3),
    ):
        monkeypatch.setattr(module, name, value)
    return BuildConfig(folder=tmp_path, size=32, styles=tuple(styles), workers=1)


def test_build_writes_a_data_set_that_loads(config):
    manifest = json.loads(build(config).read_text())
    art = dataset.load(config.folder)
    assert [(record.style, record.concept) for record in art.records] == [
        ("fluent-3d", "red apple"),
        ("fluent-3d", "umbrella"),
        ("noto", "red apple"),
        ("noto", "rocket"),
        ("noto", "umbrella"),
        ("noto-v1", "red apple"),
        ("noto-v1", "octopus"),
        ("noto-v1", "rocket"),
    ]
    apple = art.records[0]
    assert (apple.codepoint, apple.tags, apple.keywords) == ("1f34e", ("thing",), ("fresh fruit",))
    assert (apple.subgroup, apple.licence, apple.package) == ("food-fruit", "MIT", "@icons/pictures@1.0.0")
    assert manifest["pictures_by_style"] == {"fluent-3d": 2, "noto": 3, "noto-v1": 3}
    assert manifest["sha256"]["pictures.npy"] == rasterise.sha256_of(config.folder / "data" / "pictures.npy")
    assert not (config.folder / "data" / "shards").exists()


def test_damaged_icons_are_skipped_and_listed(config):
    damaged = json.loads(build(config).read_text())["damaged"]
    assert [(row["style"], row["codepoint"]) for row in damaged] == [("fluent-3d", "1f680"), ("noto", "1f419")]
    assert all(row["reason"] for row in damaged)


def test_pictures_keep_their_aspect_and_are_centred(config):
    build(config)
    art = dataset.load(config.folder)
    rocket = art.pictures[3]
    assert (rocket[8:24] == (0, 0, 255, 255)).all()
    assert not rocket[:8].any()
    assert not rocket[24:].any()
    assert (art.pictures[0] == (255, 0, 0, 255)).all()


def test_a_stopped_run_goes_on_and_a_finished_one_draws_nothing(config, monkeypatch):
    write_data = builder.write_data
    monkeypatch.setattr(builder, "write_data", lambda *arguments: None)
    build(config)  # stopped before it joined the shards
    shards = sorted((config.folder / "data" / "shards").glob("*.npy"))
    assert len(shards) == 4
    shards[0].write_bytes(b"half a shard")
    kept = {path: path.stat().st_mtime_ns for path in shards}
    monkeypatch.setattr(builder, "write_data", lambda *arguments: (changed(), write_data(*arguments))[1])
    drawn_again = []

    def changed() -> None:
        drawn_again.extend(path for path in shards if path.stat().st_mtime_ns != kept[path])

    manifest = build(config)
    assert drawn_again == [shards[0]]
    monkeypatch.setattr(builder, "rasterise", None)
    assert build(config) == manifest


def test_a_finished_data_set_that_was_damaged_is_built_again(config):
    before = json.loads(build(config).read_text())
    (config.folder / "data" / "records.jsonl").write_text("")
    assert json.loads(build(config).read_text()) == before
    assert len(dataset.load(config.folder).records) == before["pictures"]


def test_a_package_with_another_hash_is_refused(config):
    (config.folder / "packages" / "lib-1.0.0.tgz").write_bytes(b"something else")
    with pytest.raises(BuildError, match=r"lib-1\.0\.0\.tgz has sha256 .* remove it and build again"):
        build(config)


def test_a_missing_package_needs_npm(config, monkeypatch):
    (config.folder / "packages" / "lib-1.0.0.tgz").unlink()
    monkeypatch.setenv("PATH", str(config.folder))
    with pytest.raises(BuildError, match="npm is missing"):
        build(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size 0 is not positive"),
        ({"workers": 0}, "workers 0 is not positive"),
        ({"styles": ("cubist",)}, "cubist"),
        ({"styles": ()}, "choose one or more"),
        ({"styles": ("noto", "noto")}, "named twice"),
        ({"without_groups": ("Objects", "Travel & Places", "People & Body")}, "nothing to draw"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused(config, change, message):
    with pytest.raises(BuildError, match=message):
        build(replace(config, **change))


def test_too_small_a_disk_is_refused_before_drawing(config, monkeypatch):
    monkeypatch.setattr(builder, "rasterise", None)
    with pytest.raises(BuildError, match="MiB free and the build needs"):
        build(replace(config, size=1_000_000))


def test_loading_without_a_build_says_which_command_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run `python -m projects.emoji.build --folder"):
        dataset.load(tmp_path)


def test_an_empty_drawing_is_damage():
    with pytest.raises(ValueError, match="the drawing is empty"):
        draw('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8" viewBox="0 0 8 8"></svg>', 16)


def test_nothing_hides_under_full_transparency():
    image = Image.new("RGBA", (16, 16), (200, 10, 10, 0))
    image.putpixel((8, 8), (1, 2, 3, 255))
    buffer = io.BytesIO()
    image.save(buffer, "png")
    assert np.count_nonzero(draw(buffer.getvalue(), 16).any(axis=-1)) == 1


def test_codepoints_are_compared_without_the_variation_selector():
    assert plain_codepoint("2602-FE0F") == plain_codepoint("2602") == "2602"


def test_names_match_by_todays_name_then_by_the_formal_one_unless_renamed():
    concepts = [
        Concept(codepoint, name, "", "", (), ())
        for codepoint, name in (
            ("1f346", "eggplant"),
            ("1f415", "dog"),
            ("1f436", "dog face"),
            ("1f52b", "water pistol"),
        )
    ]
    icons = ["aubergine", "dog", "dogside", "pistol"]
    renamed = {"dog": "dog face", "dogside": "dog", "pistol": None}
    assert match_names(concepts, icons, renamed) == {"1f346": "aubergine", "1f415": "dogside", "1f436": "dog"}
