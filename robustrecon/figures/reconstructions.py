"""Figures 3 and 4 of the paper: reconstructions of images that are classified correctly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import Dataset
from ..models import EnergyModel
from .base import Array, Drawable, Measure, check_count
from .encoding import checked, decode, distance, distances, encode, farthest_pairs
from .sheets import short, show


@dataclass(frozen=True)
class Reconstruction(Drawable):
    """Images with their reconstructions, two styles of each class, and distances between images and reconstructions.

    Attributes:
        originals, drawings: (S, C, H, W) images that are shown, and their reconstructions.
        names: (S,) their classes.
        error: (N,) Euclidean distances ‖x̂ − x‖₂ between test images and their reconstructions.
        correct: (N,) whether the predicted label is the true one.
        to_mean: (N,) distances from the reconstructions to the mean training image of the predicted label.
        input_to_mean: (N,) distances from the images to that mean image.
        rank: (N,) how many test images of the same class are nearer to the reconstruction than its own image.
    """

    originals: Array
    drawings: Array
    names: tuple[str, ...]
    error: Array
    correct: Array
    to_mean: Array
    input_to_mean: Array
    rank: Array

    @property
    def measures(self) -> dict[str, Measure]:
        correct = self.correct
        return {
            "reconstruction_error": Measure.mean(self.error),
            "reconstruction_error_where_right": Measure.mean(self.error[correct]),
            "drawing_to_class_mean_where_right": Measure.mean(self.to_mean[correct]),
            "drawing_nearer_to_input_than_to_class_mean": Measure.share((self.error < self.to_mean)[correct]),
            "drawing_nearer_to_input_than_class_mean_is": Measure.share((self.error < self.input_to_mean)[correct]),
            "own_input_is_nearest_of_its_class": Measure.share(self.rank[correct] == 0),
        }

    @property
    def caption(self) -> str:
        m = self.measures
        error, own = m["reconstruction_error"], m["drawing_nearer_to_input_than_class_mean_is"]
        return (
            "Top row: test images that are classified correctly, in two styles of each class. Bottom row: their "
            f"reconstructions. ‖x̂ − x‖₂ = {error.value:.2f} ± {error.spread:.2f} over n = {error.n:,} test images. Of "
            f"the correctly classified images, {own.value:.1%} are nearer to their reconstruction than to the mean "
            f"image of their class, and for {m['own_input_is_nearest_of_its_class'].value:.1%} no other test image of "
            "the class is nearer to the reconstruction."
        )

    def plot(self, ax: Any) -> None:
        show(ax, np.stack([self.originals, self.drawings]), rows=("image", "reconstruction"), columns=self.names)


def reconstruction(model: EnergyModel, data: Dataset, classes: int = 5, seed: int = 0) -> Reconstruction:
    """Reconstruct test images: two of each of `classes` classes are shown, the most different in style of 100.

    The decoder gets the network's own output: the softmax of its class neurons and its style memory.
    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, figures 3 and 4.

    Raises:
        InputError: a model without a decoder or for other data, or a class with fewer than two images to show.
    """
    check_count(classes, "classes")
    network = checked(model, data)
    encoded = encode(network, data.test)
    drawn = decode(network, encoded.probabilities, encoded.style)
    means = np.stack([_mean(data, k) for k in range(data.n_classes)])[encoded.predicted]
    error = distance(drawn, encoded.x)
    rank = np.empty(len(error), dtype=int)
    for k in range(data.n_classes):
        own = np.flatnonzero(encoded.y == k)
        if len(own):
            rank[own] = (distances(drawn[own], encoded.x[own]) < error[own, None] * (1 - 1e-6)).sum(1)
    labels = np.linspace(0, data.n_classes - 1, min(classes, data.n_classes)).round().astype(int)
    shown = farthest_pairs(encoded, data.classes, labels, seed).flatten()
    return Reconstruction(
        encoded.x[shown],
        drawn[shown],
        tuple(short(data.classes[k]) for k in encoded.y[shown]),
        error,
        encoded.correct,
        distance(drawn, means),
        distance(encoded.x, means),
        rank,
    )


def _mean(data: Dataset, label: int) -> Array:
    """The mean training image (C, H, W) of a class; black for a class without images."""
    images = data.train.images[data.train.y == label].double()
    return np.asarray((images.sum(0) / max(1, len(images)) / 255).float().numpy())
