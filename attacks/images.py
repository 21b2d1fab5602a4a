"""The check that every public function makes of its images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def check_images(x: Any, image_shape: Sequence[int] | None = None, argument: str = "x") -> Tensor:
    """Images as a float32 tensor of shape (B, C, H, W) with finite values in [0, 1].

    Accepts a tensor (its gradient is kept) or anything numpy turns into a floating array.

    Args:
        x: the images.
        image_shape: (C, H, W) that the images must have; any shape by default.
        argument: the name of the argument in error messages.

    Raises:
        InputError: not an array, not floating point, wrong shape, empty, not finite, or out of range.
    """
    import numpy as np  # imported late, so that the command line answers wrong options at once
    import torch

    if not isinstance(x, torch.Tensor):
        try:
            x = torch.from_numpy(np.array(x))
        except (TypeError, ValueError) as error:
            raise InputError(f"{argument}: got {type(x).__name__}, must be a tensor or an array of images") from error
    if not x.is_floating_point():
        raise InputError(f"{argument}: dtype is {x.dtype}, must be floating point with values in [0, 1]")
    expected = "(B, C, H, W)" if image_shape is None else f"(B, {', '.join(map(str, image_shape))})"
    if x.ndim != 4 or (image_shape is not None and tuple(x.shape[1:]) != tuple(image_shape)):
        raise InputError(f"{argument}: shape is {tuple(x.shape)}, must be {expected}")
    if x.numel() == 0:
        raise InputError(f"{argument}: shape is {tuple(x.shape)}, must hold at least one image")
    low, high = (float(bound) for bound in torch.aminmax(x.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):  # aminmax propagates NaN
        raise InputError(f"{argument}: has values that are not finite, must be in [0, 1]")
    if low < 0 or high > 1:
        raise InputError(f"{argument}: values span [{low:.4g}, {high:.4g}], must be in [0, 1]")
    return x.float()
