"""The arithmetic that networks draw in."""

from typing import Literal, get_args

import torch

Precision = Literal["auto", "float32", "bfloat16"]


def has_native_bfloat16(device: torch.device | str = "cpu") -> bool:
    """Whether a device multiplies in bfloat16 itself; others are slower in it than in float32."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    return torch.device(device).type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def dtype_for(precision: str, device: torch.device | str) -> torch.dtype:
    """The type of the weights; "auto" takes bfloat16 where the device has it natively.
    Raises ValueError if there is no such precision."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}; give one of {', '.join(map(repr, get_args(Precision)))}")
    if precision == "auto":
        precision = "bfloat16" if has_native_bfloat16(device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def prefer_fast_float32() -> None:
    """Let oneDNN multiply float32 on a processor where that is still float32 and a fifth faster than MKL's.
    With AMX it would round to bfloat16 on the way."""
    if not torch.cuda.is_available() and not torch.cpu._is_amx_tile_supported():
        torch.set_float32_matmul_precision("medium")
