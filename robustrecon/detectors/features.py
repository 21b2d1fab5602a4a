"""What detectors that look at a network's features share."""

from __future__ import annotations

from abc import abstractmethod
from typing import final

import torch
from torch import Tensor, nn

from ..runtime import batched, device_of
from ..types import InputError
from .base import Evidence, FittedDetector
from .catalogue import with_layer

MOST_WIDE = 8192  # features of which a covariance is made: (D, D) in float64
LEAST_VARIANCE = 1e-6  # of a direction, relative to the largest; below it is the rounding of a pass in half precision
CHUNK = 1024  # images whose distances to all others are held at a time


class FeatureDetector(FittedDetector):
    """A score of what a layer gives for an image. A subclass writes `learned` and `judged`.

    Both compute in float32, also where the network runs in half precision.

    Args:
        layer: name of a sub-module whose output is taken, as `Evidence.features` takes it; by default the input of the
            last linear layer. Another layer is part of the detector's name, `knn(conv2)`.
    """

    def __init__(self, layer: str | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.name = with_layer(self.name, layer)

    @abstractmethod
    def learned(self, features: Tensor, logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The statistics, from features (N, D), logits (N, K) and labels (N,) of training images."""

    @abstractmethod
    def judged(self, features: Tensor, logits: Tensor) -> Tensor:
        """(B,) scores from features (B, D) and logits (B, K), differentiable in both."""

    @final
    def statistics(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        device = device_of(model)

        def passed(part: Tensor) -> tuple[Tensor, Tensor]:
            evidence = Evidence(model, part.to(device))
            return evidence.features(self.layer).float(), evidence.logits.float()

        features, logits = batched(passed, x)
        if not (features.isfinite().all() and logits.isfinite().all()):
            raise InputError(f"model: gave features or logits that are not finite, which {self.name} cannot learn from")
        return self.learned(features, logits, y.to(features.device))

    @final
    def score(self, evidence: Evidence) -> Tensor:
        features, logits = evidence.features(self.layer).float(), evidence.logits.float()
        with torch.autocast(features.device.type, enabled=False):
            return self.judged(features, logits)


def principal_axes(centred: Tensor) -> tuple[Tensor, Tensor, int]:
    """Variances (D,) ascending and directions (D, D) of centred features (N, D), in float64, and the rank.

    The rank r says that the last r directions vary, by more than `LEAST_VARIANCE` of the largest variance.

    Raises:
        InputError: too many features for a covariance matrix.
    """
    if centred.shape[1] > MOST_WIDE:
        raise InputError(
            f"layer: gives {centred.shape[1]} values for an image, must be at most {MOST_WIDE} for their covariance"
        )
    exact = centred.double()
    variances, directions = torch.linalg.eigh(exact.T @ exact / len(exact))
    return variances, directions, int((variances > LEAST_VARIANCE * variances[-1]).sum())


def whitening(centred: Tensor) -> Tensor:
    """(D, r) W, where W Wᵀ is the pseudo-inverse of the covariance of centred features (N, D), of rank r."""
    variances, directions, rank = principal_axes(centred)
    kept = len(variances) - rank
    return (directions[:, kept:] / variances[kept:].sqrt()).float()


def nearest(features: Tensor, others: Tensor, k: int) -> Tensor:
    """(B,) which of `others` (M, D) is the k-th nearest to each of `features` (B, D), by Euclidean distance."""
    with torch.no_grad():
        found = [torch.cdist(part, others).kthvalue(k, 1).indices for part in features.split(CHUNK)]
    return torch.cat(found)


def sampled(n: int, most: int, seed: int = 0) -> Tensor:
    """(min(n, most),) int64: a random sample of n rows without repetition, the same every time."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most]
