"""Figures 9 to 11: drawings of the way from one style memory of a class to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import Dataset
from ..models import EnergyModel
from ..types import InputError
from .base import Array, Drawable, Measure, check_count
from .encoding import Encoded, checked, decode, distances, encode, farthest, pairs_within
from .judge import Judge
from .sheets import short, show

LIKE = 1000  # training images of a class that a drawing's nearest is looked for among


@dataclass(frozen=True)
class Ways:
    """What an independent network makes of P ways of T images from one drawing to another of the class.

    Attributes:
        kept: (P, T) whether it takes them for their class.
        steps: (P, T − 1) how far it sees each image from the one before, in its features.
        to_nearest: (P,) from the image half way to the nearest of the class's training images, in pixels.
    """

    kept: Array
    steps: Array
    to_nearest: Array

    @property
    def largest_step(self) -> Array:
        """(P,) share of the largest step in the whole way: 1 / (T − 1) where the way is as smooth as can be."""
        return np.asarray(self.steps.max(1) / np.maximum(self.steps.sum(1), 1e-12))


@dataclass(frozen=True)
class Interpolation(Drawable):
    """Ways m = λ m₁ + (1 − λ) m₂ between two style memories of a class.

    Attributes:
        weights: (T,) the λ, from 1 to 0.
        ends: (R, 2, C, H, W) pairs of test images of a class that are shown.
        drawings: (R, T, C, H, W) the ways between them.
        names: (R,) the classes.
        styles: the ways between random pairs of correctly classified test images, equally many of each class.
        pixels: the ways between the same first and last drawings, mixed pixel by pixel.
        accuracy: of the network that judges them, on test images.
    """

    weights: Array
    ends: Array
    drawings: Array
    names: tuple[str, ...]
    styles: Ways
    pixels: Ways
    accuracy: float

    @property
    def measures(self) -> dict[str, Measure]:
        found: dict[str, Measure] = {}
        for name, ways in (("interpolation", self.styles), ("pixel_mixture", self.pixels)):
            inner = ways.kept[:, 1:-1]
            found |= {
                f"{name}_of_the_class": Measure.mean(inner.mean(1)),
                f"{name}_of_the_class_half_way": Measure.share(ways.kept[:, ways.kept.shape[1] // 2]),
                f"{name}_largest_step": Measure.mean(ways.largest_step),
                f"{name}_to_nearest_training_image": Measure.mean(ways.to_nearest),
            }
        return found

    @property
    def caption(self) -> str:
        m = self.measures

        def told(what: str) -> str:
            one, other = (m[f"{name}_{what}"].value for name in ("interpolation", "pixel_mixture"))
            return f"{one:.1%} (mixing pixels {other:.1%})" if "step" not in what else f"{one:.2f} ({other:.2f})"

        near, mixed = (m[f"{name}_to_nearest_training_image"].value for name in ("interpolation", "pixel_mixture"))
        return (
            "Between two test images (outermost) of a class, drawings of mixtures of their style memories. An "
            f"independent network ({self.accuracy:.1%} right on test images) takes {told('of_the_class')} of such "
            f"drawings between n = {len(self.styles.kept):,} random pairs for their class; the largest of "
            f"{len(self.weights) - 1} steps is {told('largest_step')} of the way in its features; half way the "
            f"nearest training image is {near:.2f} ({mixed:.2f}) away."
        )

    def plot(self, ax: Any) -> None:
        across = np.concatenate([self.ends[:, :1], self.drawings, self.ends[:, 1:]], axis=1)
        columns = ("image", *(f"λ = {weight:.1f}" for weight in self.weights), "image")
        show(ax, across, rows=self.names, columns=columns)


def interpolation(
    model: EnergyModel,
    data: Dataset,
    judge: Judge,
    ends: Sequence[tuple[int, int]] | None = None,
    steps: int = 11,
    pairs: int = 1000,
    seed: int = 0,
) -> Interpolation:
    """Draw convex combinations of style memories within every class, and let `judge` say what it sees.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, figures 9 to 11;
    T. Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019, for
    lengths of ways in a network's features.

    Args:
        judge: a classifier that was trained apart from the model, see `train_judge`.
        ends: pairs of indices of test images to show, each of one class; by default for every class the two farthest
            apart in style of 100, such as A and a.
        steps: T, drawings from one end to the other.
        pairs: P, random pairs to measure on.

    Raises:
        InputError: a model without a decoder or for other data, a class with fewer than two images, or `ends` that are
            not of one class each.
    """
    check_count(steps, "steps", least=3)
    check_count(pairs, "pairs")
    network = checked(model, data)
    seen = encode(network, data.test)
    weights = np.linspace(1, 0, steps, dtype=np.float32)

    def drawn(chosen: Array) -> Array:
        styles = _mixed(seen.style[chosen], weights)
        labels = seen.y[chosen[:, 0]].repeat(steps)
        return decode(network, labels, styles.reshape(len(labels), -1)).reshape(len(chosen), steps, *data.image_shape)

    labels = np.arange(data.n_classes)
    shown = farthest(seen, data.classes, labels, seed) if ends is None else _checked_ends(ends, seen)
    measured = pairs_within(seen, data.classes, pairs, seed)
    ways, y = drawn(measured), seen.y[measured[:, 0]]
    return Interpolation(
        weights,
        seen.x[shown],
        drawn(shown),
        tuple(short(data.classes[k]) for k in seen.y[shown[:, 0]]),
        _judged(judge, ways, y, data),
        _judged(judge, _mixed(ways[:, [0, -1]], weights), y, data),
        judge.accuracy,
    )


def _mixed(ends: Array, weights: Array) -> Array:
    """(P, T, ...) mixtures of pairs (P, 2, ...)."""
    return np.stack([weight * ends[:, 0] + (1 - weight) * ends[:, 1] for weight in weights], axis=1)


def _judged(judge: Judge, ways: Array, y: Array, data: Dataset) -> Ways:
    """Of ways (P, T, C, H, W) of classes (P,)."""
    images = ways.reshape(-1, *ways.shape[2:])
    points = judge.features(images).reshape(*ways.shape[:2], -1)
    half = ways[:, ways.shape[1] // 2]
    to_nearest = np.empty(len(y))
    for k in np.unique(y):
        like = data.train.images[data.train.y == int(k)][:LIKE].numpy().astype(np.float32) / 255
        to_nearest[y == k] = distances(half[y == k], like).min(1) if len(like) else np.nan
    return Ways(
        judge.labels(images).reshape(ways.shape[:2]) == y[:, None],
        np.linalg.norm(np.diff(points, axis=1), axis=2),
        to_nearest,
    )


def _checked_ends(ends: Sequence[tuple[int, int]], seen: Encoded) -> Array:
    found = np.asarray(ends)
    if found.ndim != 2 or found.shape[1:] != (2,) or found.dtype.kind not in "iu" or not len(found):
        raise InputError(f"ends: got {ends}, must be pairs of indices of test images")
    if found.min() < 0 or found.max() >= len(seen.y):
        raise InputError(f"ends: got {ends}, must be indices in [0, {len(seen.y) - 1}] of test images")
    if (seen.y[found[:, 0]] != seen.y[found[:, 1]]).any():
        raise InputError(f"ends: got {ends}, must be pairs of one class each")
    return found
