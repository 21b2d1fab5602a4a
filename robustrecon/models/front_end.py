"""A front end: a steep function of each pixel before the first convolution."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor, nn

from ..types import InputError


class FrontEnd(nn.Module):
    """sigmoid(slope · (x − 1/2)) of each pixel: near black and white hardly anything of a small change is left.

    It is smooth, and its gradient is exact but small near 0 and 1: at a slope of 20 a thousandth of that at 1/2. An
    attack that follows it may see too little, and has to be tried with gentler slopes in the backward pass too
    (`attacks.ApproximateBackward`, the parameter `front_end` of attacks).

    Args:
        slope: a quarter of it is the derivative at 1/2; above 0.

    Raises:
        InputError: a slope that is not a finite number above 0.
    """

    def __init__(self, slope: float) -> None:
        super().__init__()
        if isinstance(slope, bool) or not (isinstance(slope, Real) and math.isfinite(slope) and slope > 0):
            raise InputError(f"front_end: got {slope!r}, must be a slope above 0, or None for no front end")
        self.slope: float = float(slope)

    def extra_repr(self) -> str:
        return f"slope={self.slope:g}"

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) as the network sees them, the same shape; pixels in (0, 1)."""
        return self.at_slope(x, self.slope)

    def at_slope(self, x: Tensor, slope: float) -> Tensor:
        """The same with another slope."""
        return torch.sigmoid(slope * (x - 0.5))
