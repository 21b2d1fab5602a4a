"""The part of the features that training images do not have, as the logit of one more class."""

from __future__ import annotations

import torch
from torch import Tensor

from .features import FeatureDetector, principal_axes


class VirtualLogitMatching(FeatureDetector):
    """s ‖R (z − o)‖ − logsumexp(f) of features z and logits f; R drops the principal directions of training features.

    H. Wang, Z. Li, L. Feng, W. Zhang, "ViM: Out-of-Distribution with Virtual-logit Matching", CVPR 2022. The origin o
    is where the logits are 0 (the point of least norm), and s makes the first term as large on average as the highest
    logit. As many directions count as principal as the authors take: 1,000 of 2,048 and more, 512 of 768 and more, else
    a half, of those in which features vary. The map from features to logits is found by least squares, so that what a
    model does between its last linear layer and its logits is part of it.
    """

    name = "vim"
    origin: Tensor
    residual: Tensor

    def learned(self, features: Tensor, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        mean, mean_logits = features.double().mean(0), logits.double().mean(0)
        centred = features - mean
        variances, directions, rank = principal_axes(centred)
        varying = directions[:, -rank:]
        slopes = ((logits - mean_logits).T @ centred @ varying / variances[-rank:]) @ varying.T / len(features)
        origin = torch.linalg.pinv(slopes) @ (slopes @ mean - mean_logits)
        shifted = features - origin
        _, directions, _ = principal_axes(shifted)
        residual = directions[:, : len(variances) - n_principal(rank)]
        scale = logits.amax(1).double().mean() / (shifted @ residual).norm(dim=1).mean()
        return {"origin": origin.float(), "residual": (scale * residual).float()}

    def judged(self, features: Tensor, logits: Tensor) -> Tensor:
        return ((features - self.origin) @ self.residual).norm(dim=1) - logits.logsumexp(1)


def n_principal(width: int) -> int:
    """How many of the directions in which features vary count as principal."""
    return 1000 if width >= 2048 else 512 if width >= 768 else width // 2
