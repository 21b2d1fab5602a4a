"""Distance of the features to the nearest class, in units of how the features of a class vary."""

from __future__ import annotations

from torch import Tensor

from .features import FeatureDetector, nearest, whitening


class Mahalanobis(FeatureDetector):
    """min over k of (z − μ[k])ᵀ Σ⁻¹ (z − μ[k]) of features z; μ are the class means, Σ the covariance within classes.

    K. Lee, K. Lee, H. Lee, J. Shin, "A Simple Unified Framework for Detecting Out-of-Distribution Samples and
    Adversarial Attacks", NeurIPS 2018; of one layer, and without the step that makes the input less suspicious first.
    Directions in which training features do not vary are left out (pseudo-inverse).
    """

    name = "mahalanobis"
    centre: Tensor
    means: Tensor
    within: Tensor

    def learned(self, features: Tensor, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        return class_statistics(features, y)

    def judged(self, features: Tensor, logits: Tensor) -> Tensor:
        return class_distance(features - self.centre, self.means, self.within)


def class_statistics(features: Tensor, y: Tensor) -> dict[str, Tensor]:
    """What `class_distance` needs, from features (N, D) and labels (N,).

    `centre` (D,) is the mean of all; `within` (D, r) whitens deviations from the class means; `means` (K, r) are the
    class means less the centre, whitened, of the classes that occur.
    """
    centre = features.mean(0)
    present, which = y.unique(return_inverse=True)
    totals = features.new_zeros(len(present), features.shape[1]).index_add_(0, which, features)
    means = totals / which.bincount()[:, None]
    within = whitening(features - means[which])
    return {"centre": centre, "means": (means - centre) @ within, "within": within}


def class_distance(centred: Tensor, means: Tensor, within: Tensor) -> Tensor:
    """(B,) squared Mahalanobis distance of features (B, D), less their centre, to the nearest class mean."""
    white = centred @ within
    return (white - means[nearest(white, means, 1)]).square().sum(1)
