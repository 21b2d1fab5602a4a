"""Figures 9 to 11 of the paper: interpolation between two style memories of a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import Dataset
from ..models import EnergyModel
from ..types import InputError
from .base import Array, Drawable, Measure, check_count
from .encoding import Encoded, checked, decode, distances, encode, farthest_pairs, random_pairs
from .judge import Judge
from .sheets import short, show

CANDIDATES = 1000  # training images of each class among which the nearest one is searched


@dataclass(frozen=True)
class Paths:
    """How a judge sees P paths of T images, each path from one drawing of a class to another of the same class.

    Attributes:
        recognised: (P, T) whether the judge classifies the image as its class.
        steps: (P, T − 1) distance of each image to the next one, in the judge's features.
        to_nearest: (P,) distance from the middle image to the nearest training image of the class, in pixels.
    """

    recognised: Array
    steps: Array
    to_nearest: Array

    @property
    def largest_step(self) -> Array:
        """(P,) share of the largest step in the length of the path; 1 / (T − 1) if all steps are equal."""
        return np.asarray(self.steps.max(1) / np.maximum(self.steps.sum(1), 1e-12))


@dataclass(frozen=True)
class Interpolation(Drawable):
    """Interpolations m = λ m₁ + (1 − λ) m₂ between two style memories of a class.

    Attributes:
        weights: (T,) the λ, from 1 to 0.
        ends: (R, 2, C, H, W) the pairs of test images of a class that are shown.
        drawings: (R, T, C, H, W) the drawings of the interpolated styles between them.
        names: (R,) the classes.
        styles: the paths between random pairs of correctly classified test images, equally many pairs of each class.
        pixels: the paths between the same first and last drawings, interpolated pixel by pixel.
        accuracy: the judge's accuracy on test images.
    """

    weights: Array
    ends: Array
    drawings: Array
    names: tuple[str, ...]
    styles: Paths
    pixels: Paths
    accuracy: float

    @property
    def measures(self) -> dict[str, Measure]:
        found: dict[str, Measure] = {}
        for name, paths in (("interpolation", self.styles), ("pixel_mixture", self.pixels)):
            inner = paths.recognised[:, 1:-1]
            found |= {
                f"{name}_of_the_class": Measure.mean(inner.mean(1)),
                f"{name}_of_the_class_half_way": Measure.share(paths.recognised[:, paths.recognised.shape[1] // 2]),
                f"{name}_largest_step": Measure.mean(paths.largest_step),
                f"{name}_to_nearest_training_image": Measure.mean(paths.to_nearest),
            }
        return found

    @property
    def caption(self) -> str:
        m = self.measures

        def both(what: str) -> tuple[float, float]:
            return m[f"interpolation_{what}"].value, m[f"pixel_mixture_{what}"].value

        (share, share_pixels), (step, step_pixels) = both("of_the_class"), both("largest_step")
        nearest, nearest_pixels = both("to_nearest_training_image")
        return (
            "First and last column: two test images of a class. Between them: drawings of convex combinations of their "
            f"style memories. Over n = {len(self.styles.recognised):,} random pairs, with interpolated pixels in "
            f"brackets: an independent classifier (accuracy {self.accuracy:.1%} on test images) recognises the class "
            f"in {share:.1%} ({share_pixels:.1%}) of the drawings; the largest of {len(self.weights) - 1} steps is "
            f"{step:.2f} ({step_pixels:.2f}) of the path in its features; the middle drawing is {nearest:.2f} "
            f"({nearest_pixels:.2f}) from the nearest training image, in pixels."
        )

    def plot(self, ax: Any) -> None:
        sheet = np.concatenate([self.ends[:, :1], self.drawings, self.ends[:, 1:]], axis=1)
        columns = ("image", *(f"λ = {weight:.1f}" for weight in self.weights), "image")
        show(ax, sheet, rows=self.names, columns=columns)


def interpolation(
    model: EnergyModel,
    data: Dataset,
    judge: Judge,
    ends: Sequence[tuple[int, int]] | None = None,
    steps: int = 11,
    pairs: int = 1000,
    seed: int = 0,
) -> Interpolation:
    """Draw convex combinations of the style memories of two images of a class, and let `judge` classify the drawings.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, figures 9 to 11;
    T. Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019, for
    lengths of paths in a network's features.

    Args:
        judge: a classifier that was trained separately from the model; see `train_judge`.
        ends: pairs of indices of test images to show, both of one class; by default, for every class, the two of 100
            random images that differ most in style, such as A and a.
        steps: T, the number of drawings on a path.
        pairs: P, about how many random pairs are measured.

    Raises:
        InputError: a model without a decoder or for other data, a class with fewer than two correctly classified
            images, or `ends` that are no pairs of images of one class.
    """
    check_count(steps, "steps", least=3)
    check_count(pairs, "pairs")
    network = checked(model, data)
    encoded = encode(network, data.test)
    weights = np.linspace(1, 0, steps, dtype=np.float32)

    def drawn(chosen: Array) -> Array:
        styles = _interpolated(encoded.style[chosen], weights)
        labels = encoded.y[chosen[:, 0]].repeat(steps)
        return decode(network, labels, styles.reshape(len(labels), -1)).reshape(len(chosen), steps, *data.image_shape)

    labels = np.arange(data.n_classes)
    shown = farthest_pairs(encoded, data.classes, labels, seed) if ends is None else _checked_ends(ends, encoded)
    measured = random_pairs(encoded, data.classes, pairs, seed)
    paths, y = drawn(measured), encoded.y[measured[:, 0]]
    return Interpolation(
        weights,
        encoded.x[shown],
        drawn(shown),
        tuple(short(data.classes[k]) for k in encoded.y[shown[:, 0]]),
        _judged(judge, paths, y, data),
        _judged(judge, _interpolated(paths[:, [0, -1]], weights), y, data),
        judge.accuracy,
    )


def _interpolated(ends: Array, weights: Array) -> Array:
    """(P, T, ...) convex combinations of pairs (P, 2, ...) with weights (T,) of the first of a pair."""
    return np.stack([weight * ends[:, 0] + (1 - weight) * ends[:, 1] for weight in weights], axis=1)


def _judged(judge: Judge, paths: Array, y: Array, data: Dataset) -> Paths:
    """How the judge sees paths (P, T, C, H, W) of classes (P,)."""
    images = paths.reshape(-1, *paths.shape[2:])
    points = judge.features(images).reshape(*paths.shape[:2], -1)
    middle = paths[:, paths.shape[1] // 2]
    to_nearest = np.empty(len(y))
    for k in np.unique(y):
        candidates = data.train.images[data.train.y == int(k)][:CANDIDATES].numpy().astype(np.float32) / 255
        to_nearest[y == k] = distances(middle[y == k], candidates).min(1) if len(candidates) else np.nan
    return Paths(
        judge.labels(images).reshape(paths.shape[:2]) == y[:, None],
        np.linalg.norm(np.diff(points, axis=1), axis=2),
        to_nearest,
    )


def _checked_ends(ends: Sequence[tuple[int, int]], encoded: Encoded) -> Array:
    found = np.asarray(ends)
    if found.ndim != 2 or found.shape[1:] != (2,) or found.dtype.kind not in "iu" or not len(found):
        raise InputError(f"ends: got {ends}, must be pairs of indices of test images")
    if found.min() < 0 or found.max() >= len(encoded.y):
        raise InputError(f"ends: got {ends}, must be indices in [0, {len(encoded.y) - 1}] of test images")
    if (encoded.y[found[:, 0]] != encoded.y[found[:, 1]]).any():
        raise InputError(f"ends: got {ends}, must be pairs of one class each")
    return found
