"""Figures 7 and 8: the nearest neighbours of an image, once by its pixels and once by its style memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data import Dataset
from ..models import EnergyModel
from ..types import InputError
from .base import Array, Drawable, Measure, checked, encode, short, show

SPACES = ("image", "style")
ACROSS = 14  # images side by side in a sheet
BAR = 10  # pixels that the style bars under an image are high


@dataclass(frozen=True)
class Neighbours(Drawable):
    """The k nearest of each of B base images in two spaces, and how near and of what class they are in either.

    Attributes:
        base: (B,) indices into the test part; the sheet shows the first.
        nearest: by space, (B, k) indices of the nearest, the nearest first.
        image_distance, style_distance: by space, (B,) mean Euclidean distance to those in pixels and in style.
        same_class: by space, (B,) how many of those are of the base's class.
        images: (1 + k, C, H, W) by space: the first base image and its nearest.
        styles: (1 + k, style_dim), of these.
        name: class of the first base image.
    """

    base: Array
    nearest: dict[str, Array]
    image_distance: dict[str, Array]
    style_distance: dict[str, Array]
    same_class: dict[str, Array]
    images: dict[str, Array]
    styles: dict[str, Array]
    name: str

    @property
    def measures(self) -> dict[str, Measure]:
        return {
            f"{what}_of_{space}_neighbours": Measure.mean(np.asarray(values[space], dtype=float))
            for what in ("image_distance", "style_distance", "same_class")
            for values in (getattr(self, what),)
            for space in SPACES
        }

    @property
    def caption(self) -> str:
        k = self.nearest["image"].shape[1]

        def told(space: str) -> str:
            return (
                f"by {space} {self.image_distance[space][0]:.2f} in pixels and {self.style_distance[space][0]:.2f} in "
                f"style, {self.same_class[space][0]} of its class"
            )

        m = self.measures
        changes = ", ".join(
            f"{what.replace('_', ' ')} {m[f'{what}_of_image_neighbours'].value:.2f} → "
            f"{m[f'{what}_of_style_neighbours'].value:.2f}"
            for what in ("image_distance", "style_distance", "same_class")
        )
        return (
            f"A test image (first) and its {k} nearest, left in pixels, right in style; under each its style memory. "
            f"This one: {'; '.join(map(told, SPACES))}. Over n = {len(self.base):,} base images, in pixels → in "
            f"style: {changes}."
        )

    def plot(self, ax: Any) -> None:
        halves = [_rows(self.images[space], self.styles[space]) for space in SPACES]
        margin = np.ones((*halves[0].shape[:1], 1, *halves[0].shape[2:]), dtype=np.float32)
        show(ax, np.concatenate([halves[0], margin, halves[1]], axis=1))
        ax.set_title(f"{self.name}: nearest in pixels, and nearest in style", fontsize=9)


def neighbours(
    model: EnergyModel,
    data: Dataset,
    base: int | Sequence[int] | None = None,
    k: int = 97,
    n_bases: int = 1000,
    seed: int = 0,
) -> Neighbours:
    """Find the k nearest neighbours of base images among the other test images, in pixels and in style.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, figures 7 and 8.

    Args:
        base: the index of a test image, or several; by default `n_bases` random ones (all, where there are fewer).

    Raises:
        InputError: a model without a decoder or for other data, a base that is no index of a test image, or k out of
            range.
    """
    network = checked(model, data)
    n = len(data.test)
    if not 1 <= k < n:
        raise InputError(f"k: got {k}, must be in [1, {n - 1}] for {n} test images")
    if base is None:
        bases = np.random.default_rng(seed).permutation(n)[:n_bases]
    else:
        bases = np.atleast_1d(np.asarray(base))
        if bases.dtype.kind not in "iu" or bases.ndim != 1 or not len(bases) or bases.min() < 0 or bases.max() >= n:
            raise InputError(f"base: got {base}, must be one or several indices in [0, {n - 1}] of test images")
    seen = encode(network, data.test)
    points = {"image": seen.x.reshape(n, -1), "style": seen.style}
    apart = {space: torch.cdist(torch.as_tensor(p[bases]), torch.as_tensor(p)).numpy() for space, p in points.items()}
    own = np.arange(len(bases)), bases
    nearest = {}
    for space, distances in apart.items():
        others = distances.copy()
        others[own] = np.inf
        nearest[space] = torch.as_tensor(others).topk(k, largest=False).indices.numpy()
    means = {
        measured: {space: np.take_along_axis(apart[measured], nearest[space], 1).mean(1) for space in SPACES}
        for measured in SPACES
    }
    shown = {space: np.append(bases[0], nearest[space][0]) for space in SPACES}
    return Neighbours(
        bases,
        nearest,
        means["image"],
        means["style"],
        {space: (seen.y[nearest[space]] == seen.y[bases][:, None]).sum(1) for space in SPACES},
        {space: seen.x[shown[space]] for space in SPACES},
        {space: seen.style[shown[space]] for space in SPACES},
        short(data.classes[seen.y[bases[0]]]),
    )


def _rows(images: Array, styles: Array) -> Array:
    """Images (N, C, H, W) with their styles (N, S) as bars below, in rows of `ACROSS`."""
    n, channels, _, width = images.shape
    level = np.arange(BAR, 0, -1)[:, None] / BAR
    bars = np.where(styles[:, None] >= level - 0.5 / BAR, np.float32(0.35), np.float32(1.0))
    columns = np.linspace(0, styles.shape[1] - 1e-6, width).astype(int)
    bars = np.repeat(bars[:, None, :, columns], channels, axis=1)
    whole = np.concatenate([images, bars], axis=2)
    blank = np.ones((-n % ACROSS, *whole.shape[1:]), dtype=np.float32)
    return np.concatenate([whole, blank]).reshape(-1, ACROSS, *whole.shape[1:])
