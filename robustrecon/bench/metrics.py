"""The figures of a benchmark, computed from labels and scores alone; the README defines them.

AUROC and ROC curves come from scikit-learn, Clopper-Pearson intervals from scipy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from ..statistics import Rate
from .fields import Fields, Interval, Json, interval, number, optional
from .images import Images, Scores, as_scores

FALSE_POSITIVE_RATES = ("0.01", "0.05", "0.10")


@dataclass(frozen=True)
class Metrics:
    """The figures of a cell; a rate is None where it is a share of no images.

    Attributes:
        clean_accuracy, clean_rejection_rate: on the clean images.
        accepted_accuracy: on the clean images that are accepted.
        accuracy: under attack; an image that was wrong when clean counts as wrong.
        success_rate: share of the images classified correctly when clean that end with a wrong label.
        auroc_success, auroc_all: of the score, clean images against successful, and against all attacked ones.
        tpr_at_fpr: true positive rate on successful attacks at a false positive rate of at most "0.01", ...
        undetected_success: share of all images that end with a wrong label and are accepted.
        threshold: scores above it are rejected.
        robust_risk: share of images that are wrong or rejected when clean, or end wrong and accepted.
        intervals: 95 % Clopper-Pearson intervals of the rates, by their names in the stored file.
    """

    clean_accuracy: float
    clean_rejection_rate: float
    accepted_accuracy: float | None
    accuracy: float
    success_rate: float | None
    auroc_success: float | None
    auroc_all: float | None
    tpr_at_fpr: Mapping[str, float | None]
    undetected_success: float
    threshold: float
    robust_risk: float
    intervals: Mapping[str, Interval | None]

    def to_json(self) -> dict[str, Json]:
        """`clean`, `attack`, `detection`, `robust_risk` and `intervals`."""
        return {
            "clean": {
                "accuracy": self.clean_accuracy,
                "rejection_rate": self.clean_rejection_rate,
                "accepted_accuracy": self.accepted_accuracy,
            },
            "attack": {"accuracy": self.accuracy, "success_rate": self.success_rate},
            "detection": {
                "auroc_success": self.auroc_success,
                "auroc_all": self.auroc_all,
                "tpr_at_fpr": dict(self.tpr_at_fpr),
                "undetected_success": self.undetected_success,
                "threshold": self.threshold,
            },
            "robust_risk": self.robust_risk,
            "intervals": {name: list(ends) if ends else None for name, ends in self.intervals.items()},
        }

    @classmethod
    def from_json(cls, given: Fields) -> Metrics:
        """What `to_json` gave, from among the fields of a cell.

        Raises:
            WrongJson: a missing key or a value of another type.
        """
        clean, attack, detection = (given.inner(key) for key in ("clean", "attack", "detection"))
        return cls(
            clean_accuracy=clean.number("accuracy"),
            clean_rejection_rate=clean.number("rejection_rate"),
            accepted_accuracy=clean.maybe_number("accepted_accuracy"),
            accuracy=attack.number("accuracy"),
            success_rate=attack.maybe_number("success_rate"),
            auroc_success=detection.maybe_number("auroc_success"),
            auroc_all=detection.maybe_number("auroc_all"),
            tpr_at_fpr=detection.mapping("tpr_at_fpr", optional(number)),
            undetected_success=detection.number("undetected_success"),
            threshold=detection.number("threshold"),
            robust_risk=given.number("robust_risk"),
            intervals=given.mapping("intervals", optional(interval)),
        )


def measure(images: Images, threshold: float) -> Metrics:
    """Every figure of a cell.

    Args:
        images: what happened to each image.
        threshold: scores above it are rejected.
    """
    clean_score, score = as_scores(images.clean_score), as_scores(images.score)
    flags = images.flags(threshold)
    rates = {
        "clean.accuracy": Rate(flags.correct),
        "clean.rejection_rate": Rate(flags.rejected),
        "clean.accepted_accuracy": Rate(flags.correct, among=~flags.rejected),
        "attack.accuracy": Rate(~flags.misclassified),
        "attack.success_rate": Rate(flags.broken, among=flags.correct),
        "detection.undetected_success": Rate(flags.undetected),
        "robust_risk": Rate(flags.at_risk_when_clean | flags.undetected),
    }
    return Metrics(
        clean_accuracy=share(rates["clean.accuracy"]),
        clean_rejection_rate=share(rates["clean.rejection_rate"]),
        accepted_accuracy=rates["clean.accepted_accuracy"].value,
        accuracy=share(rates["attack.accuracy"]),
        success_rate=rates["attack.success_rate"].value,
        auroc_success=_auroc(clean_score, score[flags.broken]),
        auroc_all=_auroc(clean_score, score),
        tpr_at_fpr=_tpr_at_fpr(clean_score, score[flags.broken]),
        undetected_success=share(rates["detection.undetected_success"]),
        threshold=threshold,
        robust_risk=share(rates["robust_risk"]),
        intervals={name: ends(rate) if rate.interval else None for name, rate in rates.items()},
    )


def share(rate: Rate) -> float:
    """The value of a rate among at least one image."""
    assert rate.value is not None
    return rate.value


def ends(rate: Rate) -> Interval:
    """The interval of a rate among at least one image."""
    assert rate.interval is not None
    low, high = rate.interval
    return low, high


def roc(
    clean_score: Sequence[float] | Scores, score: Sequence[float] | Scores, corners: bool = False
) -> tuple[Scores, Scores]:
    """False and true positive rates of telling adversarial scores (positives) from clean ones.

    At every threshold, or only the `corners`, between which the curve is straight.
    """
    clean, adversarial = as_scores(clean_score), as_scores(score)
    truth = np.r_[np.zeros(len(clean)), np.ones(len(adversarial))]
    fpr, tpr, _ = roc_curve(truth, np.r_[clean, adversarial], drop_intermediate=corners)
    return fpr, tpr


def roc_of_successes(images: Images, threshold: float) -> tuple[Scores, Scores] | None:
    """The corners of a cell's ROC, clean images against successful attacks; None where none succeeded."""
    broken = images.flags(threshold).broken
    return roc(images.clean_score, as_scores(images.score)[broken], corners=True) if broken.any() else None


def _auroc(clean: Scores, adversarial: Scores) -> float | None:
    if not len(adversarial):
        return None
    truth = np.r_[np.zeros(len(clean)), np.ones(len(adversarial))]
    return float(roc_auc_score(truth, np.r_[clean, adversarial]))


def _tpr_at_fpr(clean: Scores, adversarial: Scores) -> dict[str, float | None]:
    """The highest true positive rate on successful attacks at a false positive rate of at most each bound."""
    if not len(adversarial):
        return dict.fromkeys(FALSE_POSITIVE_RATES)
    fpr, tpr = roc(clean, adversarial)
    return {bound: float(tpr[fpr <= float(bound)].max()) for bound in FALSE_POSITIVE_RATES}
