"""Seconds and memory at the peak of every command, each as a person would call it on the model that ships.

    python -m benchmarks.commands

A command is a process of its own, started once; of training a few steps of the laptop's recipes on pictures that the
model has drawn. The servers, which end when they are told to, are measured by serve_load.
"""

import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.measure import report

NUM = 16
"""Pictures that are trained on."""
FEW = "--engine.steps 4 --engine.warmup 0 --batch-size 4"
WATCH = """
import resource, subprocess, sys, time
begun = time.perf_counter()
code = subprocess.call(sys.argv[1:])
print(time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""
"""A process that is small itself: a new one begins with the memory of the one that starts it."""
COMMANDS = (
    "--help",
    "info emoji",
    'generate "a red apple, 3d style" --seed 1 --size low --out low.png',
    'generate "a red apple, 3d style" --seed 1 --out apple.png',
    f'generate "a red apple, 3d style" --seed 1 --n {NUM} --out pictures/apple.png',
    'upscale low.png "a red apple, 3d style" --seed 1 --out large.png',
    'inpaint apple.png "a red apple with a green leaf, 3d style" --box 256 0 256 256 --seed 1 --out leaf.png',
    'outpaint apple.png "a red apple, 3d style" --left 256 --right 256 --seed 1 --out wide.png',
    'edit apple.png "an orange, 3d style" --iterations 50 --seed 1 --out orange.png',
    "vary apple.png --strength 0.4 --seed 1 --out varied.png",
    "evaluate emoji --data pictures --metrics psnr,ssim --out evaluation",
    "compare emoji emoji --prompts prompts.txt --out comparison",
    f"train vqgan laptop pictures --engine.folder vqgan --size 64 --quantize-from 2 {FEW}",
    "tokenize pictures tokens --model emoji --size 256",
    f"train base laptop tokens --vqgan emoji --text-encoder emoji --engine.folder base {FEW}",
    "export base model",
)
"""In this order; each finds what those before it have made."""


@dataclass(frozen=True)
class Commands:
    """What is measured."""

    only: tuple[str, ...] = ()
    """Only the commands that begin so, and those that they need must be among them; all, if none is given."""


def run(command: str, folder: Path) -> tuple[float, float]:
    """Seconds of a command in a folder, and MiB at the peak of the largest of its processes.
    Raises RuntimeError, with what the command said, if it fails."""
    words = [sys.executable, "-m", "muse", *shlex.split(command)]
    watched = [sys.executable, "-S", "-c", WATCH, *words]
    done = subprocess.run(watched, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"muse {command} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    seconds, kibibytes = done.stderr.split()[-2:]
    return float(seconds), int(kibibytes) / 1024


def main(what: Commands) -> None:
    """Measure and print."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        for number in range(NUM):
            (folder / "pictures" / f"apple-{number + 1}.txt").write_text("a red apple, 3d style\n")
        (folder / "prompts.txt").write_text("".join(f"a {noun}, noto style\n" for noun in ("fox", "dog", "cat", "pig")))
        for command in COMMANDS:
            if what.only and not command.startswith(what.only):
                continue
            seconds, mebibytes = run(command, folder)
            rows.append((f"`muse {command}`", f"{seconds:.2f}", f"{mebibytes:.0f}"))
            print(f"{seconds:.2f} s, {mebibytes:.0f} MiB: muse {command}", flush=True)
    report(("command", "seconds", "MiB at the peak"), rows)


if __name__ == "__main__":
    main(tyro.cli(Commands))
