"""The arithmetic that networks draw in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import torch

from muse.checkpoint import first_line
from muse.requests import Precision, check_kind

EIGHT_BITS = {"int8": torch.int8, "float8": torch.float8_e4m3fn}
"""The numbers of precisions that round the products of the transformers' layers."""
COMPUTED_IN = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""The types of weights that networks compute in."""
FLOAT8_SINCE = (8, 9)
"""The compute capability of the first GPUs that multiply in float8."""


def default_device() -> str:
    """The kind of device that networks are put on if nobody says where: a GPU of CUDA if there is one, else the
    processor."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: torch.device | str) -> None:
    """Raises ValueError if torch cannot compute on a device."""
    wish = "'cpu' or 'cuda', and a precision to draw in to from_pretrained or draw_in"
    check_kind("the device", device, torch.device | str | int, wish)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"device {str(device)!r} cannot be used ({first_line(error)}); give 'cpu', or none") from error


def has_native_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether a device multiplies in bfloat16 itself; others are slower in it than in float32."""
    if torch.device(device).type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.device(device).type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def dtype_for(precision: str, device: torch.device | str) -> torch.dtype:
    """The type of the weights; "auto" takes bfloat16 where the device has it natively, and so do precisions of 8 bits
    for all but what they round.
    Raises ValueError if there is no such precision."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}; give one of {', '.join(map(repr, get_args(Precision)))}")
    if precision in ("float32", "bfloat16"):
        return getattr(torch, precision)
    return torch.bfloat16 if has_native_bfloat16(device) else torch.float32


def number_for(precision: str, device: torch.device | str) -> torch.dtype | None:
    """The 8 bits in which the layers of transformers multiply, None if they do not.
    Raises ValueError if the device does not multiply in them."""
    kind = torch.device(device).type
    if precision == "int8" and kind != "cpu":
        raise ValueError(f"precision int8 is for processors, and the device is {kind}; take float8 or auto")
    if precision == "float8" and (kind != "cuda" or torch.cuda.get_device_capability(device) < FLOAT8_SINCE):
        raise ValueError(
            f"precision float8 needs a GPU that multiplies in it, of compute capability {FLOAT8_SINCE[0]}."
            f"{FLOAT8_SINCE[1]}, and the device is {kind}; take int8 on a processor, or auto"
        )
    return EIGHT_BITS.get(precision)


def check_drawn_in(dtype: Any, number: Any) -> None:
    """Raises ValueError for a type that networks do not compute in, or one of 8 bits in which no layer multiplies."""
    for name, came, wanted in (("dtype", dtype, COMPUTED_IN), ("number", number, (None, *EIGHT_BITS.values()))):
        if came not in wanted:
            raise ValueError(f"{name} is {came!r}; give one of {', '.join(map(str, wanted))}")


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Convolutions in float32 are of float32, where a GPU else rounds their numbers to the 10 bits of TF32: enough to
    make another token of a picture, and another figure of features."""
    cudnn: Any = torch.backends.cudnn
    convolutions = cudnn.conv  # of nothing else: torch.backends.cudnn.flags would set six things more
    before = convolutions.fp32_precision
    if before == "ieee":
        yield
        return
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def prefer_fast_float32() -> None:
    """Let oneDNN multiply float32 on a processor where that is still float32 and a fifth faster than MKL's.
    With AMX it would round to bfloat16 on the way."""
    if default_device() == "cpu" and not torch.cpu._is_amx_tile_supported():
        torch.set_float32_matmul_precision("medium")
