"""Detectors that need training images learn from those of a data set."""

from __future__ import annotations

import torch

from ..data import Dataset
from ..detectors import FittedDetector, parts
from ..types import InputError
from .classifier import DefendedClassifier

FITTED_ON = 10_000
"""Training images that a detector learns from, at most: a random sample, the same every time."""


def fit_to(defended: DefendedClassifier, data: Dataset) -> None:
    """Let the detectors that need training images, and have learned from none yet, learn from those of a data set.

    Raises:
        InputError: there is such a detector, and the data set has no training images.
    """
    check_fits_to(defended, data)
    if learning := unfitted(defended):
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))
        sample = data.train.pick(order[:FITTED_ON])
        for part in learning:
            DefendedClassifier(defended.model, part).fit(sample)


def check_fits_to(defended: DefendedClassifier, data: Dataset) -> None:
    """Whether a data set has the training images that a detector needs.

    Raises:
        InputError: it has none, and one is needed.
    """
    if not len(data.train) and (learning := unfitted(defended)):
        raise InputError(
            f"detector: got {learning[0].name}, which learns from training images, and {data.name} has none; must be "
            "another, or fitted before: DefendedClassifier(model, detector).fit(x_train, y_train)"
        )


def unfitted(defended: DefendedClassifier) -> list[FittedDetector]:
    """The parts of its detector that need training images and have learned from none yet."""
    return [part for part in parts(defended.detector) if isinstance(part, FittedDetector) and not part.is_fitted]
