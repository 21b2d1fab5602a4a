"""A detector of suspicious images as an outlier detector of scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import OutlierMixin
from sklearn.cluster import KMeans
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ...types import InputError
from .base import ImageEstimator

if TYPE_CHECKING:
    from ...defence import DefendedClassifier
    from ...detectors import AnyOf, Detector, Score
    from ...training import Recipe


class ReconstructionDetector(OutlierMixin, ImageEstimator):  # type: ignore[misc]
    """The detector of a `DefendedClassifier` for scikit-learn: at most a share `alpha` of clean rows are outliers.

    A network that is trained in `fit` learns to draw the classes in y; without y, those of a k-means clustering. What
    scikit-learn calls a score is higher for inliers: minus the score of the rest of this library.

    Args:
        model, detector, alpha, recipe, image_shape, pixel_range, calibration_size, random_state: as for
            `DefendedClassifierEstimator`.
        n_clusters: how many classes to find where y is not given.

    Attributes:
        offset_: minus the threshold: `decision_function` is `score_samples` less the offset.
        defended_, image_shape_, pixel_range_, n_features_in_: as those of `DefendedClassifierEstimator`.
    """

    def __init__(
        self,
        model: str | nn.Module | DefendedClassifier | None = None,
        detector: str | Detector | AnyOf | Score | None = None,
        *,
        alpha: float = 0.05,
        recipe: str | Recipe | None = None,
        n_clusters: int = 10,
        image_shape: Sequence[int] | None = None,
        pixel_range: tuple[float, float] | None = None,
        calibration_size: float = 0.2,
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.detector = detector
        self.alpha = alpha
        self.recipe = recipe
        self.n_clusters = n_clusters
        self.image_shape = image_shape
        self.pixel_range = pixel_range
        self.calibration_size = calibration_size
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike | None = None) -> ReconstructionDetector:
        """Train where no model is given, and calibrate; returns self.

        Args:
            X: (n, pixels), (n, H, W) or (n, C, H, W), clean.
            y: (n,) labels, if there are any. A given model needs them only for a detector that learns from them.

        Raises:
            InputError: an argument out of its range, too few rows for alpha, labels that are no classes of the model.
            ValueError: values that are not finite, or of another type; what scikit-learn says of these.
        """
        if self.n_clusters < 1:
            raise InputError(f"n_clusters: got {self.n_clusters}, must be at least 1")
        rows, y = self._begin(X, y)

        def labels(chosen: NDArray[np.intp]) -> NDArray[np.intp]:
            if y is not None:
                check_classification_targets(y)
                return self._encoded(np.asarray(y))[1][chosen]
            if self._given is not None:
                raise InputError("y: got None, must be the labels, which the detector learns from")
            n_clusters = min(self.n_clusters, len(np.unique(rows[chosen], axis=0)))
            return KMeans(n_clusters, n_init=1, random_state=0).fit_predict(rows[chosen])

        self._fit(rows, labels)
        self.offset_ = -self.defended_.threshold
        return self

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """(n,) minus the detector's score: lower is more suspicious; errors as of `inspect`."""
        return -self.inspect(X).score.double().numpy()

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """(n,) below 0 for outliers: `score_samples` less `offset_`; errors as of `inspect`."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """(n,) 1 for inliers, −1 for outliers; errors as of `inspect`."""
        check_is_fitted(self)
        return np.where(self.inspect(X).rejected.numpy(), -1, 1)
