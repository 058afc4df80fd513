"""`muse serve`: everything that can be turned on the server."""

import math
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from muse.requests import MOST_TRIED, MOST_WINDOWS, Precision

MOST_PICTURES = 10
"""Pictures of one request, as the OpenAI API has it."""
ON_GPU = 8
"""Pictures drawn side by side on a GPU, if nothing else is said."""


@dataclass(frozen=True)
class Serve:
    """Serve a model over HTTP to any client of the OpenAI Images API. Needs `pip install muse-t2i[serve]`."""

    model: str = "emoji"
    """A model that ships, a folder, or a name on the hub, like owner/name."""
    precision: Precision = "auto"
    """Arithmetic of the networks that draw; auto takes bfloat16 where the machine computes in it. int8, on
    processors, and float8, on GPUs, round products and are faster with large models."""
    graphs: bool = False
    """On a CUDA GPU, draw each grid that begins with nothing as one CUDA graph: faster, but for the second of its
    kind, which is captured. In bfloat16 it can be another picture."""
    host: str = "127.0.0.1"
    """The address to listen on; 0.0.0.0 lets other machines in (think of --keys-file then)."""
    port: int = 8000
    """The port to listen on; 0 takes a free one and says which."""
    keys_file: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="(default: no keys)")] = None
    """Ask for a bearer key: one of those in this file, one a line."""
    public_url: Annotated[str | None, tyro.conf.arg(metavar="URL", help_behavior_hint="(default: as asked)")] = None
    """What the addresses of pictures begin with, if clients reach the server by another name."""
    max_batch: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint=f"(default: {ON_GPU} on a GPU, else 1)")
    ] = None
    """Pictures drawn side by side while others wait; on a processor that takes as long as one after another."""
    max_queue: int = 32
    """Pictures that may wait; beyond them clients are told to come again (429)."""
    max_steps: int = 100
    """Decoding steps that a request may ask for, and that are taken of more if it asks for none."""
    max_best_of: int = 16
    """Seeds that a request may have tried for each picture; 1 tries none."""
    max_windows: int = 64
    """Windows in which a picture that is filled or widened may be drawn, one after the other; long and thin ones have
    many."""
    max_body_mb: float = 16.0
    """The largest request, in megabytes."""
    max_megapixels: float = 4.0
    """The largest picture that may be uploaded, in millions of pixels."""
    body_seconds: float = 30.0
    """How long a client may take to send a request."""
    shutdown_seconds: int = 120
    """How long what has begun may take to finish when the server is told to stop."""
    urls: bool = True
    """Whether pictures are handed out by address if asked; not where several servers answer as one, as each has only
    its own."""
    url_mb: float = 64.0
    """Memory for pictures that are handed out by address; the oldest go first."""
    url_seconds: float = 3600.0
    """How long an address of a picture is good for."""
    log_prompts: bool = False
    """Write prompts to the log, too."""

    def __post_init__(self) -> None:
        """Raises ValueError for a value outside its range."""
        check_whole("port", self.port, 0, 65535)
        if self.max_batch is not None:
            check_whole("max_batch", self.max_batch, 1, 1024)
        check_whole("max_queue", self.max_queue, 1, 100_000)
        check_whole("max_steps", self.max_steps, 1, 10_000)
        check_whole("max_best_of", self.max_best_of, 1, MOST_TRIED)
        check_whole("max_windows", self.max_windows, 1, MOST_WINDOWS)
        check_whole("shutdown_seconds", self.shutdown_seconds, 0, 86_400)
        for name in ("max_body_mb", "max_megapixels", "body_seconds", "url_mb", "url_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give a finite number above 0")
        if self.public_url is not None and not re.fullmatch(r"https?://[^\s?#]+", self.public_url):
            raise ValueError(f"public_url is {self.public_url!r}; give one like https://pictures.example.org")

    def batch(self, on_gpu: bool) -> int:
        """Pictures drawn side by side at most."""
        return self.max_batch or (ON_GPU if on_gpu else 1)

    @property
    def most_pictures(self) -> int:
        """Pictures that one request may ask for."""
        return min(MOST_PICTURES, self.max_queue)

    def run(self) -> None:
        """Load the model and serve it until told to stop.
        Raises ValueError or OSError, before anything is served, if that cannot be."""
        try:
            from muse.apps.server.run import serve
        except ModuleNotFoundError as error:
            raise ValueError(
                f"the server needs {error.name}, which is not installed; `pip install muse-t2i[serve]` brings it"
            ) from error
        serve(self)


def check_address(host: str, port: int) -> None:
    """Raises ValueError if nobody can listen there, before a model is loaded for it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ValueError(
            f"cannot listen on {host}, port {port} ({error.strerror}); give another --port, or another --host"
        ) from error


def check_whole(name: str, value: int, least: int, most: int) -> None:
    """Raises ValueError for a number outside its range."""
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}; give a whole number from {least} to {most:,}")
