# Types of `transformers`: any. To read its own takes longer than to check all of this repository.
from typing import Any

def __getattr__(name: str) -> Any: ...
