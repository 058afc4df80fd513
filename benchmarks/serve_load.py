"""`muse serve` under load on loopback: errors, waiting times, memory, and what batching is worth.

    python -m benchmarks.serve_load --seconds 60

Clients of the official `openai` package ask for one picture after another, and wait only where they are told to (429).
Three servers meet the same load: one that batches, one that does not, and one that is killed with SIGKILL in the middle
and started again.
"""

import asyncio
import dataclasses
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import openai
import tyro

import muse
from benchmarks.measure import free_port, report

PROMPTS = ("a red apple, 3d style", "a fox", "a slice of pizza on a blue background", "two dogs, flat style")
LONGEST_WAIT = 2.0
"""Seconds that a client waits at most before it comes again."""


@dataclass(frozen=True)
class Options:
    """What is measured."""

    seconds: float = 60.0
    """How long each server is under load."""
    clients: int = 32
    model: str = "emoji"
    """A model that ships, a folder, or a name on the hub."""
    steps: int | None = None
    """Decoding steps of every picture; the model's own if not given."""
    max_batch: int = 8
    """Of the servers that batch."""
    max_queue: int = 24


@dataclass
class Load:
    """What the clients of one server met."""

    waits: list[float] = field(default_factory=list)
    """Seconds from asking to having, of every picture."""
    outcomes: Counter[str] = field(default_factory=Counter)
    megabytes: list[float] = field(default_factory=list)
    """Resident memory of the server, second by second."""
    drawn_after_restart: int = 0
    seconds: float = 0.0
    """From the first request to the last answer."""


@dataclass
class Server:
    """A `muse serve` in a process of its own."""

    options: Options
    max_batch: int
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it is ready."""
        flags = {"model": self.options.model, "port": self.port, "max-batch": self.max_batch}
        flags["max-queue"] = self.options.max_queue
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        environment = {**os.environ, "PYTHONPATH": str(Path(muse.__file__).parents[1])}
        command = [sys.executable, "-m", "muse", "serve", *words]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{' '.join(command)} does not come up; run it to see why")
            time.sleep(0.2)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def megabytes(self) -> float:
        """Its resident memory."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=5) as answer:
            found = re.search(r"^process_resident_memory_bytes (\S+)", answer.read().decode(), re.MULTILINE)
        return float(found.group(1)) / 1e6 if found else float("nan")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(180)


async def client(url: str, options: Options, load: Load, end: float, number: int) -> None:
    """Ask for one picture after another."""
    rng = random.Random(number)
    extra = {"seed": number} | ({} if options.steps is None else {"steps": options.steps})
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120) as asking:
        while time.monotonic() < end:
            asked = time.monotonic()
            try:
                await asking.images.generate(prompt=rng.choice(PROMPTS), extra_body=extra)
            except openai.RateLimitError as error:
                load.outcomes["429"] += 1
                told = float(error.response.headers.get("Retry-After", 1))
                await asyncio.sleep(min(told, LONGEST_WAIT) * (0.5 + rng.random()))
            except openai.APIConnectionError:
                load.outcomes["no connection"] += 1
                await asyncio.sleep(0.5)
            except openai.APIError:
                load.outcomes["other errors"] += 1
                await asyncio.sleep(0.5)
            else:
                load.outcomes["drawn"] += 1
                load.waits.append(time.monotonic() - asked)


async def watch(server: Server, load: Load, end: float) -> None:
    """Note the server's memory every second."""
    while time.monotonic() < end:
        try:
            load.megabytes.append(await asyncio.to_thread(server.megabytes))
        except OSError:
            load.outcomes["no connection"] += 1
        await asyncio.sleep(1)


async def kill_and_restart(server: Server, load: Load, when: float) -> None:
    """Kill the server in the middle of its work, and start it again."""
    await asyncio.sleep(when)
    await asyncio.to_thread(server.stop, signal.SIGKILL)
    await asyncio.to_thread(server.start)
    load.drawn_after_restart = -load.outcomes["drawn"]


async def put_under_load(server: Server, options: Options, is_killed: bool) -> Load:
    """All clients at once, until the time is over and each has its last picture."""
    load, began = Load(), time.monotonic()
    end = began + options.seconds
    others = [watch(server, load, end)]
    if is_killed:
        others.append(kill_and_restart(server, load, options.seconds / 2))
    await asyncio.gather(*(client(server.url, options, load, end, i) for i in range(options.clients)), *others)
    load.seconds = time.monotonic() - began
    if is_killed:
        load.drawn_after_restart += load.outcomes["drawn"]
    return load


def row(name: str, load: Load) -> list[object]:
    """One line of the table."""
    third = max(len(load.megabytes) // 3, 1)
    first, last = (round(statistics.mean(part)) for part in (load.megabytes[:third], load.megabytes[-third:]))
    p50, p95 = percentile(load.waits, 0.5), percentile(load.waits, 0.95)
    counts = [load.outcomes[kind] for kind in ("429", "no connection", "other errors")]
    drawn = load.outcomes["drawn"]
    return [name, drawn, round(drawn / load.seconds, 2), p50, p95, *counts, first, last, load.drawn_after_restart]


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which a share of all lies; None if there are none."""
    ordered = sorted(values)
    return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 2) if ordered else None


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    cases = {"batches": (options.max_batch, False), "one by one": (1, False), "killed": (options.max_batch, True)}
    rows = []
    for name, (max_batch, is_killed) in cases.items():
        server = Server(options, max_batch, free_port())
        server.start()
        try:
            load = asyncio.run(put_under_load(server, options, is_killed))
        finally:
            server.stop()
        rows.append(row(name, load))
    header = ["server", "pictures", "pictures/s", "p50 s", "p95 s", "429", "no connection", "other errors"]
    header += ["MB, first third", "MB, last third", "drawn after the restart"]
    report(header, rows, options=dataclasses.asdict(options))


if __name__ == "__main__":
    main()
