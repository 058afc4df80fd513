"""Pack the data set and the networks small, for a machine without a network; unpack them there.

    python -m projects.emoji.pack pack --out runs-local/packed          # where build and networks have run
    python -m projects.emoji.pack unpack runs-local/packed/networks     # there, from one folder or from several
    python -m projects.emoji.pack unpack runs-local/packed/drawings     # pictures, from which tokens can be made
    python -m projects.emoji.pack unpack runs-local/packed/tokens       # or tokens, of which no pictures need be there
    bash projects/emoji/gpu.sh runs-local/packed 560 out base           # or all of it, and train

Drawings travel as their packages hold them, most as SVG, and are rasterised there in every size that the recipe takes:
a tenth of their pixels. The text encoder travels in int8, as it ships, and the other networks in half precision. What
is unpacked opens as what `build` and `networks` make.
"""

import io
import json
import lzma
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from safetensors.torch import load_file, save, save_file

from muse.checkpoint import CONFIG, WEIGHTS, rounded, write_weights
from muse.models.text_encoder import TextEncoder
from muse.pipeline import SHIPPED
from projects.emoji import dataset, packages, recipe
from projects.emoji.build import BuildConfig
from projects.emoji.dataset import Record
from projects.emoji.files import run_command, sha256_of, write_atomically
from projects.emoji.rasterise import draw
from projects.emoji.recipe import PLACES
from projects.emoji.sources import fetch_packages, needed_packages, read_concepts, read_drawings
from projects.emoji.tokens import cache_name
from projects.emoji.train import meanings_for
from projects.emoji.vocabulary import MEANINGS

Part = Literal["base", "superres"]
DRAWINGS, RECORDS, MANIFEST, TOKENS = "drawings.tar.xz", "records.jsonl", "manifest.json", "tokens.tar.xz"
TEXT_ENCODER = "text_encoder"
PIECE = 15_000_000
SIZES = {
    name: size
    for scale in recipe.SCALES.values()
    for name, size in ((scale.data, scale.size), (scale.large_data, scale.large_size))
}
"""The data sets that the recipe takes, and the side of their pictures in pixels."""


def pack(folder: Path = PLACES.folder, out: Path = Path("runs-local/packed")) -> None:
    """Write OUT/networks and OUT/drawings; and what `gpu.sh` needs besides: the VQGANs that ship and, if there are any,
    transformers to start from and token caches.

    Args:
        folder: where `build` and `networks` left the data set, its packages and the networks.
        out: where the two folders go.
    """
    pack_networks(folder / "networks", out / "networks")
    art = dataset.load(folder)
    kept = [record for record in art.records if record.style in recipe.TRAINED_STYLES]
    pack_drawings(kept, sources_of(kept, folder / "packages"), dataset.read_manifest(folder), out / "drawings")
    places = recipe.Places(folder)
    meanings_for(places, art)  # fetched here, as there is no network there
    shutil.copyfile(folder / MEANINGS, out / "drawings" / MEANINGS)
    pack_start(places, out)
    pack_tokens(places, out / "tokens", "base")
    pack_tokens(places, out / "tokens-superres", "superres")
    for part in sorted(out.iterdir()):
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        print(f"{part}  {size / 1e6:.1f} MB")


def pack_start(places: recipe.Places, out: Path) -> None:
    """Copy the VQGANs that ship, as tokens must be exactly theirs, and the transformers to start from in int8."""
    for part, trained in (("vqgan", places.vqgan), ("vqgan_superres", places.vqgan_superres)):
        shutil.copytree(SHIPPED / "emoji" / part, out / trained.relative_to(places.folder), dirs_exist_ok=True)
    for part, trained in (("base-start", places.base), ("superres-start", places.superres)):
        if (trained / CONFIG).is_file():
            write_weights(rounded(load_file(trained / WEIGHTS), torch.int8), out / part)
            shutil.copyfile(trained / CONFIG, out / part / CONFIG)


