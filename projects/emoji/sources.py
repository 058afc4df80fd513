"""What the packages hold: concepts with their words, and a drawing of each concept in each style."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projects.emoji.files import BuildError, sha256_of
from projects.emoji.packages import EMOJIBASE, EMOJILIB, STYLES, UNICODE_NAMES, WORD_PACKAGES, Package, Style


@dataclass(frozen=True)
class Concept:
    """One emoji, however it is drawn."""

    codepoint: str
    name: str
    group: str
    subgroup: str
    tags: tuple[str, ...]
    keywords: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """One concept in one style, not yet rasterised: SVG text or the bytes of a picture file."""

    concept: Concept
    style: Style
    source: str | bytes

    def source_sha256(self) -> str:
        source = self.source.encode() if isinstance(self.source, str) else self.source
        return hashlib.sha256(source).hexdigest()


# Packages


def needed_packages(styles: Sequence[str]) -> list[Package]:
    """The packages of the words and of these styles, each once."""
    found = list(WORD_PACKAGES)
    for name in styles:
        found += [package for package in (STYLES[name].package, STYLES[name].charted_by) if package]
    return list(dict.fromkeys(found))


def fetch_packages(packages: Iterable[Package], folder: Path) -> dict[Package, Path]:
    """The verified archive of each package; what is there already is not fetched again."""
    folder.mkdir(parents=True, exist_ok=True)
    return {package: fetch_package(package, folder) for package in packages}


def fetch_package(package: Package, folder: Path) -> Path:
    """The archive of one package, checked against its pinned sha256. Raises BuildError."""
    archive = folder / package.archive_name
    if not archive.is_file():
        run_npm_pack(package, folder)
    found = sha256_of(archive)
    if found != package.sha256:
        raise BuildError(f"{archive} has sha256 {found}, wanted {package.sha256}; remove it and build again")
    return archive


def run_npm_pack(package: Package, folder: Path) -> None:
    """Let npm write the archive into a folder of its own first, so that half a download is never mistaken for one."""
    npm = shutil.which("npm")
    if npm is None:
        raise BuildError(f"npm is missing, and {package.archive_name} is not in {folder}; install Node.js")
    partial = folder / "partial"
    partial.mkdir(exist_ok=True)
    command = [npm, "pack", f"{package.name}@{package.version}", "--pack-destination", str(partial.resolve())]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=partial)
    if done.returncode != 0 or not (partial / package.archive_name).is_file():
        reason = (done.stderr.strip().splitlines() or ["it wrote no archive"])[-1]
        raise BuildError(f"`npm pack {package.name}@{package.version}` failed: {reason}")
    (partial / package.archive_name).replace(folder / package.archive_name)


def read_json(archive: Path, *members: str) -> list[Any]:
    """JSON members of a package's archive, in the order asked, read in one pass."""
    found: dict[str, Any] = {}
    with tarfile.open(archive) as tar:
        for entry in tar:
            member = entry.name.removeprefix("package/")
            if member in members and (file := tar.extractfile(entry)):
                found[member] = json.load(file)
    if missing := [member for member in members if member not in found]:
        raise BuildError(f"{archive} holds no {', '.join(missing)}; the package is not laid out as expected")
    return [found[member] for member in members]


# Concepts and their words


def read_concepts(archives: dict[Package, Path], without_groups: Collection[str], clock_faces: bool) -> list[Concept]:
    """Every concept of the other groups, in Unicode's order, without skin-tone variants."""
    (names,) = read_json(archives[UNICODE_NAMES], "data-by-emoji.json")
    entries, messages = read_json(archives[EMOJIBASE], "en/data.json", "en/messages.json")
    (keywords,) = read_json(archives[EMOJILIB], "dist/emoji-en-US.json")
    subgroups = {row["order"]: row["key"] for row in messages["subgroups"]}
    entry_by_codepoint = {plain_codepoint(entry["hexcode"]): entry for entry in entries}
    concepts = []
    for emoji, row in names.items():
        name = row["name"].lower()
        if row["group"] in without_groups or (is_clock_face(name) and not clock_faces):
            continue
        codepoint = plain_codepoint("-".join(f"{ord(character):04x}" for character in emoji))
        entry = entry_by_codepoint.get(codepoint, {})
        concepts.append(
            Concept(
                codepoint=codepoint,
                name=name,
                group=row["group"],
                subgroup=subgroups.get(entry.get("subgroup"), ""),
                tags=tidy_words(entry.get("tags", []), name),
                keywords=tidy_words(keywords.get(emoji, []), name),
            )
        )
    return concepts


