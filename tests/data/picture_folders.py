"""Folders of small picture files, of every awkward kind, and what a VQGAN and a text encoder need to read them."""

import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from muse.models.vqgan import VQGAN, VQGANConfig

CONFIG = VQGANConfig(
    channels=(8, 8, 16), blocks=1, decoder_blocks=1, num_codes=32, code_dim=4, attention=False, norm_groups=4
)
SIZE = 16
BROKEN_EXIF = b"this is no exif at all"
TURNED = (
    b"Exif\0\0II*\0\x08\0\0\0\x02\0"
    + struct.pack("<HHIHxx", 0x0112, 3, 1, 6)
    + struct.pack("<HHI4s4x", 0x011A, 2, 4, b"abc")
)
"""To be turned right, with a resolution that is a text."""


def picture(seed=0, width=24, height=20):
    """Random coarse colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain_folder(folder: Path, num=6) -> Path:
    """PNG files, each with a .txt file of two captions."""
    folder.mkdir(parents=True)
    for i in range(num):
        picture(i).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture {i}\nthe number {i}\n")
    return folder


def awkward_folder(folder: Path) -> Path:
    """Every kind that is converted or skipped, in files named by their kind; each has a caption unless it is skipped
    for that."""
    folder.mkdir(parents=True)
    picture(0).save(folder / "plain.png")
    picture(1).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.linspace(0, 65535, 400).reshape(20, 20).astype(np.uint16)).save(folder / "deep.png")
    picture(2).save(folder / "animated.gif", save_all=True, append_images=[picture(3)])
    clear = picture(4).convert("RGBA")
    clear.putalpha(0)
    clear.save(folder / "clear.png")
    turn = Image.Exif()
    turn[0x0112] = 6
    picture(5).save(folder / "rotated.jpg", exif=turn)
    picture(6).quantize(8).save(folder / "palette.png")
    (folder / "damaged.jpg").write_bytes(encoded(picture(7, 64, 64), "JPEG")[:700])
    (folder / "empty.png").write_bytes(b"")
    picture(8).save(folder / "mute.png")
    for path in list(folder.iterdir()):
        (folder / f"{path.stem}.txt").write_text(" \n" if path.stem == "mute" else f"a {path.stem} picture\n")
    return folder


def tar_file(path: Path, seeds, damaged=()) -> Path:
    """A webdataset tar: pictures and captions."""
    files = {}
    for seed in seeds:
        files[f"{seed:04}.png"] = b"no picture" if seed in damaged else encoded(picture(seed))
        files[f"{seed:04}.json"] = json.dumps({"caption": f"p {seed}"}).encode()
    return tar_with(path, files)


def mixed_tar(path: Path) -> Path:
    """A webdataset tar whose samples are not alike, each named by what is odd about it."""
    png, jpg = encoded(picture(0)), encoded(picture(1), "JPEG")
    files = {
        "in/mute.png": png,
        "in/jpeg.jpg": jpg,
        "in/jpeg.txt": b"a jpeg",
        "in/large.JPG": jpg,
        "in/large.json": b'{"caption": "a large one"}',
        "in/broken.png": png,
        "in/broken.json": b'{"caption": "half',
        "in/latin.tif": encoded(picture(2), "TIFF"),
        "in/latin.txt": "a caf\xe9".encode("latin-1"),
        "in/blind.txt": b"no picture",
        "in/both.json": b"{",
        "in/both.txt": b"a text",
        "in/both.png": png,
        "in/._both.png": b"what a Mac adds",
        "in/number.png": png,
        "in/number.json": b'{"caption": 7}',
        "in/list.png": png,
        "in/list.json": b"[1]",
    }
    return tar_with(path, files)


def tar_with(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def parquet_file(path: Path, seeds) -> Path:
    scans = [{"bytes": encoded(picture(seed)), "path": None} for seed in seeds]
    return table_file(path, scan=scans, words=[[f"p {seed}", ""] for seed in seeds])


def table_file(path: Path, **columns) -> Path:
    """A parquet file."""
    import pyarrow as pa
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def vqgan(seed=0, codes=32) -> VQGAN:
    """A VQGAN whose codebook lies where its latents do, so that tokens differ."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        made = VQGAN(CONFIG).eval()
        latents = made.latents(torch.rand(8, 3, 32, 32)).movedim(1, -1).reshape(-1, CONFIG.code_dim)
        made.quantizer.codebook.copy_(latents[torch.randperm(len(latents))[:codes]])
    return made
