"""Distance of the features to the nearest class, less their distance to all images together."""

from __future__ import annotations

from torch import Tensor

from .features import FeatureDetector, whitening
from .mahalanobis import class_distance, class_statistics


class RelativeMahalanobis(FeatureDetector):
    """`mahalanobis` of features z, minus (z − μ₀)ᵀ Σ₀⁻¹ (z − μ₀); μ₀ and Σ₀ are of all features, whatever their class.

    J. Ren, S. Fort, J. Liu, A. G. Roy, S. Padhy, B. Lakshminarayanan, "A Simple Fix to Mahalanobis Distance for
    Improving Near-OOD Detection", ICML workshop on Uncertainty and Robustness in Deep Learning, 2021.
    """

    name = "relative_mahalanobis"
    centre: Tensor
    means: Tensor
    within: Tensor
    overall: Tensor

    def learned(self, features: Tensor, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        statistics = class_statistics(features, y)
        return {**statistics, "overall": whitening(features - statistics["centre"])}

    def judged(self, features: Tensor, logits: Tensor) -> Tensor:
        centred = features - self.centre
        return class_distance(centred, self.means, self.within) - (centred @ self.overall).square().sum(1)
