"""Autocast to bfloat16 with its roundings and the speed of float32, for processors that do not multiply in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

PRODUCTS = {
    torch.conv2d,
    torch.conv_transpose2d,
    torch.matmul,
    functional.conv2d,
    functional.conv_transpose2d,
    functional.linear,
}


class EmulatedBfloat16(TorchFunctionMode):
    """Convolutions and matrix products of operands that were rounded to bfloat16, summed in float32, rounded again.

    So are their gradients. It emulates within `torch.autocast` only, which decides about all other operations.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func not in PRODUCTS or not torch.is_autocast_enabled("cpu"):
            return func(*args, **(kwargs or {}))
        with torch.autocast("cpu", enabled=False):
            rounded = {name: _rounded(value) for name, value in (kwargs or {}).items()}
            return func(*map(_rounded, args), **rounded).bfloat16()


def _rounded(value: Any) -> Any:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.bfloat16().float() if floating else value
