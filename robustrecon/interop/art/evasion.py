"""A detector of this library as an evasion detector of the Adversarial Robustness Toolbox."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from art.defences.detector.evasion import EvasionDetector
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import nn

from ...defence import DefendedClassifier
from ...detectors import AnyOf, Detector, FittedDetector, Score, calibrate, images_needed, parts, shares_of
from ...types import InputError, check_fraction, unknown_name
from .imported import ArtClassifier


class ReconstructionDetector(EvasionDetector):  # type: ignore[misc]  # ART has no types
    """An ART detector that rejects at most a share `alpha` of clean images.

    Args:
        classifier: ART's `PyTorchClassifier`, a `torch.nn.Module` that gives logits, or a `DefendedClassifier`, whose
            detector and calibration then are the default. It is shared, not copied.
        detector: as for `DefendedClassifier`.
        alpha: bound on the false-alarm rate, in (0, 1); by default that of the calibration, or 0.05.

    Attributes:
        defended: the `DefendedClassifier` that decides.

    Raises:
        InputError: an argument out of its range, or a classifier that lacks what the detector needs.
    """

    defence_params = ["classifier", "detector", "alpha"]  # noqa: RUF012 - as ART has it

    def __init__(
        self,
        classifier: PyTorchClassifier | nn.Module | DefendedClassifier,
        detector: str | Detector | AnyOf | Score | None = None,
        alpha: float | None = None,
    ) -> None:
        super().__init__()
        self.classifier, self.detector, self.alpha = classifier, detector, alpha
        self._made_of: tuple[Any, Any] | None = None
        self._check_params()

    def fit(self, x: Any, y: Any = None, batch_size: int = 128, nb_epochs: int = 20, **kwargs: Any) -> None:
        """Calibrate on clean images that the classifier was not trained on; nothing is trained by gradient.

        A detector that needs training images learns from a random half of them, and is calibrated on the other.

        Args:
            x: (n, C, H, W) clean images in [0, 1].
            y: (n,) class labels, or (n, K) one-hot; only for detectors that learn from images.
            batch_size, nb_epochs, kwargs: not used; they are there for ART's interface.

        Raises:
            InputError: bad images, too few of them for alpha, or missing labels.
        """
        if any(isinstance(part, FittedDetector) and not part.is_fitted for part in parts(self.defended.detector)):
            if y is None:
                raise InputError("y: got None, must be the class labels, which the detector learns from")
            x, labels = np.asarray(x), np.asarray(y)
            labels = labels.argmax(1) if labels.ndim == 2 else labels
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).numpy()
            half = order[: len(x) // 2]
            self.defended.fit(x[half], torch.from_numpy(labels[half]))
            x = x[order[len(x) // 2 :]]
        self.defended.calibrate(x, self._alpha)

    def detect(self, x: Any, batch_size: int = 128, **kwargs: Any) -> tuple[dict[str, Any], NDArray[np.bool_]]:
        """Judge images (B, C, H, W) in [0, 1].

        Args:
            x: the images.
            batch_size: how many to judge at a time.
            kwargs: not used.

        Returns:
            A report and (B,) whether each image is rejected. The report has `scores` (B,), higher is more suspicious,
            `predictions` (B,), the labels, of rejected images too, and `threshold`, above which a score is rejected.

        Raises:
            InputError: not fitted, or bad images.
        """
        verdict = self.defended.inspect([x[start : start + batch_size] for start in range(0, len(x), batch_size)])
        report = {
            "scores": verdict.score.numpy(),
            "predictions": verdict.label.numpy(),
            "threshold": self.defended.threshold,
        }
        return report, verdict.rejected.numpy()

    def set_params(self, **kwargs: Any) -> None:
        """Change parameters; another `alpha` moves the threshold at once, other ones must be fitted anew.

        Raises:
            InputError: an unknown parameter or a bad value; nothing is changed then.
        """
        for name in kwargs:
            if name not in self.defence_params:
                unknown_name("set_params", name, self.defence_params)
        before = self.get_params()
        try:
            super().set_params(**kwargs)
        except InputError:
            self.__dict__.update(before)
            raise

    @property
    def _alpha(self) -> float:
        return 0.05 if self.alpha is None else self.alpha

    def _check_params(self) -> None:
        if self.alpha is not None:
            check_fraction(self.alpha, "alpha")
        if self._made_of is None or any(
            new is not old for new, old in zip((self.classifier, self.detector), self._made_of, strict=True)
        ):
            self.defended = _defended(self.classifier, self.detector)
            self._made_of = self.classifier, self.detector
        calibration = self.defended.calibration
        if calibration is not None and self.alpha not in (None, calibration.alpha):
            shares = shares_of(self.defended.detector)
            if len(calibration.scores) < (needed := images_needed(self._alpha, shares)):
                raise InputError(
                    f"alpha: got {self.alpha}, which needs {needed} calibration images, and there are "
                    f"{len(calibration.scores)}; must be larger"
                )
            moved = calibrate(calibration.scores, self._alpha, shares)
            self.defended.set_calibration(moved, self.defended.image_shape)


def _defended(classifier: Any, detector: Any) -> DefendedClassifier:
    if isinstance(classifier, PyTorchClassifier):
        classifier = ArtClassifier.of(classifier)
    if not isinstance(classifier, DefendedClassifier):
        return DefendedClassifier(classifier, detector)
    made = DefendedClassifier(classifier.model, classifier.detector if detector is None else detector)
    if detector is None and classifier.calibration is not None:
        made.set_calibration(classifier.checked_calibration(), classifier.image_shape)
    made.classes = classifier.classes
    return made