def caches_of(part: Part, scale: recipe.Scale) -> set[str]:
    """The names of the token caches from which a transformer learns."""
    seen, sizes = (scale.tokens, [scale.size]) if part == "base" else (scale.paired, [scale.size, scale.large_size])
    sides = ((seen, False), (scale.held_out, True))
    return {cache_name(options, size, held_out=held_out) for options, held_out in sides for size in sizes}


def pack_tokens(places: recipe.Places, out: Path, part: Part) -> None:
    """Write the token caches of one transformer, the records of their pictures and what their names mean: all that its
    training reads."""
    names = caches_of(part, places.of_scale)
    found = sorted(path.parent for path in (places.runs / "tokens").glob("*/cache.json") if path.parent.name in names)
    if not found:
        return
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out / TOKENS, "w:xz") as tar:
        for cache in found:
            tar.add(cache, cache.relative_to(places.folder))
        for data in (places.of_scale.data, places.of_scale.large_data):
            for name in (RECORDS, MANIFEST):
                if (places.folder / data / name).is_file():
                    tar.add(places.folder / data / name, f"{data}/{name}")
        if (places.folder / MEANINGS).is_file():
            tar.add(places.folder / MEANINGS, MEANINGS)


def pack_networks(networks: Path, out: Path) -> None:
    """Copy the networks, the text encoder in int8, the others in half precision."""
    TextEncoder.from_folder(networks / TEXT_ENCODER).save(out / TEXT_ENCODER, torch.int8)
    for path in sorted(path for path in networks.rglob("*") if path.is_file() and path.parent.name != TEXT_ENCODER):
        target = out / path.relative_to(networks)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name == WEIGHTS:
            save_file(rounded(load_file(path), torch.float16), target, metadata={"format": "pt"})
        else:
            shutil.copyfile(path, target)


def sources_of(records: Sequence[Record], folder: Path) -> list[str | bytes]:
    """What each record was rasterised from, out of the packages in a folder."""
    styles = tuple(dict.fromkeys(record.style for record in records))
    archives = fetch_packages(needed_packages(styles), folder)
    concepts = read_concepts(archives, BuildConfig().without_groups, BuildConfig().clock_faces)
    drawings = (drawing for name in styles for drawing in read_drawings(packages.STYLES[name], archives, concepts))
    found = {(drawing.style.name, drawing.concept.codepoint): drawing.source for drawing in drawings}
    return [found[record.style, record.codepoint] for record in records]


def pack_drawings(
    records: Sequence[Record], sources: Sequence[str | bytes], manifest: dict[str, object], out: Path
) -> None:
    """Write drawings, their records and the manifest that fits them."""
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out / DRAWINGS, "w:xz") as tar:
        for index, source in enumerate(sources):
            content, suffix = (source.encode(), "svg") if isinstance(source, str) else (source, "webp")
            about = tarfile.TarInfo(f"{index:05}.{suffix}")
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    renumbered = (asdict(replace(record, index=index)) for index, record in enumerate(records))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in renumbered)
    write_atomically(out / RECORDS, lines)
    about_packed = {**manifest, "pictures": len(records)}
    write_atomically(out / MANIFEST, json.dumps(about_packed, indent=2, ensure_ascii=False) + "\n")


def unpack(packed: Annotated[Path, tyro.conf.Positional], folder: Path = PLACES.folder) -> None:
    """Unpack one folder that `pack` wrote to where `build`, `networks` or `train tokens` would have left it.

    Args:
        packed: the folder named networks, or drawings, or one of those named tokens.
        folder: where the data set and the networks are wanted.
    """
    if (packed / TOKENS).is_file():
        unpack_tokens(packed / TOKENS, folder)
    elif (packed / DRAWINGS).is_file():
        for data, size in SIZES.items():
            unpack_drawings(packed, folder / data, size)
        if (packed / MEANINGS).is_file():
            shutil.copyfile(packed / MEANINGS, folder / MEANINGS)
    elif list(packed.glob(f"*/{WEIGHTS}")):
        unpack_networks(packed, folder / "networks")
    else:
        raise SystemExit(
            f"{packed} holds neither {DRAWINGS} nor {TOKENS} nor networks; give a folder that pack has written"
        )


