"""The theorem behind the threshold, not only its code."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from robustrecon import InputError
from robustrecon.detectors import Calibration, images_needed
from robustrecon.detectors import calibrate as calibrate_several
from robustrecon.detectors.conformal import rank


def calibrate(scores: torch.Tensor, alpha: float) -> Calibration:
    """Of one score of each image (n,)."""
    return calibrate_several(scores[:, None], alpha)


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.3])
def test_false_alarm_rate_is_at_most_alpha_over_many_splits(alpha: float) -> None:
    """Averaged over 4,000 splits; the bound is tight: the rate is above alpha − 1/(n+1)."""
    rng = np.random.default_rng(0)
    n, m, splits = 149, 50, 4000
    rates = np.empty(splits)
    for index in range(splits):
        scores = torch.from_numpy(rng.gamma(2.0, size=n + m).astype(np.float32))
        threshold = calibrate(scores[:n], alpha).threshold
        rates[index] = (scores[n:] > threshold).float().mean()
    error = rates.std() / math.sqrt(splits)
    assert rates.mean() <= alpha + 4 * error
    assert rates.mean() >= alpha - 1 / (n + 1) - 4 * error


def test_p_values_are_valid_over_many_splits() -> None:
    rng = np.random.default_rng(1)
    values = []
    for _ in range(2000):
        scores = torch.from_numpy(rng.normal(size=70).astype(np.float32))
        values.append(calibrate(scores[:50], 0.1).p_value(scores[50:, None]))
    p = torch.cat(values)
    for level in (0.02, 0.1, 0.5, 0.9):
        assert (p <= level).double().mean() <= level + 0.01


def test_validity_holds_with_ties() -> None:
    rng = np.random.default_rng(2)
    rates = []
    for _ in range(2000):
        scores = torch.from_numpy(rng.integers(0, 5, size=130).astype(np.float32))
        rates.append((scores[99:] > calibrate(scores[:99], 0.1).threshold).double().mean().item())
    assert np.mean(rates) <= 0.1


@pytest.mark.parametrize("n", [9, 19, 20, 99, 100, 999])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.3, 0.7])
def test_threshold_is_the_kth_smallest_score(n: int, alpha: float) -> None:
    """k = ⌈(n+1)(1−alpha)⌉ with alpha the decimal number that was typed; infinity when k > n."""
    scores = torch.randperm(n, generator=torch.Generator().manual_seed(n)).float()
    k = math.ceil((n + 1) * (1 - Fraction(str(alpha))))
    assert rank(n, alpha) == k
    assert calibrate(scores, alpha).threshold == (float(k - 1) if k <= n else math.inf)


def test_rank_is_exact_where_floats_are_not() -> None:
    assert math.ceil(10 * (1 - 0.7)) == 4  # what binary arithmetic makes of 3
    assert rank(9, 0.7) == 3


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.3, 1 / 3])
def test_images_needed_is_the_least_that_gives_a_finite_threshold(alpha: float) -> None:
    needed = images_needed(alpha)
    assert calibrate(torch.arange(float(needed)), alpha).threshold < math.inf
    if needed > 1:
        assert calibrate(torch.arange(float(needed - 1)), alpha).threshold == math.inf


def test_p_value_counts_scores_at_least_as_high() -> None:
    calibration = calibrate(torch.tensor([1.0, 2.0, 2.0, 3.0]), 0.5)
    p = calibration.p_value(torch.tensor([0.0, 2.0, 2.5, 4.0, math.nan])[:, None])
    assert p.tolist() == [1.0, 4 / 5, 2 / 5, 1 / 5, 1 / 5]
    assert p.dtype == torch.float64


def test_rejection_and_p_value_agree() -> None:
    scores = torch.randn(199, generator=torch.Generator().manual_seed(0))
    calibration = calibrate(scores, 0.05)
    new = torch.cat([scores, torch.randn(1000, generator=torch.Generator().manual_seed(1))])
    assert torch.equal(new > calibration.threshold, calibration.p_value(new[:, None]) <= 0.05)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_alpha_out_of_range(alpha: float) -> None:
    with pytest.raises(InputError, match=r"alpha: got .* must be in \(0, 1\)"):
        calibrate(torch.arange(10.0), alpha)


@pytest.mark.parametrize(
    "scores", [torch.ones(0, 1), torch.ones(2), torch.ones(2, 2, 2), torch.tensor([[1.0], [math.nan]])]
)
def test_bad_scores(scores: torch.Tensor) -> None:
    with pytest.raises(InputError, match="scores:"):
        calibrate_several(scores, 0.5)
