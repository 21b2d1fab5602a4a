"""A part of a network whose backward pass computes it again instead of keeping what it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def recomputed(function: Callable[[Tensor], Tensor], x: Tensor, weights: Iterable[Tensor]) -> Tensor:
    """function(x), to be differentiated once, which may itself take gradients.

    `torch.utils.checkpoint` computes again in each of those gradients as well.

    Args:
        function: deterministic, of x and of `weights` alone.
        x: any tensor.
        weights: that `function` depends on.
    """
    result: Tensor = _Recomputed.apply(function, x, *weights)
    return result


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[[Tensor], Tensor], x: Tensor, *weights: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(x, *weights)
        return function(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_(), *weights]
            result = ctx.function(inputs[0])
        needed = ctx.needs_input_grad[1:]
        wanted = [tensor for tensor, need in zip(inputs, needed, strict=True) if need]
        found = iter(torch.autograd.grad(result, wanted, gradient, allow_unused=True))
        return None, *(next(found) if need else None for need in needed)
