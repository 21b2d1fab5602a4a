"""Sheets: many small images in rows and columns, with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .base import Array

GAP = 2  # pixels between the images of a sheet


def sheet(images: Array) -> Array:
    """Images (R, S, C, H, W) in R rows and S columns on white: one image (height, width), or (height, width, 3)."""
    rows, columns, channels, height, width = images.shape
    canvas = np.ones((rows, height + GAP, columns, width + GAP, channels), dtype=np.float32)
    canvas[:, :height, :, :width] = images.clip(0, 1).transpose(0, 3, 1, 4, 2)
    laid = canvas.reshape(rows * (height + GAP), columns * (width + GAP), channels)[:-GAP, :-GAP]
    return laid[..., 0] if channels == 1 else laid


def show(
    ax: Any,
    images: Array,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    below: Sequence[str] = (),
) -> None:
    """Draw images (R, S, C, H, W) as a sheet on `ax`, with labels of the rows, and above and below the columns."""
    ax.imshow(sheet(images), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    height, width = (size + GAP for size in images.shape[3:])
    for row, name in enumerate(rows):
        ax.text(-3 * GAP, (row + 0.5) * height, name, ha="right", va="center", fontsize=8)
    for texts, where, align in ((columns, -GAP, "bottom"), (below, images.shape[0] * height + GAP, "top")):
        for column, name in enumerate(texts):
            ax.text((column + 0.5) * width, where, name, ha="center", va=align, fontsize=7)


def short(name: str) -> str:
    """A class name without its explanation: torchvision calls a class of MNIST "3 - three"."""
    return name.split(" - ")[0]
