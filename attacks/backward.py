"""Another backward pass: a gentler slope of a front end, a leaky one of the ReLUs. The outputs stay exact.

A gradient that is nearly zero, or zero for every unit that is off, says little of what a longer step would do.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .errors import InputError
from .precision import PASSES, exact_model


@runtime_checkable
class FrontEnd(Protocol):
    """A part of a model that passes every pixel through a function, which may be had with another slope."""

    def at_slope(self, x: Tensor, slope: float) -> Tensor:
        """What the part would make of x (...) if it had this slope: the same shape, differentiable."""
        ...


def front_ends(model: nn.Module) -> list[nn.Module]:
    """The parts of a model that are a `FrontEnd`."""
    return [part for part in model.modules() if isinstance(part, FrontEnd)]


class ApproximateBackward(nn.Module):
    """A model with its outputs as they are and another backward pass.

    Its methods `PASSES` have it too, where the model has them; every other attribute is the model's own. The backward
    pass of a front end is that of one with a gentler slope: BPDA, A. Athalye, N. Carlini, D. Wagner, "Obfuscated
    Gradients Give a False Sense of Security", ICML 2018. That of a ReLU passes a share of the gradient where the unit
    is off, so that an attack sees units that a larger step would switch on.

    Args:
        model: gives logits (B, K) of images (B, C, H, W) in [0, 1].
        front_end: slope in the backward pass of its front ends; None for their own.
        leaky: slope in the backward pass of the ReLUs where they are off; 0 for their own. Those that are called in
            Python are meant: `nn.ReLU`, `torch.relu`, `functional.relu` and the methods, also in place.

    Raises:
        InputError: an argument out of its range, or a slope for a model without a front end.
    """

    def __init__(self, model: nn.Module, front_end: float | None = None, leaky: float = 0.0) -> None:
        super().__init__()
        self.front_end, self.leaky = check_front_end(front_end), check_leaky(leaky)
        parts = front_ends(model)
        if front_end is not None and not parts:
            kind = type(getattr(model, "model", model)).__name__
            raise InputError(f"front_end: got {front_end}, must be left out for {kind}, which has no front end")
        self.model = model
        self._parts = parts if front_end is not None else []
        self.training = model.training

    def extra_repr(self) -> str:
        return f"front_end={self.front_end}, leaky={self.leaky}"

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits: Tensor = self._run(self.model, x)
        return logits

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            found = getattr(super().__getattr__("model"), name)
        return partial(self._run, found) if name in PASSES else found

    def _run(self, function: Any, *arguments: Any) -> Any:
        if not torch.is_grad_enabled():
            return function(*arguments)
        with _changed(self._parts, self.front_end, self.leaky):
            return function(*arguments)


def attacked_model(victim: nn.Module) -> nn.Module:
    """The model itself, whatever precision and backward pass an attack has given it."""
    exact = exact_model(victim)
    return exact.model if isinstance(exact, ApproximateBackward) else exact


def check_front_end(slope: float | None) -> float | None:
    """The slope, once it is known to be None or a finite number above 0.

    Raises:
        InputError: it is not.
    """
    if slope is None or (_is_number(slope) and slope > 0):
        return slope
    raise InputError(f"front_end: got {slope!r}, must be a slope above 0")


def check_leaky(slope: float) -> float:
    """The slope, once it is known to be a number in [0, 1].

    Raises:
        InputError: it is not.
    """
    if _is_number(slope) and 0 <= slope <= 1:
        return slope
    raise InputError(f"leaky: got {slope!r}, must be a slope in [0, 1]")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


@contextlib.contextmanager
def _changed(parts: Sequence[nn.Module], front_end: float | None, leaky: float) -> Iterator[None]:
    """Inside, the backward pass of these front ends has that slope, and ReLUs leak."""
    with contextlib.ExitStack() as stack:
        for part in parts:
            stack.callback(part.register_forward_hook(partial(_with_slope, front_end)).remove)
        if leaky:
            stack.enter_context(_LeakyReLUs(leaky))
        yield


def _with_slope(slope: float | None, part: Any, given: tuple[Tensor], output: Tensor) -> Tensor:
    gentler: Tensor = part.at_slope(given[0], slope)
    return output.detach() + (gentler - gentler.detach())


class _LeakyReLUs(TorchFunctionMode):
    """Inside, every ReLU that is called in this thread has a leaky backward pass."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func not in _RELUS:
            return func(*args, **named)
        x, *others = args if args else (named["input"],)
        if not x.requires_grad:
            return func(*args, **named)
        return _LeakyReLU.apply(x, self.slope, func in _IN_PLACE or bool(others or named.get("inplace")))


_IN_PLACE = {torch.relu_, Tensor.relu_}
_RELUS = {torch.relu, nn.functional.relu, Tensor.relu} | _IN_PLACE


class _LeakyReLU(torch.autograd.Function):
    """ReLU whose backward pass is that of a leaky one; can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, in_place: bool) -> Tensor:
        output = x.relu_() if in_place else x.relu()
        if in_place:
            ctx.mark_dirty(output)
        # As ReLU does itself, so that activations that are computed again for the backward pass fit.
        ctx.save_for_backward(output)
        ctx.slope = slope
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (output,) = ctx.saved_tensors
        return torch.where(output > 0, grad_output, ctx.slope * grad_output), None, None
