"""What is used of Lightning Fabric. To compare the version of torchmetrics, Fabric imports all of it, and with it
transformers, scipy and matplotlib, which takes longer than all other imports of training together; so it is shown the
version alone."""

import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from muse.processes import Shard


@contextmanager
def version_alone(name: str) -> Iterator[None]:
    """A package has within no more than its version, unless it is imported already or not installed."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    if name in sys.modules or version is None:
        yield
        return
    stand_in = ModuleType(name)
    stand_in.__version__ = version  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules[name] = stand_in
    try:
        yield
    finally:
        del sys.modules[name]


Shard.from_environment()  # Fabric reads RANK as it is imported, and of one that is no number says nothing clear
with version_alone("torchmetrics"):
    from lightning_fabric import Fabric as Fabric
    from lightning_fabric.strategies import DDPStrategy as DDPStrategy
