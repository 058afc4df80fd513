"""Pictures drawn once and kept: by batches, over ranks, going on where it was stopped."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from muse.evaluation.sources import Request
from muse.images import save_png
from muse.processes import Shard

FORMAT = 2
"""Counts up when the same request would be kept under the same name and yet be another picture."""
PATIENCE = 600.0
"""Seconds without any new picture after which a rank that waits for the others gives up."""

Draw = Callable[[list[str], list[int]], list[Image.Image]]
"""Prompts and seeds to pictures."""


@dataclass(frozen=True)
class Timing:
    """How long the batches took that were drawn just now, and how many pictures the largest of them had."""

    seconds: tuple[float, ...]
    batch: int

    def as_json(self) -> dict[str, Any]:
        typical = round(median(self.seconds), 4) if self.seconds else None
        return {"batches_drawn": len(self.seconds), "pictures_a_batch": self.batch, "seconds_a_batch": typical}


def company_of(device: torch.device, batch: int) -> dict[str, Any]:
    """What a picture depends on besides what is asked for: on an accelerator on its kind and on how many are drawn
    beside it; on a processor on nothing, as there a picture is the same in any batch."""
    return {} if device.type == "cpu" else {"device": device.type, "batch": batch}


class PictureCache:
    """Pictures in a folder, each under a hash of all that it depends on."""

    def __init__(self, folder: Path, about: Mapping[str, Any]):
        self.folder, self.about = folder, dict(about)

    def path(self, **what: Any) -> Path:
        """Where the picture of these things is, or will be."""
        key = json.dumps([FORMAT, self.about, what], sort_keys=True)
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.png"

    def path_of(self, request: Request) -> Path:
        return self.path(prompt=request.prompt.text, seed=request.seed)

    def save(self, image: Image.Image, path: Path, **what: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(image, path, {name: str(value) for name, value in what.items()})


def draw_all(
    draw: Draw, requests: Sequence[Request], cache: PictureCache, batch: int, shard: Shard, patience: float = PATIENCE
) -> Timing:
    """Draw this shard's batches of which any picture is missing; the first rank waits until all are there.

    Batches are always the same, whatever is there already and however many ranks share them: so is every picture.
    Raises TimeoutError if other ranks' pictures do not come."""
    batches = [requests[start : start + batch] for start in range(0, len(requests), batch)][
        shard.rank :: shard.num_ranks
    ]
    missing = [some for some in batches if not all(cache.path_of(request).exists() for request in some)]
    num_there = sum(map(len, batches)) - sum(map(len, missing))
    seconds = []
    total = num_there + sum(map(len, missing))
    with tqdm(total=total, initial=num_there, unit="picture", desc="drawing", leave=False, disable=None) as bar:
        for some in missing:
            start = time.perf_counter()
            images = draw([request.prompt.text for request in some], [request.seed for request in some])
            seconds.append(time.perf_counter() - start)
            for request, image in zip(some, images, strict=True):
                if not (path := cache.path_of(request)).exists():
                    cache.save(image, path, prompt=request.prompt.text, seed=request.seed)
            bar.update(len(some))
    if shard.is_first and shard.num_ranks > 1:
        wait_for([cache.path_of(request) for request in requests], patience)
    return Timing(tuple(seconds), max(map(len, missing), default=batch))


def wait_for(paths: Sequence[Path], patience: float, pause: float = 0.5) -> None:
    """Return once all files are there.
    Raises TimeoutError if none came for so many seconds."""
    missing, last = list(paths), time.monotonic()
    while missing := [path for path in missing if not path.exists()]:
        before = len(missing)
        time.sleep(min(pause, patience))
        if sum(not path.exists() for path in missing) < before:
            last = time.monotonic()
        elif time.monotonic() - last >= patience:
            raise TimeoutError(
                f"{before} pictures of other ranks are missing and none came for {patience:.0f} s; "
                "run the command again, it goes on where it was"
            )
