"""Split-conformal calibration: a threshold whose false-alarm rate on clean inputs is at most alpha.

V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005; S. Bates et al., "Testing for
outliers with conformal p-values", 2023. The guarantee: for exchangeable clean scores, P(score > threshold) ≤ alpha
on average over calibration sets, and P(p-value ≤ t) ≤ t for every t. Of m scores each is held to its share of alpha,
alpha / m where nobody says otherwise: by the union bound (Bonferroni's) all together reject at most a share alpha of
clean inputs, however they depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import torch
from scipy.stats import false_discovery_control
from torch import Tensor

from ..types import InputError, check_fraction
from .joint import Curve


def _exact(alpha: float | Fraction) -> Fraction:
    """The decimal number that was typed, not the binary one next to it: 0.1 is 1/10."""
    return alpha if isinstance(alpha, Fraction) else Fraction(repr(float(alpha)))


def _levels(alpha: float, shares: Sequence[int], n: int) -> list[Fraction]:
    """The false-alarm rate of each score, from alpha, their shares of it, and how many images there are."""
    least = Fraction(1, n + 1)
    rest = _exact(alpha) - shares.count(0) * least
    return [rest * share / sum(shares) if share else least for share in shares]


def rank(n: int, alpha: float | Fraction) -> int:
    """k = ⌈(n + 1)(1 − alpha)⌉ in exact arithmetic: the threshold is the k-th smallest of n scores."""
    return math.ceil((n + 1) * (1 - _exact(alpha)))


def images_needed(alpha: float, shares: Sequence[int] = (1,)) -> int:
    """The smallest calibration set that can bound by alpha the false-alarm rate of scores with these shares of it."""
    smallest = min(filter(None, shares))
    return math.ceil((shares.count(0) + Fraction(sum(shares), smallest)) / _exact(alpha)) - 1


@dataclass(frozen=True)
class Calibration:
    """The scores of n clean images, m of each, and the bound on the false-alarm rate that they were asked to give.

    Attributes:
        scores: (n, m) float32, each column ascending.
        alpha: bound on the false-alarm rate of all m scores together.
        shares: of alpha, one for each score, in whole numbers; the same for all by default. A share of 0 is the least
            that n images can bound, 1 / (n + 1): such a score rejects what is above all calibration scores. It is
            taken off alpha before the others share it.
    """

    scores: Tensor
    alpha: float
    shares: tuple[int, ...] | None = None

    @cached_property
    def thresholds(self) -> tuple[float, ...]:
        """Of each score the k-th smallest; infinity (nothing is rejected) when n is too small for its share."""
        n, columns = len(self.scores), zip(self.scores.unbind(1), self.ranks, strict=True)
        return tuple(column[k - 1].item() if k <= n else math.inf for column, k in columns)

    @property
    def threshold(self) -> float:
        """What `combined` is compared with: the threshold of a single score, 0 for several."""
        return self.thresholds[0] if len(self.thresholds) == 1 else 0.0

    @property
    def expected_false_alarm_rate(self) -> float:
        """Bound on the share of clean inputs that is rejected, on average over calibration sets; at most alpha.

        1 − k / (n + 1), summed over the m scores, with k the rank of the threshold: 0 where nothing is rejected.
        """
        n = len(self.scores)
        return sum(max(0, n + 1 - k) for k in self.ranks) / (n + 1)

    def decide(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The score that decides, the p-value and whether to reject, (B,) each, from the m scores (B, m)."""
        score = self.combined(scores)
        # Not `score > threshold`: a score that is not a number must not pass.
        return score, self.p_value(scores), ~(score <= self.threshold)

    def combined(self, scores: Tensor) -> Tensor:
        """(B,) the score that decides, from the m scores (B, m); differentiable in them.

        A single score is itself. Of several it is, in nats, by how much the most suspicious one exceeds its own
        threshold on a scale of −log p-value: above 0 exactly where some score is above its own threshold.

        Raises:
            InputError: several scores of too few images for their thresholds.
        """
        if scores.shape[1] == 1:
            return scores.squeeze(1)
        heights = [curve(column) for curve, column in zip(self._curves, scores.unbind(1), strict=True)]
        return torch.stack(heights, 1).amax(1).to(scores.dtype)

    def p_value(self, scores: Tensor) -> Tensor:
        """(B,) float64, at most 1; the least over the m scores (B, m), each weighed by its part of alpha.

        Of one score: (1 + number of calibration scores ≥ score) / (n + 1).
        """
        n = len(self.scores)
        known = self.scores.to(scores.device).T.contiguous()
        below = torch.searchsorted(known, scores.detach().float().T.contiguous())
        weights = [float(_exact(self.alpha) / level) if level > 0 else math.inf for level in self._levels]
        parts = [weight * (1 + n - row) / (n + 1) for row, weight in zip(below.double(), weights, strict=True)]
        return torch.stack(parts).clamp_max(1).amin(0)

    @property
    def ranks(self) -> list[int]:
        """Of each score the k of its threshold, the k-th smallest; n + 1 where nothing is rejected."""
        return [rank(len(self.scores), level) for level in self._levels]

    @property
    def _levels(self) -> list[Fraction]:
        return _levels(self.alpha, self._shares, len(self.scores))

    @property
    def _shares(self) -> tuple[int, ...]:
        return (1,) * self.scores.shape[1] if self.shares is None else self.shares

    @cached_property
    def _curves(self) -> tuple[Curve, ...]:
        n, m = self.scores.shape
        if n < (needed := images_needed(self.alpha, self._shares)):
            raise InputError(f"scores: of {n} images, must be of at least {needed} for {m} scores")
        columns = zip(self.scores.unbind(1), self.thresholds, self._levels, strict=True)
        return tuple(Curve.through(column, threshold, float(level)) for column, threshold, level in columns)


