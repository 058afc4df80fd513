"""Where metrics go besides metrics.jsonl: TensorBoard, Trackio, Weights & Biases; each is imported when asked for."""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

LoggerName = Literal["tensorboard", "trackio", "wandb"]
Log = Callable[[int, Mapping[str, float]], None]
MODULES = {"tensorboard": "torch.utils.tensorboard", "trackio": "trackio", "wandb": "wandb"}


@contextmanager
def open_loggers(names: Sequence[LoggerName], folder: Path) -> Iterator[Log]:
    """One function that gives the numbers of a step to all of the loggers.
    Raises ValueError if one is not installed."""
    with ExitStack() as stack:
        logs = [stack.enter_context(open_logger(name, folder)) for name in names]

        def log(step: int, numbers: Mapping[str, float]) -> None:
            for each in logs:
                each(step, numbers)

        yield log


@contextmanager
def open_logger(name: LoggerName, folder: Path) -> Iterator[Log]:
    """One logger of a run, which is called as its folder and the one above it.
    Raises ValueError if it is not installed."""
    try:
        module: Any = importlib.import_module(MODULES[name])
    except ImportError as error:
        raise ValueError(f"{name} is not installed; pip install {name}, or leave it out of --loggers") from error
    project, run = folder.absolute().parent.name, folder.name
    if name == "tensorboard":
        with module.SummaryWriter(str(folder / "tensorboard")) as writer:

            def draw(step: int, numbers: Mapping[str, float]) -> None:
                for key, value in numbers.items():
                    writer.add_scalar(key, value, step)

            yield draw
        return
    started = module.init(project=project, name=run, **({"dir": str(folder)} if name == "wandb" else {}))
    try:
        yield lambda step, numbers: started.log(dict(numbers), step=step)
    finally:
        started.finish()
