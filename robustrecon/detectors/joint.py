"""Several scores as one detector, which rejects what any of them rejects at their shared false-alarm rate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from ..types import InputError
from .conformal import Calibration, calibrate, images_needed
from .scores import Score


@dataclass(frozen=True)
class AnyOf:
    """Rejects an input that any of m scores rejects, each calibrated to a false-alarm rate of alpha / m.

    By the union bound (Bonferroni's) all together reject at most a share alpha of clean inputs, however they depend on
    each other.

    Attributes:
        scores: at least two, all different.
    """

    scores: tuple[Score, ...]

    def __post_init__(self) -> None:
        if len(set(self.scores)) != len(self.scores) or len(self.scores) < 2:
            raise InputError(f"detector: got {self.__name__}, must be any_of at least two scores, all different")

    @property
    def __name__(self) -> str:
        return f"any_of({','.join(getattr(score, '__name__', repr(score)) for score in self.scores)})"


@dataclass(frozen=True)
class JointCalibration:
    """Calibrations of m scores of the same clean images, each to the level alpha / m, and the one score they make.

    The joint score says in nats by how much the most suspicious score exceeds its own threshold on a scale of
    −log p-value, so that it is above 0 exactly where some score is above its own threshold. Between the calibration
    scores and beyond them it is linear: it rises everywhere, and has a gradient wherever the scores have one.

    Attributes:
        parts: one a score, of equally many images.
        alpha: bound on the false-alarm rate of all together.
    """

    parts: tuple[Calibration, ...]
    alpha: float

    threshold: ClassVar[float] = 0.0

    @property
    def scores(self) -> Tensor:
        """(n, m) float32, each column ascending."""
        return torch.stack([part.scores for part in self.parts], 1)

    def score(self, each: Tensor) -> Tensor:
        """(B,) joint scores from the m scores (B, m), differentiable in them."""
        heights = [curve(column) for curve, column in zip(self._curves, each.unbind(1), strict=True)]
        return torch.stack(heights, 1).amax(1).to(each.dtype)

    def p_value(self, each: Tensor) -> Tensor:
        """m times the smallest p-value of the m scores (B, m), at most 1: (B,) float64."""
        columns = zip(self.parts, each.unbind(1), strict=True)
        return torch.stack([part.p_value(column) for part, column in columns], 1).amin(1)

    @cached_property
    def _curves(self) -> tuple[_Curve, ...]:
        return tuple(_Curve.through(part) for part in self.parts)


def calibrate_jointly(each: Tensor, alpha: float) -> JointCalibration:
    """Calibrate on the m scores (n, m) of clean inputs that were never trained on.

    Raises:
        InputError: alpha outside (0, 1), scores that are not finite, or too few for a threshold at alpha / m.
    """
    if each.ndim != 2 or not each.numel():
        raise InputError(f"scores: shape is {tuple(each.shape)}, must be (n, m) with both at least 1")
    parts = tuple(calibrate(column, alpha, each.shape[1]) for column in each.unbind(1))
    if len(each) < (needed := images_needed(alpha, each.shape[1])):
        raise InputError(f"scores: of {len(each)} images, must be of at least {needed} for {len(parts)} scores")
    return JointCalibration(parts, float(alpha))


@dataclass(frozen=True)
class _Curve:
    """A rising, piecewise linear function through the calibration scores, 0 at the threshold.

    Attributes:
        knots: (r,) float64, the calibration scores without repetition, ascending.
        heights: (r,) at the knots.
        slopes: (r + 1,) of the pieces, the outer two included; all above 0.
        zero: which knot is the threshold.
    """

    knots: Tensor
    heights: Tensor
    slopes: Tensor
    zero: int

    @classmethod
    def through(cls, calibration: Calibration) -> _Curve:
        knots, repeats = calibration.scores.double().unique(return_counts=True)
        n, zero = len(calibration.scores), int((knots < calibration.threshold).sum())
        # Half way between the p-values at a knot and just above it: they fall from knot to knot even where
        # calibration scores repeat, and the level alpha / m lies between those of the threshold.
        above = n - repeats.cumsum(0)
        middle = (1 + above + repeats / 2) / (n + 1)
        heights = (calibration.alpha / calibration.among) / middle
        heights = heights.log()
        heights[zero] = 0
        mean = (heights[-1] - heights[0]) / (knots[-1] - knots[0]) if len(knots) > 1 else torch.ones(())
        outer = mean.double().view(1)
        return cls(knots, heights, torch.cat([outer, heights.diff() / knots.diff(), outer]), zero)

    def __call__(self, score: Tensor) -> Tensor:
        """(B,) float64 from (B,)."""
        knots, heights, slopes = (values.to(score.device) for values in (self.knots, self.heights, self.slopes))
        value = score.double()
        piece = torch.searchsorted(knots, value.detach().contiguous())
        # From the end of the piece that is nearer to the threshold: rounding cannot change the sign.
        end = piece - (piece > self.zero).long()
        return heights[end] + slopes[piece] * (value - knots[end])
