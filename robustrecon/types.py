"""The words that every part shares: the verdict, the input error, and the checks of images and labels."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    Images: TypeAlias = Tensor | ArrayLike

ImageShape: TypeAlias = tuple[int, int, int]
"""(channels, height, width)"""


class InputError(ValueError):
    """An argument that the caller can mend: the message names it, what it was and what it must be."""


@dataclass(frozen=True)
class Verdict:
    """What a detector says of B inputs.

    Attributes:
        label: (B,) int64, the classifier's label whether or not it is trusted.
        score: (B,) float32, higher is more suspicious.
        p_value: (B,) float64 in (0, 1], the share of clean images at least as suspicious.
        rejected: (B,) bool, true where the score exceeds the calibrated threshold.
    """

    label: Tensor
    score: Tensor
    p_value: Tensor
    rejected: Tensor

    def __len__(self) -> int:
        return len(self.label)


def unknown_name(argument: str, name: str, known: Iterable[str]) -> NoReturn:
    """Raise the error for a name that is in no catalogue, with the closest one that is."""
    names = sorted(known)
    raise InputError(f"{argument}: unknown name {name!r}{nearest(name, names)} (known: {', '.join(names)})")


def nearest(name: str, known: Iterable[str]) -> str:
    """For an error's message: a question after the closest known name, or nothing where none is close."""
    close = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_images(x: Any, image_shape: Sequence[int] | None = None, argument: str = "x") -> Tensor:
    """Images as a float32 tensor of shape (B, C, H, W) with finite values in [0, 1].

    Accepts a tensor (its gradient is kept) or anything numpy turns into a floating array.

    Raises:
        InputError: not an array, not floating point, wrong shape, empty, not finite, or out of range.
    """
    import numpy as np  # here, so that an error in the command's options does not wait for them
    import torch

    if not isinstance(x, torch.Tensor):
        try:
            x = torch.from_numpy(np.array(x))
        except (TypeError, ValueError) as error:
            raise InputError(f"{argument}: got {type(x).__name__}, must be a tensor or an array of images") from error
    if not x.is_floating_point():
        raise InputError(f"{argument}: dtype is {x.dtype}, must be floating point with values in [0, 1]")
    wanted = "(B, C, H, W)" if image_shape is None else f"(B, {', '.join(map(str, image_shape))})"
    if x.ndim != 4 or (image_shape is not None and tuple(x.shape[1:]) != tuple(image_shape)):
        raise InputError(f"{argument}: shape is {tuple(x.shape)}, must be {wanted}")
    if x.numel() == 0:
        raise InputError(f"{argument}: shape is {tuple(x.shape)}, must hold at least one image")
    low, high = (float(bound) for bound in torch.aminmax(x.detach()))
    if not (np.isfinite(low) and np.isfinite(high)):  # aminmax propagates NaN
        raise InputError(f"{argument}: has values that are not finite, must be in [0, 1]")
    if low < 0 or high > 1:
        raise InputError(f"{argument}: values span [{low:.4g}, {high:.4g}], must be in [0, 1]")
    return x.float()


def check_fraction(value: float, argument: str) -> float:
    """A number strictly between 0 and 1, such as a false-alarm rate."""
    if not isinstance(value, Real) or not 0 < value < 1:
        raise InputError(f"{argument}: got {value!r}, must be in (0, 1)")
    return float(value)