def calibrate(scores: Tensor, alpha: float, shares: tuple[int, ...] | None = None) -> Calibration:
    """Calibrate on the m scores (n, m) of each of n clean inputs that were never trained on.

    Args:
        scores: (n, m).
        alpha: bound on the false-alarm rate of all m together.
        shares: of alpha, one for each score; the same for all by default.

    Raises:
        InputError: alpha outside (0, 1), or scores that are not finite or not (n, m).
    """
    check_fraction(alpha, "alpha")
    if scores.ndim != 2 or not scores.numel():
        raise InputError(f"scores: shape is {tuple(scores.shape)}, must be (n, m) with both at least 1")
    if not torch.isfinite(scores).all():
        raise InputError("scores: has values that are not finite; the model's energies must be finite")
    return Calibration(scores.detach().float().cpu().sort(dim=0).values, float(alpha), shares)


def benjamini_hochberg(p_values: Tensor, rate: float) -> Tensor:
    """Which inputs of a batch to report as suspicious, so that at most a share `rate` of the reported ones is clean.

    The share is bounded on average, over calibration sets and batches, whatever the other inputs of the batch are. The
    smallest p-value of n calibration images is 1 / (n + 1), so a batch of B in which few are suspicious needs more than
    B / rate images.

    Y. Benjamini, Y. Hochberg, "Controlling the False Discovery Rate", 1995; that it holds for p-values that share a
    calibration set, as those of one detector do: S. Bates et al., "Testing for outliers with conformal p-values", 2023.
    It is not proven for the p-values of several detectors together.

    Args:
        p_values: (B,), as `Verdict.p_value` has them.
        rate: bound on the false discovery rate, in (0, 1).

    Returns:
        (B,) bool.

    Raises:
        InputError: something else than p-values, or a rate outside (0, 1).
    """
    check_fraction(rate, "rate")
    if p_values.ndim != 1 or not ((p_values >= 0) & (p_values <= 1)).all():
        raise InputError(f"p_values: got shape {tuple(p_values.shape)}, must be (B,), each in [0, 1]")
    adjusted = false_discovery_control(p_values.detach().double().cpu().numpy()) if len(p_values) else []
    return torch.as_tensor(adjusted, device=p_values.device) <= rate


def saved_calibration(scores: Tensor, alpha: object, shares: tuple[int, ...], where: str) -> Calibration:
    """The calibration of m detectors that a file holds.

    Args:
        scores: (n, m), or (n,) as earlier versions wrote those of one detector.
        alpha: what the file's card says.
        shares: of alpha, one for each of the m detectors.
        where: the file, for errors.

    Raises:
        InputError: alpha is not one, or the scores are not of m detectors or of too few images for alpha.
    """
    if not isinstance(alpha, float) or not 0 < alpha < 1:
        raise InputError(f"{where}: its card gives alpha as {alpha!r}, must be in (0, 1)")
    scores = scores.unsqueeze(1) if scores.ndim == 1 else scores
    least, m = images_needed(alpha, shares), len(shares)
    if scores.ndim != 2 or scores.shape[1] != m or len(scores) < least:
        raise InputError(
            f"{where}: holds calibration scores {tuple(scores.shape)}, must be ({least} or more, {m}) for "
            f"alpha={alpha}; calibrate anew"
        )
    return calibrate(scores, alpha, shares)


def check_tells_apart(calibration: Calibration, names: Sequence[str]) -> None:
    """Whether each detector could reject one of the images that it was calibrated on.

    Raises:
        InputError: one gives its highest score to more images than alpha allows to reject; a constant score, say.
    """
    for name, threshold, column in zip(names, calibration.thresholds, calibration.scores.unbind(1), strict=True):
        highest = int((column == column[-1]).sum())
        if highest > 1 and threshold >= column[-1]:
            raise InputError(
                f"detector: {name} gave {highest} of {len(column)} images its highest score, {threshold:g}, must tell "
                f"images apart: alpha={calibration.alpha} does not allow to reject as many"
            )
