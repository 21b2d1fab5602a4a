"""Figures 3 and 4: what the network draws of what it classified correctly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data import Dataset
from ..models import EnergyModel
from .base import Array, Drawable, Measure, checked, decode, distance, encode, farthest, short, show


@dataclass(frozen=True)
class Reconstruction(Drawable):
    """Images beside what the network draws of them, two styles of a class side by side, and how near these come.

    Attributes:
        originals, drawings: (S, C, H, W) of the images that are shown.
        names: (S,) their classes.
        own: (N,) Euclidean distances of test images to their drawing under the predicted label.
        generic: (N,) of those drawings to the mean training image of that label, NaN where the label is wrong.
    """

    originals: Array
    drawings: Array
    names: tuple[str, ...]
    own: Array
    generic: Array

    @property
    def measures(self) -> dict[str, Measure]:
        right = ~np.isnan(self.generic)
        own, generic = self.own[right], self.generic[right]
        return {
            "reconstruction_error": Measure.mean(self.own),
            "distance_to_own_input": Measure.mean(own),
            "distance_to_class_mean": Measure.mean(generic),
            "nearer_to_own_input": Measure.mean(own < generic),
        }

    @property
    def caption(self) -> str:
        m = self.measures
        return (
            "Above test images that are classified correctly, below what the network draws of them; each class in two "
            f"styles. ‖x̂ − x‖₂ = {m['reconstruction_error'].value:.2f} ± {m['reconstruction_error'].spread:.2f} "
            f"over n = {m['reconstruction_error'].n:,} images; {m['nearer_to_own_input'].value:.1%} of the drawings "
            f"under a right label are nearer to their own image than to the mean image of its class."
        )

    def plot(self, ax: Any) -> None:
        show(ax, np.stack([self.originals, self.drawings]), rows=("image", "drawing"), columns=self.names)


def reconstruction(model: EnergyModel, data: Dataset, classes: int = 5, seed: int = 0) -> Reconstruction:
    """Draw test images again, two for each of `classes` classes, that differ in style as much as any of 100 do.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, figures 3 and 4.

    Raises:
        InputError: a model without a decoder or for other data, or a class with fewer than two images to show.
    """
    network = checked(model, data)
    seen = encode(network, data.test)
    drawn = decode(network, seen.predicted, seen.style)
    means = np.stack([data.train.x[data.train.y == k].numpy().mean(0) for k in range(data.n_classes)])
    generic = distance(drawn, means[seen.predicted])
    generic[~seen.right] = np.nan
    labels = np.linspace(0, data.n_classes - 1, min(classes, data.n_classes)).round().astype(int)
    shown = farthest(seen, data.classes, labels, seed).flatten()
    return Reconstruction(
        seen.x[shown],
        drawn[shown],
        tuple(short(data.classes[k]) for k in seen.y[shown]),
        distance(drawn, seen.x),
        generic,
    )
