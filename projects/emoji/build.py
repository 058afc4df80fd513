"""Build the emoji data set: fetch the pinned packages, rasterise, write pictures, records and a manifest.

`python -m projects.emoji.build` writes 7,058 pictures of 1,008 concepts in eight styles at 128 px, in 35 s on 2 cores
once the packages are there. A run that was stopped goes on where it was; a finished one is only verified.
`--size 256 --data data-256` writes the same pictures larger, beside them (1.9 GB; twice that while it builds)."""

from __future__ import annotations

import errno
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from projects.emoji.dataset import DATA, Record
from projects.emoji.files import BuildError, sha256_of, write_atomically
from projects.emoji.packages import OPEN_STYLES, SHARE_ALIKE_STYLES, STYLES, Package
from projects.emoji.rasterise import SHARD_LENGTH, Shard, fingerprint_of, rasterise, whole_pictures
from projects.emoji.sources import Drawing, fetch_packages, needed_packages, read_concepts, read_drawings
from projects.emoji.splits import held_out_pairs


@dataclass(frozen=True)
class BuildConfig:
    """What goes into the data set and where it lies."""

    folder: Path = Path("runs-local/emoji")
    """Packages are kept in FOLDER/packages, the data set in FOLDER/data."""
    data: str = DATA
    """Another name than data, for a data set beside the first: the same pictures in another size."""
    size: int = 128
    """Side of a picture in pixels."""
    styles: tuple[str, ...] = OPEN_STYLES
    """Drawing styles; openmoji and emojione1 are share-alike (CC BY-SA) and only come when named."""
    without_groups: tuple[str, ...] = ("People & Body", "Symbols", "Flags")
    """Unicode groups to leave out."""
    clock_faces: bool = False
    """Also draw the 24 clock faces."""
    workers: int = 2
    """Processes that rasterise."""


def build(config: BuildConfig) -> Path:
    """Build the data set, or verify a finished one, and return its manifest's path. Raises BuildError."""
    check_config(config)
    archives = fetch_packages(needed_packages(config.styles), config.folder / "packages")
    concepts = read_concepts(archives, config.without_groups, config.clock_faces)
    drawings = [drawing for name in config.styles for drawing in read_drawings(STYLES[name], archives, concepts)]
    if not drawings:
        raise BuildError("nothing to draw: the chosen groups and styles have no picture in common")
    fingerprint = fingerprint_of(drawings, config.size, make_records(drawings))
    data = config.folder / config.data
    if is_finished(data, fingerprint):
        return data / "manifest.json"
    check_disk_space(config, len(drawings))
    shards = rasterise(drawings, config.size, data / "shards", config.workers)
    return write_data(drawings, shards, config, archives, fingerprint)


def check_config(config: BuildConfig) -> None:
    """Raise BuildError for a configuration that cannot be built."""
    if config.size <= 0:
        raise BuildError(f"size {config.size} is not positive; 128 is usual")
    if config.workers <= 0:
        raise BuildError(f"workers {config.workers} is not positive; 2 is usual")
    unknown = [name for name in config.styles if name not in STYLES]
    if unknown or not config.styles:
        raise BuildError(f"styles {unknown} are unknown; choose one or more of {', '.join(STYLES)}")
    if len(set(config.styles)) != len(config.styles):
        raise BuildError("a style is named twice; name each once")


def check_disk_space(config: BuildConfig, count: int) -> None:
    """Raise BuildError early: a memory map that outgrows its disk would end the process without a word."""
    needed = 2 * count * config.size**2 * 4  # the shards, and the one file they are copied to
    free = shutil.disk_usage(config.folder).free
    if free < needed:
        raise BuildError(f"{config.folder} has {free >> 20} MiB free and the build needs {needed >> 20} MiB")


def is_finished(data: Path, fingerprint: str) -> bool:
    """Whether a finished data set of just these drawings lies there, each byte as it was written."""
    path = data / "manifest.json"
    if not path.is_file():
        return False
    manifest = json.loads(path.read_text())
    return manifest["fingerprint"] == fingerprint and all(
        (data / name).is_file() and sha256_of(data / name) == written for name, written in manifest["sha256"].items()
    )


