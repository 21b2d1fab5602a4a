"""Figures 9 to 11: drawings of the way from one style memory of a class to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import Dataset
from ..models import EnergyModel
from .base import Array, Drawable, Measure, checked, decode, encode, farthest, pairs_within, short, show
from .judge import Judge


@dataclass(frozen=True)
class Interpolation(Drawable):
    """Ways m = (1 − λ) m₁ + λ m₂ between two style memories of a class, and what an independent network makes of them.

    Attributes:
        weights: (T,) the λ, from 0 to 1.
        ends: (K, 2, C, H, W) a pair of test images of each class, as far apart in style as any of 100.
        drawings: (K, T, C, H, W) the ways between them.
        names: (K,) the classes.
        kept: (P, T) whether the judge takes a drawing between random pairs for its class.
        kept_pixels: (P, T) the same of mixtures of the two images themselves.
        length, length_pixels: (P,) how long the way is in the judge's features, in lengths of the straight one: 1
            where it is as smooth as can be.
    """

    weights: Array
    ends: Array
    drawings: Array
    names: tuple[str, ...]
    kept: Array
    kept_pixels: Array
    length: Array
    length_pixels: Array

    @property
    def measures(self) -> dict[str, Measure]:
        return {
            "interpolations_of_the_class": _share(self.kept),
            "pixel_mixtures_of_the_class": _share(self.kept_pixels),
            "path_length": Measure.mean(self.length),
            "path_length_of_pixel_mixtures": Measure.mean(self.length_pixels),
        }

    @property
    def caption(self) -> str:
        m = self.measures
        return (
            "Between two test images (outermost) of a class, as different in style as any of 100, drawings of "
            "mixtures of their style memories. Over "
            f"n = {len(self.kept):,} random pairs an independent network takes "
            f"{m['interpolations_of_the_class'].value:.1%} of such drawings for their class, of mixtures of pixels "
            f"{m['pixel_mixtures_of_the_class'].value:.1%}; in its features the way is {m['path_length'].value:.2f} "
            f"times the straight one, of pixels {m['path_length_of_pixel_mixtures'].value:.2f}."
        )

    def plot(self, ax: Any) -> None:
        across = np.concatenate([self.ends[:, :1], self.drawings, self.ends[:, 1:]], axis=1)
        columns = ("image", *(f"λ = {weight:.1f}" for weight in self.weights), "image")
        show(ax, across, rows=self.names, columns=columns)


def interpolation(
    model: EnergyModel, data: Dataset, judge: Judge, steps: int = 11, pairs: int = 1000, seed: int = 0
) -> Interpolation:
    """Draw convex combinations of style memories within every class, and let `judge` say what it sees.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, figures 9 to 11;
    T. Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019, for
    lengths of ways in a network's features.

    Args:
        judge: a classifier that was trained apart from the model, see `train_judge`.
        steps: T, drawings from one end to the other.
        pairs: P, random pairs to measure on.

    Raises:
        InputError: a model without a decoder or for other data, or a class with fewer than two images.
    """
    network = checked(model, data)
    seen = encode(network, data.test)
    weights = np.linspace(0, 1, steps, dtype=np.float32)

    def between(values: Array, chosen: Array) -> Array:
        mixed = np.stack([(1 - weight) * values[chosen[:, 0]] + weight * values[chosen[:, 1]] for weight in weights])
        return np.asarray(mixed.swapaxes(0, 1))

    def drawn(chosen: Array) -> Array:
        styles = between(seen.style, chosen)
        labels = seen.y[chosen[:, 0]].repeat(steps)
        return decode(network, labels, styles.reshape(len(labels), -1)).reshape(len(chosen), steps, *data.image_shape)

    shown = farthest(seen, data.classes, np.arange(data.n_classes), seed)
    measured = pairs_within(seen, data.classes, pairs, seed)
    kept, length = _judged(judge, drawn(measured), seen.y[measured[:, 0]])
    kept_pixels, length_pixels = _judged(judge, between(seen.x, measured), seen.y[measured[:, 0]])
    return Interpolation(
        weights,
        seen.x[shown],
        drawn(shown),
        tuple(map(short, data.classes)),
        kept,
        kept_pixels,
        length,
        length_pixels,
    )


def _judged(judge: Judge, ways: Array, y: Array) -> tuple[Array, Array]:
    """Of ways (P, T, C, H, W) of classes (P,): flags (P, T), and lengths (P,) relative to the straight ones."""
    labels, features = judge(ways.reshape(-1, *ways.shape[2:]))
    points = features.reshape(*ways.shape[:2], -1)
    walked = np.linalg.norm(np.diff(points, axis=1), axis=2).sum(1)
    straight = np.linalg.norm(points[:, -1] - points[:, 0], axis=1)
    return labels.reshape(ways.shape[:2]) == y[:, None], walked / np.maximum(straight, 1e-9)


def _share(flags: Array) -> Measure:
    """The share, over pairs, whose own shares spread."""
    return Measure.mean(flags.mean(1))
