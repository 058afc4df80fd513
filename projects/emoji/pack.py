"""Pack the data set and the networks small, for a machine without a network; unpack them there.

    python -m projects.emoji.pack pack --out runs-local/packed          # where build and networks have run
    python -m projects.emoji.pack unpack runs-local/packed/networks     # there, from one folder or from several
    python -m projects.emoji.pack unpack runs-local/packed/pictures

Only the pictures of the recipe's styles travel, as WebP, and the networks in half precision: `networks` and `pictures`
are two folders of under 64 MB each. What is unpacked opens as what `build` and `networks` make.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from PIL import Image
from safetensors.torch import load_file, save_file

from muse.checkpoint import rounded
from projects.emoji import dataset, recipe
from projects.emoji.dataset import EmojiArt, Record
from projects.emoji.files import sha256_of, write_atomically
from projects.emoji.recipe import PLACES

PICTURES, RECORDS, MANIFEST = "pictures.tar", "records.jsonl", "manifest.json"
WEIGHTS = "model.safetensors"


def pack(folder: Path = PLACES.folder, out: Path = Path("runs-local/packed"), quality: int = 92) -> None:
    """Write OUT/networks and OUT/pictures.

    Args:
        folder: where `build` and `networks` left the data set and the networks.
        out: where the two folders go.
        quality: of the WebP pictures, 0 to 100.
    """
    pack_networks(folder / "networks", out / "networks")
    pack_pictures(dataset.load(folder), dataset.read_manifest(folder), out / "pictures", quality)
    for part in ("networks", "pictures"):
        size = sum(path.stat().st_size for path in (out / part).rglob("*") if path.is_file())
        print(f"{out / part}  {size / 1e6:.1f} MB")


def pack_networks(networks: Path, out: Path) -> None:
    """Copy the networks, their weights in half precision."""
    for path in sorted(path for path in networks.rglob("*") if path.is_file()):
        target = out / path.relative_to(networks)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name == WEIGHTS:
            save_file(rounded(load_file(path), torch.float16), target, metadata={"format": "pt"})
        else:
            shutil.copyfile(path, target)


def pack_pictures(art: EmojiArt, manifest: dict[str, object], out: Path, quality: int) -> None:
    """Write the pictures of the recipe's styles, their records and the manifest that fits them."""
    out.mkdir(parents=True, exist_ok=True)
    kept = [record for record in art.records if record.style in recipe.STYLES]
    with tarfile.open(out / PICTURES, "w") as tar:
        for index, record in enumerate(kept):
            content = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(art.pictures[record.index])).save(content, "WEBP", quality=quality)
            about = tarfile.TarInfo(f"{index:05}.webp")
            about.size = content.tell()
            content.seek(0)
            tar.addfile(about, content)
    records = [replace(record, index=index) for index, record in enumerate(kept)]
    write_atomically(out / RECORDS, lines_of(records))
    about_packed = {**manifest, "pictures": len(records), "webp_quality": quality, "size": art.size}
    write_atomically(out / MANIFEST, json.dumps(about_packed, indent=2, ensure_ascii=False) + "\n")


def lines_of(records: list[Record]) -> str:
    """Records as the build writes them, one a line."""
    return "".join(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)


def unpack(packed: Annotated[Path, tyro.conf.Positional], folder: Path = PLACES.folder) -> None:
    """Unpack one folder that `pack` wrote to where `build` or `networks` would have left it.

    Args:
        packed: the folder named networks or the one named pictures.
        folder: where the data set and the networks are wanted.
    """
    if (packed / PICTURES).is_file():
        unpack_pictures(packed, folder / "data")
    elif list(packed.glob(f"*/{WEIGHTS}")):
        unpack_networks(packed, folder / "networks")
    else:
        raise SystemExit(f"{packed} holds neither {PICTURES} nor networks; give a folder that pack has written")


def unpack_networks(packed: Path, networks: Path) -> None:
    """Copy the networks back, their weights in float32 but those of the text encoder, which is used as it is stored."""
    shutil.copytree(packed, networks, dirs_exist_ok=True)
    for path in networks.glob(f"*/{WEIGHTS}"):
        if path.parent.name != "text_encoder":
            weights = load_file(path)
            save_file({name: t.float() if t.is_floating_point() else t for name, t in weights.items()}, path)


def unpack_pictures(packed: Path, data: Path) -> None:
    """Write pictures.npy, the records, and last the manifest, which says that all is there."""
    data.mkdir(parents=True, exist_ok=True)
    manifest = json.loads((packed / MANIFEST).read_text())
    size, count = manifest["size"], manifest["pictures"]
    pictures = np.lib.format.open_memmap(data / "pictures.npy", "w+", np.uint8, (count, size, size, 4))
    for index, picture in enumerate(read_pictures(packed / PICTURES)):
        pictures[index] = picture
    pictures.flush()
    shutil.copyfile(packed / RECORDS, data / RECORDS)
    hashes = {name: sha256_of(data / name) for name in ("pictures.npy", RECORDS)}
    write_atomically(data / MANIFEST, json.dumps({**manifest, "sha256": hashes}, indent=2, ensure_ascii=False) + "\n")


def read_pictures(path: Path) -> Iterator[np.ndarray]:
    """The packed pictures in order, uint8 [size, size, 4]."""
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            yield np.array(Image.open(content).convert("RGBA"))


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"pack": pack, "unpack": unpack})