def write_data(
    drawings: Sequence[Drawing],
    shards: Sequence[Shard],
    config: BuildConfig,
    archives: dict[Package, Path],
    fingerprint: str,
) -> Path:
    """Join the shards, write the records, and last of all the manifest, which says that all is there."""
    data = config.folder / config.data
    (data / "manifest.json").unlink(missing_ok=True)
    reasons = {
        number * SHARD_LENGTH + position: reason
        for number, shard in enumerate(shards)
        for position, reason in shard.damaged.items()
    }
    if len(reasons) == len(drawings):
        raise BuildError(f"all {len(drawings)} icons are damaged; the first says {reasons[0]}")
    records = make_records(drawings, skipped=reasons.keys())
    write_pictures(data / "pictures.npy", shards, (len(records), config.size, config.size, 4))
    rows = (json.dumps(asdict(record), ensure_ascii=False) for record in records)
    write_atomically(data / "records.jsonl", "".join(row + "\n" for row in rows))
    damaged = [
        {"style": drawings[place].style.name, "codepoint": drawings[place].concept.codepoint, "reason": reason}
        for place, reason in sorted(reasons.items())
    ]
    manifest = make_manifest(records, damaged, config, archives)
    hashes = {name: sha256_of(data / name) for name in ("pictures.npy", "records.jsonl")}
    write_atomically(
        data / "manifest.json",
        json.dumps({**manifest, "sha256": hashes, "fingerprint": fingerprint}, indent=2, ensure_ascii=False) + "\n",
    )
    shutil.rmtree(data / "shards")
    return data / "manifest.json"


def write_pictures(path: Path, shards: Sequence[Shard], shape: tuple[int, int, int, int]) -> None:
    """Join the shards beside the path and rename: a training run may have the older pictures open."""
    beside = path.with_name(path.name + ".part")
    pictures = np.lib.format.open_memmap(beside, "w+", np.uint8, shape)
    for row, picture in enumerate(whole_pictures(shards)):
        pictures[row] = picture
    pictures.flush()
    beside.replace(path)


def make_records(drawings: Sequence[Drawing], skipped: Iterable[int] = ()) -> list[Record]:
    """One record a drawing that is not skipped, in order.

    Damage does not move the split, and neither do share-alike styles: families are counted over all open drawings."""
    families: dict[str, set[str]] = {}
    for drawing in drawings:
        if drawing.style.name not in SHARE_ALIKE_STYLES:
            families.setdefault(drawing.concept.name, set()).add(drawing.style.family)
    held_out, skipped = held_out_pairs(families), set(skipped)
    kept = [drawing for place, drawing in enumerate(drawings) if place not in skipped]
    return [
        Record(
            index=index,
            codepoint=drawing.concept.codepoint,
            concept=drawing.concept.name,
            group=drawing.concept.group,
            subgroup=drawing.concept.subgroup,
            tags=drawing.concept.tags,
            keywords=drawing.concept.keywords,
            style=drawing.style.name,
            family=drawing.style.family,
            licence=drawing.style.package.licence,
            package=f"{drawing.style.package.name}@{drawing.style.package.version}",
            held_out=(drawing.concept.name, drawing.style.family) in held_out,
        )
        for index, drawing in enumerate(kept)
    ]


def make_manifest(
    records: Sequence[Record], damaged: list[dict[str, str]], config: BuildConfig, archives: dict[Package, Path]
) -> dict[str, Any]:
    """Counts, licences and sources of the data set."""
    return {
        "size": config.size,
        "pictures": len(records),
        "concepts": len({record.concept for record in records}),
        "pictures_by_style": dict(Counter(record.style for record in records)),
        "licences": {record.style: record.licence for record in records},
        "held_out": {
            "pictures": sum(record.held_out for record in records),
            "concept_family_pairs": len({(record.concept, record.family) for record in records if record.held_out}),
            "pictures_by_style": dict(Counter(record.style for record in records if record.held_out)),
        },
        "damaged": damaged,
        "packages": [asdict(package) for package in archives],
    }


def main(config: BuildConfig) -> None:
    """Build the emoji data set, or verify one that is already built."""
    try:
        manifest_path = build(config)
    except BuildError as error:
        raise SystemExit(f"error: {error}") from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise SystemExit(
            f"error: the disk that holds {config.folder} is full; free some space and build again"
        ) from None
    manifest = json.loads(manifest_path.read_text())
    counts = f"{manifest['pictures']:,} pictures of {manifest['concepts']:,} concepts"
    print(f"{counts} at {manifest['size']} px: {manifest_path}")
    for style, count in manifest["pictures_by_style"].items():
        print(f"  {style:<14}{count:>6}  {manifest['licences'][style]}")
    if manifest["damaged"]:
        print(f"  skipped {len(manifest['damaged'])} damaged icons, listed in the manifest")


if __name__ == "__main__":
    main(tyro.cli(BuildConfig))
