"""A defended classifier as an estimator of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from torch import nn

from ...runtime import batched, device_of, evaluating
from ...types import InputError
from .base import ImageEstimator

if TYPE_CHECKING:
    from ...defence import DefendedClassifier
    from ...detectors import AnyOf, Detector, Score
    from ...training import Recipe


class DefendedClassifierEstimator(ClassifierMixin, ImageEstimator):  # type: ignore[misc]
    """A `DefendedClassifier` for scikit-learn: `fit` trains a network, or takes one that is trained, and calibrates it.

    A part of the rows, drawn at random, is kept from training to calibrate on. A network that is given is calibrated on
    all of them, so they must not be those that it was trained on.

    `predict` gives the label of every input, or `reject_label` where the input is rejected; `score` counts those as
    wrong. `inspect` gives scores and p-values, and `defended_` is there to be attacked and saved.

    Args:
        model: None or a name of `MODELS` for a network that `fit` trains; else a `torch.nn.Module` that gives logits, a
            `DefendedClassifier` (then its detector is the default), or the file, folder or shipped name of either. It
            is shared, not copied.
        detector: as for `DefendedClassifier`. One that needs training images learns from the rows that are not
            calibrated on.
        alpha: bound on the false-alarm rate, in (0, 1).
        recipe: how to train: a name of `RECIPES`, or a `Recipe`; by default that of the model's name, or "fast".
        reject_label: what `predict` gives for rejected inputs, a label that is no class and of the classes' type; None
            for the network's label, rejected or not: then only `inspect` tells.
        classes: the labels that the outputs of a given model stand for, in their order; by default the names that it
            has, where y is text, or 0 to K − 1.
        image_shape: (C, H, W) of rows; by default the model's, or else (1, s, s), filled up with zeros where the
            number of pixels is no square.
        pixel_range: the values of black and white. By default (0, 1) for a given model, and for one that is trained the
            least and the largest value in `fit`, to which later ones are clipped.
        calibration_size: share of the rows to calibrate on where some are learned from.
        random_state: an int, a `RandomState`, or None: which rows are calibrated on, and the training.

    Attributes:
        defended_: the `DefendedClassifier`.
        classes_: (K,) the labels, sorted.
        image_shape_: (C, H, W) of the images.
        pixel_range_: the values of black and white.
        n_features_in_: how many numbers a row has.
    """

    def __init__(
        self,
        model: str | nn.Module | DefendedClassifier | None = None,
        detector: str | Detector | AnyOf | Score | None = None,
        *,
        alpha: float = 0.05,
        recipe: str | Recipe | None = None,
        reject_label: Any = -1,
        classes: Sequence[Any] | None = None,
        image_shape: Sequence[int] | None = None,
        pixel_range: tuple[float, float] | None = None,
        calibration_size: float = 0.2,
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.detector = detector
        self.alpha = alpha
        self.recipe = recipe
        self.reject_label = reject_label
        self.classes = classes
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.calibration_size = calibration_size
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> DefendedClassifierEstimator:
        """Train where no model is given, and calibrate; returns self.

        Args:
            X: (n, pixels), (n, H, W) or (n, C, H, W).
            y: (n,) labels, numbers or text.

        Raises:
            InputError: an argument out of its range, too few rows for alpha, labels that are no classes of the model.
            ValueError: values that are not finite, or of another type; what scikit-learn says of these.
        """
        if y is None:
            raise InputError("DefendedClassifierEstimator requires y to be passed, but the target y is None")
        rows, y = self._begin(X, y)
        check_classification_targets(y)
        order, indices = self._encoded(np.asarray(y), self.classes)
        if len(order) < 2:
            raise InputError(f"y: has 1 class, {order.tolist()}, must have at least 2 classes")
        _check_reject_label(self.reject_label, order)
        self._order, self.classes_ = order, np.sort(order)
        self._fit(rows, lambda chosen: indices[chosen])
        return self

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """(n,) labels; `reject_label`, unless it is None, where the input is rejected; errors as of `inspect`."""
        verdict = self.inspect(X)
        labels = self._order[verdict.label.numpy()]
        if self.reject_label is None:
            return labels
        return np.where(verdict.rejected.numpy(), np.asarray(self.reject_label), labels)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """(n, K) the softmax of the logits, in the order of `classes_`, for rejected inputs too; errors as before."""
        images = self._checked_images(X)
        network = self.defended_
        with evaluating(network):
            (found,) = batched(lambda part: (network(part.to(device_of(network))).softmax(1).cpu(),), images)
        return found[:, torch.from_numpy(np.argsort(self._order))].numpy()


def _check_reject_label(label: Any, classes: NDArray[Any]) -> None:
    if label is None:
        return
    kinds = ("number", "text")
    of_classes, own = (kinds[np.asarray(value).dtype.kind in "US"] for value in (classes.tolist(), label))
    if own != of_classes:
        raise InputError(f"reject_label: got {label!r}, must be a {of_classes}, as the classes are, or None")
    if label in classes:
        raise InputError(f"reject_label: got {label!r}, must not be a class")