def plain_codepoint(codepoint: str) -> str:
    """Lower case and without FE0F, which only asks for a coloured picture and is not spelled everywhere."""
    return "-".join(part for part in codepoint.lower().split("-") if part != "fe0f")


def is_clock_face(name: str) -> bool:
    return name.endswith(("o’clock", "-thirty"))


def tidy_words(words: Iterable[str], name: str) -> tuple[str, ...]:
    """Lower-case words, each once, without the name itself."""
    tidied = (word.replace("_", " ").strip().lower() for word in words)
    return tuple(dict.fromkeys(word for word in tidied if word and squashed(word) != squashed(name)))


# Drawings


def read_drawings(style: Style, archives: dict[Package, Path], concepts: Sequence[Concept]) -> list[Drawing]:
    """Every drawing that a style has of the concepts, in their order."""
    if style.name == "fluent-3d":
        sources = read_picture_files(archives[style.package])
    else:
        sources = read_icon_set(style, archives, concepts)
    return [Drawing(concept, style, sources[concept.codepoint]) for concept in concepts if concept.codepoint in sources]


def read_picture_files(archive: Path) -> dict[str, str | bytes]:
    """The webp files of a package, by the codepoint that is their name."""
    sources: dict[str, str | bytes] = {}
    with tarfile.open(archive) as tar:
        for entry in tar:
            if entry.name.endswith(".webp") and (file := tar.extractfile(entry)):
                sources[plain_codepoint(Path(entry.name).stem)] = file.read()
    return sources


def read_icon_set(style: Style, archives: dict[Package, Path], concepts: Sequence[Concept]) -> dict[str, str | bytes]:
    """The icons of an iconify set as whole SVG files, by codepoint."""
    (icon_set,) = read_json(archives[style.package], "icons.json")
    if style.charted_by:
        (chart,) = read_json(archives[style.charted_by], "chars.json")
        icon_names = {plain_codepoint(codepoint): name for codepoint, name in chart.items()}
    else:
        icon_names = match_names(concepts, [*icon_set["icons"], *plain_aliases(icon_set)], style.renamed)
    aliases, icons = plain_aliases(icon_set), icon_set["icons"]
    resolved = ((codepoint, icons.get(aliases.get(name, name))) for codepoint, name in icon_names.items())
    return {codepoint: svg_of(icon, icon_set) for codepoint, icon in resolved if icon is not None}


def plain_aliases(icon_set: dict[str, Any]) -> dict[str, str]:
    """Second names of icons; an alias that also turns or mirrors its parent is another picture and is left out."""
    return {name: row["parent"] for name, row in icon_set.get("aliases", {}).items() if set(row) == {"parent"}}


def match_names(
    concepts: Sequence[Concept], icon_names: Sequence[str], renamed: Mapping[str, str | None]
) -> dict[str, str]:
    """The icon name of each codepoint, for sets whose package has no chart of codepoints.

    Such sets name their icons either by today's Unicode (CLDR) name or by the character's formal name, which never
    changes; a formal name that is another concept's name today does not count."""
    current = {squashed(concept.name): concept.codepoint for concept in concepts}
    formal = {squashed(formal_name(concept.codepoint)): concept.codepoint for concept in concepts}
    matched: dict[str, str] = {}
    for names in (current, {name: codepoint for name, codepoint in formal.items() if name not in current}):
        for icon_name in icon_names:
            meaning = renamed.get(icon_name, icon_name)
            codepoint = names.get(squashed(meaning)) if meaning else None
            if codepoint:
                matched.setdefault(codepoint, icon_name)
    return matched


def formal_name(codepoint: str) -> str:
    """A character's formal Unicode name; empty for sequences, and for characters newer than this Python."""
    return "" if "-" in codepoint else unicodedata.name(chr(int(codepoint, 16)), "")


def squashed(name: str) -> str:
    """A name's letters and digits alone: "Woman's boot" and "womans-boot" are both "womansboot"."""
    return re.sub("[^a-z0-9]", "", unicodedata.normalize("NFKD", name.lower()))


def svg_of(icon: dict[str, Any], icon_set: dict[str, Any]) -> str:
    """A whole SVG file around an icon's body; the set's sizes hold where the icon has none (then iconify's 16)."""
    left, top, width, height = (
        icon.get(key, icon_set.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width}" height="{height}" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )
