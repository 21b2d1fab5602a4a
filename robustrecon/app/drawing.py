"""From strokes on a canvas to an image such as the model was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import center_of_mass
from torch import Tensor

from ..types import ImageShape

FILLED = 20 / 28  # of the image's side, by the longer side of a digit of MNIST


def from_canvas(canvas: NDArray[Any] | None, shape: ImageShape) -> Tensor | None:
    """(C, H, W) in [0, 1] from the strokes (height, width, 4) of a canvas, whose alpha is ink; None without ink.

    As in MNIST: the strokes are scaled to 20/28 of the image, their centre of mass is put in its middle, and they are
    white on black.
    """
    if canvas is None or not canvas[..., 3].any():
        return None
    ink = canvas[..., 3]
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    channels, height, width = shape
    scale = FILLED * min(height, width) / max(cut.shape)
    size = [max(1, round(side * scale)) for side in cut.shape]
    small = np.asarray(Image.fromarray(cut).resize((size[1], size[0]), Image.Resampling.BOX), dtype=np.float32) / 255
    middle = center_of_mass(small)
    image = np.zeros((height, width), dtype=np.float32)
    top, left = (
        int(np.clip(round((whole - 1) / 2 - centre), 0, whole - side))
        for whole, centre, side in zip(image.shape, middle, small.shape, strict=True)
    )
    image[top : top + size[0], left : left + size[1]] = small
    return torch.from_numpy(image).expand(channels, height, width).clone()
