"""The type checker of the tests: beartype, with an int accepted where a float is asked for, as Python does.

A function within a function is made anew at each call, and so would be what checks it, which takes longer than most
calls. jaxtyping has bare signatures checked, so one that came before has its check already."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype

make_check = beartype(conf=BeartypeConf(is_pep484_tower=True))
made: dict[tuple[Any, ...], Callable[..., Any]] = {}


def check(signature: Any) -> Callable[..., Any]:
    """A function of this signature that raises where an argument or the result is of another type."""
    defaults = (len(signature.__defaults__ or ()), *(signature.__kwdefaults__ or ()))
    name = (signature.__module__, signature.__qualname__, signature.__code__)
    key = (name, defaults, *signature.__annotations__.items())
    if key not in made:
        made[key] = make_check(signature)
    return made[key]
