"""Figures 3 and 4: what the network draws of what it classified correctly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import Dataset
from ..models import EnergyModel
from .base import Array, Drawable, Measure, check_count
from .encoding import checked, decode, distance, distances, encode, farthest
from .sheets import short, show


@dataclass(frozen=True)
class Reconstruction(Drawable):
    """Images beside what the network draws of them, two styles of a class side by side, and how near these come.

    Attributes:
        originals, drawings: (S, C, H, W) of the images that are shown.
        names: (S,) their classes.
        error: (N,) Euclidean distances ‖x̂ − x‖₂ of test images to their drawings, from the network's own output.
        right: (N,) whether the label is right.
        to_mean: (N,) of drawings to the mean training image of the predicted label.
        input_to_mean: (N,) of the images themselves to that mean image.
        rank: (N,) how many test images of the same class are nearer to the drawing than its own image.
    """

    originals: Array
    drawings: Array
    names: tuple[str, ...]
    error: Array
    right: Array
    to_mean: Array
    input_to_mean: Array
    rank: Array

    @property
    def measures(self) -> dict[str, Measure]:
        right = self.right
        return {
            "reconstruction_error": Measure.mean(self.error),
            "reconstruction_error_where_right": Measure.mean(self.error[right]),
            "drawing_to_class_mean_where_right": Measure.mean(self.to_mean[right]),
            "drawing_nearer_to_input_than_to_class_mean": Measure.share((self.error < self.to_mean)[right]),
            "drawing_nearer_to_input_than_class_mean_is": Measure.share((self.error < self.input_to_mean)[right]),
            "own_input_is_nearest_of_its_class": Measure.share(self.rank[right] == 0),
        }

    @property
    def caption(self) -> str:
        m = self.measures
        error, own = m["reconstruction_error"], m["drawing_nearer_to_input_than_class_mean_is"]
        return (
            "Above test images that are classified correctly, below what the network draws of them; each class in two "
            f"styles. ‖x̂ − x‖₂ = {error.value:.2f} ± {error.spread:.2f} over n = {error.n:,} images. Under a right "
            f"label {own.value:.1%} of the drawings are nearer to their image than the mean image of the class is, and "
            f"for {m['own_input_is_nearest_of_its_class'].value:.1%} no other test image of the class is nearer."
        )

    def plot(self, ax: Any) -> None:
        show(ax, np.stack([self.originals, self.drawings]), rows=("image", "drawing"), columns=self.names)


def reconstruction(model: EnergyModel, data: Dataset, classes: int = 5, seed: int = 0) -> Reconstruction:
    """Draw test images again, two for each of `classes` classes, that differ in style as much as any of 100 do.

    The network draws from its own output, the softmax of its class neurons and its style memory.
    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, figures 3 and 4.

    Raises:
        InputError: a model without a decoder or for other data, or a class with fewer than two images to show.
    """
    check_count(classes, "classes")
    network = checked(model, data)
    seen = encode(network, data.test)
    drawn = decode(network, seen.probabilities, seen.style)
    means = np.stack([_mean(data, k) for k in range(data.n_classes)])[seen.predicted]
    error = distance(drawn, seen.x)
    rank = np.empty(len(error), dtype=int)
    for k in range(data.n_classes):
        own = np.flatnonzero(seen.y == k)
        if len(own):
            rank[own] = (distances(drawn[own], seen.x[own]) < error[own, None] * (1 - 1e-6)).sum(1)
    labels = np.linspace(0, data.n_classes - 1, min(classes, data.n_classes)).round().astype(int)
    shown = farthest(seen, data.classes, labels, seed).flatten()
    return Reconstruction(
        seen.x[shown],
        drawn[shown],
        tuple(short(data.classes[k]) for k in seen.y[shown]),
        error,
        seen.right,
        distance(drawn, means),
        distance(seen.x, means),
        rank,
    )


def _mean(data: Dataset, label: int) -> Array:
    """The mean training image (C, H, W) of a class; black where it has none."""
    images = data.train.images[data.train.y == label].double()
    return np.asarray((images.sum(0) / max(1, len(images)) / 255).float().numpy())
