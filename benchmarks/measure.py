"""What every benchmark shares: the machine, its ceiling, tasks timed in turns, a table and one JSON line."""

import json
import platform
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

CEILING_SIDE = 2048
"""Side of the square matrices whose product is the machine's ceiling."""
CEILING_ROUNDS = 5


def machine() -> str:
    """The processor or GPU that computes, and torch's version."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        name = f"{torch.get_num_threads()} threads of {processor_name()}"
    return f"{name}, torch {torch.__version__}"


def processor_name() -> str:
    """The processor's own name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit that is measured, with a plus if files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return described.stdout.strip() or "unknown"


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def settle() -> None:
    """Wait until the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(task: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    settle()
    start = time.perf_counter()
    task()
    settle()
    return time.perf_counter() - start


def interleaved(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each task in every round, the tasks taking turns, so that a slow spell of the machine meets them all.
    Each is called once before, and that call does not count."""
    for task in tasks.values():
        task()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in tqdm(range(rounds), desc="rounds", leave=False, disable=None):
        for name, task in tasks.items():
            seconds[name].append(seconds_of(task))
    return seconds


def ceiling(dtype: torch.dtype) -> float:
    """FLOP/s of one large matrix product in a number format: what this machine can do at best."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = CEILING_SIDE if device == "cpu" else 4 * CEILING_SIDE
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    seconds = interleaved({"product": lambda: a @ b}, CEILING_ROUNDS)["product"]
    return 2 * side**3 / statistics.median(seconds)


def median_ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """The median over rounds of how many times as long the first took."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def report(header: Sequence[str], rows: Sequence[Sequence[object]], **about: Any) -> None:
    """Print the table, then one JSON line of the same with the commit and the machine."""
    print(table(header, rows))
    records = [dict(zip(header, row, strict=True)) for row in rows]
    print(json.dumps({"commit": commit(), "machine": machine(), **about, "rows": records}))


def in_turns_beside(seconds: Mapping[str, Sequence[float]], theirs: Mapping[str, str], **about: Any) -> None:
    """The report of tasks that took turns: how many times as long as each of ours the peer takes, in the same number
    format, and in float32, which is its default. `theirs` has the peer's task of each format, the last word of ours."""
    rows = []
    for name, each in seconds.items():
        formats = () if name in theirs.values() else (name.split(", ")[-1], "float32")
        peers = [theirs.get(each) for each in formats] or [None, None]
        ratios = (f"{median_ratio(seconds[other], each):.2f}" if other else "-" for other in peers)
        rows.append((name, f"{statistics.median(each):.2f}", f"{min(each):.2f} to {max(each):.2f}", *ratios))
    report(("who", "seconds", "range", "the peer alike, times", "the peer in float32, times"), rows, **about)
