"""What a benchmark reports, from labels, scores and rejections alone; the definitions are the README's.

AUROC and ROC curves come from scikit-learn, Clopper-Pearson intervals from scipy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from ..statistics import Flags, Rate
from ..types import InputError

Scores: TypeAlias = NDArray[np.float64]

FALSE_POSITIVE_RATES = ("0.01", "0.05", "0.10")


def measure(images: Mapping[str, Any], threshold: float) -> dict[str, Any]:
    """Every figure of a cell.

    Args:
        images: what happened to each of n images, as sequences of length n: `y` (true label), `clean_label`,
            `clean_score`, `label` and `score` (under attack).
        threshold: scores above it are rejected.

    Returns:
        `clean`, `attack`, `detection`, `robust_risk` and `intervals`, as numbers; None where a rate has no
        denominator.

    Raises:
        InputError: no images, or sequences of different lengths.
    """
    clean_score, score = _finite(images["clean_score"]), _finite(images["score"])
    if len({len(images[key]) for key in ("y", "clean_label", "label", "clean_score", "score")}) != 1 or not len(score):
        raise InputError("images: must be n > 0 labels and scores each")
    each = flags({"images": images, "detection": {"threshold": threshold}})
    fell = each.right & each.wrong
    rates = {
        "clean.accuracy": Rate(each.right),
        "clean.rejection_rate": Rate(each.rejected),
        "clean.accepted_accuracy": Rate(each.right, among=~each.rejected),
        "attack.accuracy": Rate(~each.wrong),
        "attack.success_rate": Rate(fell, among=each.right),
        "detection.undetected_success": Rate(each.undetected),
        "robust_risk": Rate(~each.right | each.rejected | each.undetected),
    }
    return {
        "clean": {
            "accuracy": rates["clean.accuracy"].value,
            "rejection_rate": rates["clean.rejection_rate"].value,
            "accepted_accuracy": rates["clean.accepted_accuracy"].value,
        },
        "attack": {
            "accuracy": rates["attack.accuracy"].value,
            "success_rate": rates["attack.success_rate"].value,
        },
        "detection": {
            "auroc_success": _auroc(clean_score, score[fell]),
            "auroc_all": _auroc(clean_score, score),
            "tpr_at_fpr": _tpr_at_fpr(clean_score, score[fell]),
            "undetected_success": rates["detection.undetected_success"].value,
            "threshold": threshold,
        },
        "robust_risk": rates["robust_risk"].value,
        "intervals": {name: rate.interval for name, rate in rates.items()},
    }


@dataclass(frozen=True)
class ImageFlags:
    """What is true of each of n images, as (n,) booleans.

    Attributes:
        right: classified correctly when clean.
        rejected: when clean.
        wrong: a wrong label under attack.
        undetected: a wrong label under attack, and accepted.
    """

    right: Flags
    rejected: Flags
    wrong: Flags
    undetected: Flags


def flags(result: Mapping[str, Any]) -> ImageFlags:
    """What is true of each image of a cell's result, from its `images` and its detector's threshold."""
    images, threshold = result["images"], result["detection"]["threshold"]
    y, clean_label, label = (np.asarray(images[key]) for key in ("y", "clean_label", "label"))
    rejected, caught = (_finite(images[key]) > threshold for key in ("clean_score", "score"))
    return ImageFlags(clean_label == y, rejected, label != y, (label != y) & ~caught)


def roc(clean_score: Any, score: Any, corners: bool = False) -> tuple[Scores, Scores]:
    """False and true positive rates of telling adversarial scores (positives) from clean ones.

    At every threshold, or only the `corners`, between which the curve is straight.
    """
    clean, adversarial = _finite(clean_score), _finite(score)
    truth = np.r_[np.zeros(len(clean)), np.ones(len(adversarial))]
    fpr, tpr, _ = roc_curve(truth, np.r_[clean, adversarial], drop_intermediate=corners)
    return fpr, tpr


def roc_of_successes(result: Mapping[str, Any]) -> tuple[Scores, Scores] | None:
    """The corners of a cell's ROC, clean images against successful attacks; None where none succeeded."""
    each, images = flags(result), result["images"]
    fell = each.right & each.wrong
    return roc(images["clean_score"], _finite(images["score"])[fell], corners=True) if fell.any() else None


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


def _finite(scores: Any) -> Scores:
    """A score that is not a number is as suspicious as can be."""
    return np.nan_to_num(np.asarray(scores, dtype=np.float64), nan=float(np.finfo(np.float64).max))
