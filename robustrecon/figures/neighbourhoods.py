"""Figures 7 and 8 of the paper: the nearest neighbours of an image in pixel space and in style space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from .. import plotting
from ..data import Dataset
from ..models import EnergyModel
from ..types import InputError
from .base import Array, Drawable, Measure, check_count
from .encoding import checked, distances, encode
from .sheets import GAP, short, show

SPACES = ("image", "style")
NEAREST = 97  # the paper's number
COLUMNS, ROWS = 14, 4  # images of each space on the sheet
BAR = 20  # height of the style bars below an image, in its pixels
BLACK, GREY, WHITE = np.float32(0), np.float32(0.35), np.float32(1)


@dataclass(frozen=True)
class Neighbours(Drawable):
    """The k nearest neighbours of each of B base images in two spaces: their distances and their classes.

    By definition, the nearest in pixels are nearer in pixels than the nearest in style are, and the reverse. The size
    of these differences, the number of neighbours in both sets and their classes do not follow from the definition.

    Attributes:
        base: (B,) indices of test images; the sheet shows the first one.
        nearest: by space, (B, k) indices of the nearest neighbours, the nearest first.
        image_distance, style_distance: by space of the neighbours, (B,) their mean Euclidean distance in pixels and in
            style.
        over_all: by space, (B,) mean distance to all other test images in that space.
        same_class: by space, (B,) how many neighbours have the class of the base image.
        by_chance: (B,) how many of k random other test images have that class, on average.
        images: by space, (1 + k, C, H, W) the first base image and its neighbours.
        styles: by space, (1 + k, S) their style memories.
        name: class of the first base image.
    """

    base: Array
    nearest: dict[str, Array]
    image_distance: dict[str, Array]
    style_distance: dict[str, Array]
    over_all: dict[str, Array]
    same_class: dict[str, Array]
    by_chance: Array
    images: dict[str, Array]
    styles: dict[str, Array]
    name: str

    @property
    def shared(self) -> Array:
        """(B,) how many images are neighbours in both spaces."""
        pairs = zip(self.nearest["image"], self.nearest["style"], strict=True)
        return np.array([len(np.intersect1d(*both)) for both in pairs])

    @property
    def measures(self) -> dict[str, Measure]:
        return {
            **{
                f"{what}_of_{space}_neighbours": Measure.mean(getattr(self, what)[space])
                for what in ("image_distance", "style_distance", "same_class")
                for space in SPACES
            },
            "same_class_by_chance": Measure.mean(self.by_chance),
            **{f"{space}_distance_of_all": Measure.mean(self.over_all[space]) for space in SPACES},
            "shared_neighbours": Measure.mean(self.shared),
        }

    @property
    def caption(self) -> str:
        k = self.nearest["image"].shape[1]
        m = self.measures

        def of_first(space: str) -> str:
            return (
                f"nearest in {space} space: mean distance {self.image_distance[space][0]:.2f} in pixels and "
                f"{self.style_distance[space][0]:.2f} in style, {self.same_class[space][0]} of the same class"
            )

        def change(what: str) -> str:
            in_pixels, in_style = (m[f"{what}_of_{space}_neighbours"].value for space in SPACES)
            return f"{what.replace('_', ' ')} {in_pixels:.2f} → {in_style:.2f}"

        changes = ", ".join(map(change, ("image_distance", "style_distance", "same_class")))
        return (
            f"A test image (framed) and the first {min(k, COLUMNS * ROWS - 1)} of its {k} nearest neighbours, in "
            "pixels (top) and in style (bottom); the bars are their style memories. "
            f"{'; '.join(map(of_first, SPACES)).capitalize()}. Over n = {len(self.base):,} base "
            f"images, neighbours in pixels → in style: {changes} (by chance {m['same_class_by_chance'].value:.1f}); "
            f"{m['shared_neighbours'].value:.1f} of {k} are neighbours in both."
        )

    def plot(self, ax: Any) -> None:
        halves = [_rows(self.images[space], self.styles[space]) for space in SPACES]
        sheet = np.concatenate(halves)
        down = len(halves[0])
        names = [""] * len(sheet)
        names[0], names[down] = "nearest\nin pixels", "nearest\nin style"
        show(ax, sheet, rows=names)
        scale = _scale(self.images["image"], self.styles["image"])
        height, width = (scale * size for size in self.images["image"].shape[2:])
        for row in (0, down):
            corner = (-0.5 - GAP / 2, row * (sheet.shape[3] + GAP) - 0.5 - GAP / 2)
            frame = Rectangle(corner, width + GAP, height + GAP, fill=False, color=plotting.COLOURS[1], linewidth=2)
            ax.add_patch(frame).set_clip_on(False)
        ax.set_title(f"neighbours of an image of class {self.name}", fontsize=9)


def neighbours(
    model: EnergyModel,
    data: Dataset,
    base: int | Sequence[int] | None = None,
    k: int | None = None,
    n_bases: int = 1000,
    seed: int = 0,
) -> Neighbours:
    """Find the k nearest neighbours of base images among all other test images, in pixels and in style.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, figures 7 and 8.

    Args:
        base: the index of a test image, or several; by default `n_bases` random images, or all if there are fewer.
        k: how many neighbours; by default 97, the paper's number, or all other images if there are fewer.

    Raises:
        InputError: a model without a decoder or for other data, a base that is no index of a test image, or k out of
            range.
    """
    network = checked(model, data)
    n = len(data.test)
    k = min(NEAREST, n - 1) if k is None else k
    if not 1 <= k < n:
        raise InputError(f"k: got {k}, must be in [1, {n - 1}] for {n} test images")
    check_count(n_bases, "n_bases")
    bases = np.random.default_rng(seed).permutation(n)[:n_bases] if base is None else _indices(base, n)
    encoded = encode(network, data.test)
    points = {"image": encoded.x, "style": encoded.style}
    apart = {space: distances(p[bases], p) for space, p in points.items()}
    own = np.arange(len(bases)), bases
    nearest = {}
    for space, found in apart.items():
        others = found.copy()
        others[own] = np.inf
        nearest[space] = others.argsort(axis=1, kind="stable")[:, :k]
    means = {
        measured: {space: np.take_along_axis(apart[measured], nearest[space], 1).mean(1) for space in SPACES}
        for measured in SPACES
    }
    same = encoded.y == encoded.y[bases][:, None]
    shown = {space: np.append(bases[0], nearest[space][0]) for space in SPACES}
    return Neighbours(
        bases,
        nearest,
        means["image"],
        means["style"],
        {space: found.sum(1) / (n - 1) for space, found in apart.items()},
        {space: np.take_along_axis(same, nearest[space], 1).sum(1) for space in SPACES},
        (same.sum(1) - 1) * k / (n - 1),
        {space: encoded.x[shown[space]] for space in SPACES},
        {space: encoded.style[shown[space]] for space in SPACES},
        short(data.classes[encoded.y[bases[0]]]),
    )


def _indices(base: int | Sequence[int], n: int) -> Array:
    found = np.atleast_1d(np.asarray(base))
    if found.dtype.kind not in "iu" or found.ndim != 1 or not len(found) or found.min() < 0 or found.max() >= n:
        raise InputError(f"base: got {base}, must be one or several indices in [0, {n - 1}] of test images")
    return found


def _scale(images: Array, styles: Array) -> int:
    """How many times as large images (N, C, H, W) are drawn, so that each style bar has three pixels."""
    return -(-3 * styles.shape[1] // images.shape[3])


def _rows(images: Array, styles: Array) -> Array:
    """Images (N, C, H, W) with their styles (N, S) as bars below them, in at most `ROWS` rows of `COLUMNS`."""
    scale = _scale(images, styles)
    images, styles = images[: ROWS * COLUMNS], styles[: ROWS * COLUMNS]
    images = images.repeat(scale, axis=2).repeat(scale, axis=3)
    n, channels, _, width = images.shape
    pitch = width // styles.shape[1]  # of a bar and the gap after it
    bars = np.full((n, channels, BAR * scale, width), WHITE)
    level = np.arange(BAR * scale, 0, -1)[:, None] / (BAR * scale)
    filled = np.where(styles[:, None] >= level - 0.5 / len(level), GREY, WHITE)
    filled[:, -1] = BLACK  # of a bar of 0 too
    left = (width - pitch * styles.shape[1]) // 2
    for column in range(pitch - 1):
        places = left + column + pitch * np.arange(styles.shape[1])
        bars[..., places] = filled[:, None]
    whole = np.concatenate([images, bars], axis=2)
    blank = np.full((-n % COLUMNS, *whole.shape[1:]), WHITE)
    return np.concatenate([whole, blank]).reshape(-1, COLUMNS, *whole.shape[1:])
