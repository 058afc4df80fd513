"""Two hundred Tux Paint stamps as the folder that docs/training.md begins with: pictures, and a caption beside each.

    apt-get install tuxpaint-stamps-default
    python -m projects.stamps.prepare --out runs-local/stamps/my-pictures

The stamps are under the GPL, version 2 or later (/usr/share/doc/tuxpaint-stamps-default/copyright). This repository
has 16 of them, reduced, in docs/stamps-sheet.png (see NOTICE), and no weights trained on them.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import tyro

STAMPS = Path("/usr/share/tuxpaint/stamps")


@dataclass(frozen=True)
class Command:
    """Copy stamps and their captions, the first line of each stamp's text."""

    out: Path
    """The folder of pictures to make."""
    stamps: Path = STAMPS
    """Where the Debian package has put the stamps."""
    kinds: tuple[str, ...] = ("animals", "food")
    """Folders of stamps to take, in this order."""
    num: int = 200
    """Stamps to take."""


def stamps_of(command: Command) -> list[tuple[Path, str]]:
    """Pictures and their captions, in the order of their names.
    Raises ValueError if there are too few."""
    found = [path for kind in command.kinds for path in sorted((command.stamps / kind).rglob("*.png"))]
    told = [(path, caption) for path in found if (caption := caption_of(path))]
    if len(told) < command.num:
        raise ValueError(
            f"{command.stamps} has {len(told)} stamps with captions in {', '.join(command.kinds)} and {command.num} "
            "were wanted; install tuxpaint-stamps-default, or name its folder with --stamps"
        )
    return told[: command.num]


def caption_of(picture: Path) -> str:
    """The English line of a stamp's text, without its full stop; empty if there is none."""
    text = picture.with_suffix(".txt")
    lines = text.read_text(encoding="utf-8").splitlines() if text.is_file() else []
    return lines[0].strip().rstrip(".!").lower() if lines else ""


def main(command: Command) -> None:
    """Copy."""
    try:
        stamps = stamps_of(command)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    command.out.mkdir(parents=True, exist_ok=True)
    for number, (picture, caption) in enumerate(stamps):
        shutil.copyfile(picture, command.out / f"{number:03}.png")
        (command.out / f"{number:03}.txt").write_text(caption + "\n")
    print(f"{len(stamps)} pictures in {command.out}")


if __name__ == "__main__":
    main(tyro.cli(Command))
