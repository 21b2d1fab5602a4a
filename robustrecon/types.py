"""What every part shares: the verdict, the input error, and the checks of arguments."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, TypeAlias

from .attacks import InputError, check_images, nearest, unknown_name

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    Images: TypeAlias = Tensor | ArrayLike

__all__ = [
    "ImageShape",
    "Images",
    "InputError",
    "Verdict",
    "check_fraction",
    "check_images",
    "nearest",
    "unknown_name",
]

ImageShape: TypeAlias = tuple[int, int, int]
"""(channels, height, width)"""


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


def check_fraction(value: float, argument: str) -> float:
    """A number strictly between 0 and 1, such as a false-alarm rate."""
    if not isinstance(value, Real) or not 0 < value < 1:
        raise InputError(f"{argument}: got {value!r}, must be in (0, 1)")
    return float(value)