def unpack_tokens(packed: Path, folder: Path) -> None:
    """Lay out token caches and the records of the data sets, whose pictures may stay away.
    SystemExit if the file is damaged or would write elsewhere."""
    with refusing_damaged(packed), tarfile.open(packed) as tar:
        for member in tar:  # Python's own filter of what may be written came with 3.11.4
            if (content := tar.extractfile(member)) is None:
                continue
            target = (folder / member.name).resolve()
            if not target.is_relative_to(folder.resolve()):
                raise SystemExit(f"{packed} holds {member.name}, which lies outside of {folder}; pack it again")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file)


@contextmanager
def refusing_damaged(packed: Path) -> Iterator[None]:
    """SystemExit, naming the archive, if what is read of it turns out to be damaged."""
    try:
        yield
    except (EOFError, tarfile.TarError, lzma.LZMAError):
        raise SystemExit(f"{packed} is damaged; pack it again") from None


def unpack_networks(packed: Path, networks: Path) -> None:
    """Copy the networks back, their weights in float32 but those of the text encoder, which is used as it is stored."""
    shutil.copytree(packed, networks, dirs_exist_ok=True)
    for path in networks.glob(f"*/{WEIGHTS}"):
        if path.parent.name != TEXT_ENCODER:
            weights = load_file(path)
            save_file({name: t.float() if t.is_floating_point() else t for name, t in weights.items()}, path)


def unpack_drawings(packed: Path, data: Path, size: int) -> None:
    """Rasterise into pictures.npy, copy the records, and last write the manifest, which says that all is there.
    SystemExit if the drawings are damaged."""
    data.mkdir(parents=True, exist_ok=True)
    (data / MANIFEST).unlink(missing_ok=True)
    manifest = json.loads((packed / MANIFEST).read_text())
    shape = (manifest["pictures"], size, size, 4)
    pictures = np.lib.format.open_memmap(data / "pictures.npy", "w+", np.uint8, shape)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool, refusing_damaged(packed / DRAWINGS):
        drawn = pool.map(partial(draw, size=size), read_drawings_of(packed / DRAWINGS), chunksize=16)
        for index, picture in enumerate(drawn):
            pictures[index] = picture
    pictures.flush()
    shutil.copyfile(packed / RECORDS, data / RECORDS)
    hashes = {name: sha256_of(data / name) for name in ("pictures.npy", RECORDS)}
    about = {**manifest, "size": size, "sha256": hashes}
    write_atomically(data / MANIFEST, json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def weights(trained: tyro.conf.Positional[Path], out: tyro.conf.Positional[Path]) -> None:
    """Write a trained network's weights in half precision as pieces of 15 MB, OUT.0, OUT.1 and so on; `cat` joins them.

    Args:
        trained: the folder of the network.
        out: what the pieces are called.
    """
    if not (trained / WEIGHTS).is_file():
        raise SystemExit(f"{trained} holds no {WEIGHTS}; give the folder of a trained network")
    whole = save(rounded(load_file(trained / WEIGHTS), torch.float16), {"format": "pt"})
    for number, start in enumerate(range(0, len(whole), PIECE)):
        out.with_name(f"{out.name}.{number}").write_bytes(whole[start : start + PIECE])


def read_drawings_of(path: Path) -> Iterator[str | bytes]:
    """The packed drawings in order."""
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            yield content.read().decode() if member.name.endswith(".svg") else content.read()


if __name__ == "__main__":
    commands = {"pack": pack, "unpack": unpack, "weights": weights}
    run_command(lambda: tyro.extras.subcommand_cli_from_dict(commands))
