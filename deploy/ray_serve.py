"""`muse serve` on several replicas: the same application on Ray Serve, which starts, scales and routes.

    serve run deploy.ray_serve:build model=emoji min_replicas=1 max_replicas=4

Each replica owns a model and draws side by side what waits at it, as `muse serve` does; so a replica is given as many
requests as it may hold, and Ray starts another one when they have more than `target_requests` each. Pictures by address
(`response_format: url`) are off, as each replica keeps its own.
Needs `pip install "muse-t2i[serve]" "ray[serve]"`.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import serve

from muse.apps.server.app import create_app
from muse.apps.server.gate import read_keys
from muse.apps.server.options import Serve
from muse.pipeline import Muse


@dataclass(frozen=True)
class Replicas:
    """What the application can be told, as NAME=VALUE after its name."""

    model: str = "emoji"
    """A model that ships, a folder, or a name on the hub, like owner/name."""
    keys_file: str = ""
    """Ask for a bearer key: one of those in this file, one a line."""
    min_replicas: int = 1
    """Replicas that are always there."""
    max_replicas: int = 4
    """Replicas at most."""
    target_requests: float = 4.0
    """Requests under way at each replica beyond which another one is started."""
    cpus: float = 2.0
    """Processor cores that a replica asks for."""
    gpus: float = 0.0
    """GPUs that a replica asks for."""

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that do not fit together."""
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ValueError(
                f"{self.min_replicas} to {self.max_replicas} replicas; give at least 1, and a maximum that is no less"
            )
        if self.target_requests <= 0 or self.cpus < 0 or self.gpus < 0:
            raise ValueError("target_requests must be above 0, cpus and gpus not below 0")

    @classmethod
    def from_arguments(cls, arguments: dict[str, str]) -> "Replicas":
        """Options out of words.
        Raises ValueError for a name or a value that is none."""
        fields = {name: type(getattr(cls(), name)) for name in cls.__dataclass_fields__}
        for name in arguments:
            if name not in fields:
                raise ValueError(f"{name!r} is no option; give NAME=VALUE of {', '.join(fields)}")
        return cls(**{name: value_of(name, fields[name], value) for name, value in arguments.items()})


def value_of(name: str, kind: type, word: str) -> Any:
    """What a word means as a value of an option.
    Raises ValueError if it means nothing."""
    try:
        return kind(word)
    except ValueError as error:
        raise ValueError(f"{name} is {word!r}; give a {'whole ' * (kind is int)}number") from error


def build(arguments: dict[str, str]) -> serve.Application:
    """The application of some options; Ray Serve calls this with the words after its name."""
    return deployment(Replicas.from_arguments(arguments))


def deployment(replicas: Replicas, options: Serve | None = None) -> serve.Application:
    """The application; `options` are those of `muse serve` for each replica."""
    options = replace(options or Serve(), model=replicas.model, urls=False)
    digests = read_keys(Path(replicas.keys_file)) if replicas.keys_file else []

    def application():
        return create_app(Muse.from_pretrained(options.model, precision=options.precision), options, digests)

    @serve.deployment(
        name="muse",
        max_ongoing_requests=options.max_queue + options.batch(on_gpu=replicas.gpus > 0),
        graceful_shutdown_timeout_s=options.shutdown_seconds,
        autoscaling_config={
            "min_replicas": replicas.min_replicas,
            "max_replicas": replicas.max_replicas,
            "target_ongoing_requests": replicas.target_requests,
        },
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
    )
    @serve.ingress(application)
    class Replica:
        """A model and its server."""

    return Replica.bind()
