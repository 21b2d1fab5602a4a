"""Several scores as one: each on a scale on which they can be compared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Curve:
    """−log p-value of a score, less that of its threshold, made linear between the calibration scores and beyond them.

    It rises everywhere, so that it has a gradient wherever the score has one, and is above 0 exactly where the score is
    above its threshold.

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
    def through(cls, scores: Tensor, threshold: float, level: float) -> Curve:
        """Through calibration scores (n,), ascending, with the `threshold` among them that holds to `level`."""
        knots, repeats = scores.double().unique(return_counts=True)
        n, zero = len(scores), int((knots < threshold).sum())
        # Half way between the p-values at a knot and just above it: they fall from knot to knot even where
        # calibration scores repeat, and `level` lies between those of the threshold.
        above = n - repeats.cumsum(0)
        heights = (level / ((1 + above + repeats / 2) / (n + 1))).log()
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
