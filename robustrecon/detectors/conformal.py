"""Split-conformal calibration: a threshold whose false-alarm rate on clean inputs is at most alpha.

V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005; S. Bates et al., "Testing for
outliers with conformal p-values", 2023. The guarantee: for exchangeable clean scores, P(score > threshold) ≤ alpha
on average over calibration sets, and P(p-value ≤ t) ≤ t for every t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from ..types import InputError, check_fraction


def _exact(alpha: float) -> Fraction:
    """The decimal number that was typed, not the binary one next to it: 0.1 is 1/10."""
    return Fraction(repr(float(alpha)))


def rank(n: int, alpha: float, among: int = 1) -> int:
    """k = ⌈(n + 1)(1 − alpha / among)⌉ in exact arithmetic: the threshold is the k-th smallest of n scores."""
    return math.ceil((n + 1) * (1 - _exact(alpha) / among))


def images_needed(alpha: float, among: int = 1) -> int:
    """The smallest calibration set that can bound the false-alarm rate of `among` scores together by alpha."""
    return math.ceil(among / _exact(alpha)) - 1


@dataclass(frozen=True)
class Calibration:
    """Calibration scores, sorted, and the bound they were asked to give.

    Attributes:
        scores: (n,) float32, ascending.
        alpha: bound on the false-alarm rate.
        among: how many scores share alpha; this one is held to alpha / among.
    """

    scores: Tensor
    alpha: float
    among: int = 1

    @property
    def threshold(self) -> float:
        """The k-th smallest score; infinity (nothing is rejected) when n is too small for alpha."""
        k = rank(len(self.scores), self.alpha, self.among)
        return float(self.scores[k - 1]) if k <= len(self.scores) else math.inf

    def p_value(self, score: Tensor) -> Tensor:
        """`among` · (1 + number of calibration scores ≥ score) / (n + 1), at most 1, float64: (B,) from (B,)."""
        n = len(self.scores)
        below = torch.searchsorted(self.scores.to(score.device), score.detach().float().contiguous())
        return ((self.among * (1 + n - below)).double() / (n + 1)).clamp_max(1)


def calibrate(scores: Tensor, alpha: float, among: int = 1) -> Calibration:
    """Calibrate on the scores (n,) of clean inputs that were never trained on; `among` scores share alpha.

    Raises:
        InputError: alpha outside (0, 1), or scores that are not finite or not a vector.
    """
    check_fraction(alpha, "alpha")
    if scores.ndim != 1 or not len(scores):
        raise InputError(f"scores: shape is {tuple(scores.shape)}, must be (n,) with n at least 1")
    if not torch.isfinite(scores).all():
        raise InputError("scores: has values that are not finite; the model's energies must be finite")
    return Calibration(scores.detach().float().cpu().sort().values, float(alpha), among)
