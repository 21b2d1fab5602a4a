"""Distance of the features to those of training images."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from .features import FeatureDetector, nearest, sampled

MOST = 10_000  # training images whose features are kept
SHARE = 1_000  # the k-th neighbour of n images, k = n / SHARE: the paper takes k = 50 of 50,000 for CIFAR-10


class KNearestNeighbours(FeatureDetector):
    """Distance of z / ‖z‖ to its k-th nearest neighbour among the normalised features of training images.

    Y. Sun, Y. Ming, X. Zhu, Y. Li, "Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022. Of a random
    sample of at most 10,000 training images; k is a thousandth of them, at least 1. The gradient is that of the
    distance to the neighbour that is the k-th now.
    """

    name = "knn"
    neighbours: Tensor

    def learned(self, features: Tensor, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"neighbours": normalize(features[sampled(len(features), MOST).to(features.device)])}

    def judged(self, features: Tensor, logits: Tensor) -> Tensor:
        direction = normalize(features)
        which = nearest(direction, self.neighbours, max(1, round(len(self.neighbours) / SHARE)))
        return (direction - self.neighbours[which]).norm(dim=1)
