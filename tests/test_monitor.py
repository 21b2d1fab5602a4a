"""The monitor by simulation: its alarms at the rates that it states, what it notices, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustrecon import DefendedClassifier, InputError, Verdict
from robustrecon.data import Dataset
from robustrecon.defence import Monitor, rejections_expected
from robustrecon.detectors import benjamini_hochberg, calibrate


def classifier(scores: Tensor, alpha: float, detector: str = "msp") -> DefendedClassifier:
    """One whose calibration scores are given; what it would say of images plays no part."""
    torch.manual_seed(0)
    defended = DefendedClassifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), detector)
    defended.set_calibration(calibrate(scores, alpha), (1, 2, 2))
    return defended


def verdict(defended: DefendedClassifier, scores: Tensor) -> Verdict:
    calibration = defended.checked_calibration()
    columns = scores[:, None] if scores.ndim == 1 else scores
    score = calibration.combined(columns)
    label = torch.zeros(len(score), dtype=torch.int64)
    return Verdict(label, score, calibration.p_value(columns), score > calibration.threshold)


@pytest.mark.parametrize(("n", "m", "alpha"), [(99, 50, 0.1), (400, 30, 0.05), (60, 400, 0.1)])
def test_the_bound_on_rejections_is_exact(n: int, m: int, alpha: float) -> None:
    """Over calibration sets and inputs: exceeded at most as often as stated, and a smaller bound more often."""
    random, level, draws = np.random.default_rng(0), 0.05, 20_000
    scores = torch.tensor(random.normal(size=(n, 1)))
    most = rejections_expected(calibrate(scores, alpha), m, level)
    k = int(np.ceil((n + 1) * (1 - alpha)))
    thresholds = random.beta(k, n + 1 - k, size=draws)  # the k-th smallest of n uniform scores
    rejected = random.binomial(m, 1 - thresholds)
    error = 4 * np.sqrt(level / draws)
    assert (rejected > most).mean() < level + error
    assert (rejected > most - 1).mean() > level - error


def test_small_levels_are_exact_too() -> None:
    """Where 1 − (1 − level) has no digits left."""
    calibration = calibrate(torch.arange(999.0)[:, None], 0.05)
    most = [rejections_expected(calibration, 1000, level) for level in (1e-6, 1e-12, 1e-18, 1e-24)]
    assert most == sorted(set(most))
    assert most[-1] < 300
    assert rejections_expected(calibration, 10, 1e-300) == 10


def alarms(runs: int, windows: int, rate: float, detector: str = "msp", columns: int = 1) -> np.ndarray:
    """(runs, 2): whether the rejection rate, or the p-values, ever raised an alarm on clean inputs."""
    found = np.zeros((runs, 2), dtype=bool)
    for run in range(runs):
        generator = torch.Generator().manual_seed(run)
        defended = classifier(torch.randn(80, columns, generator=generator), 0.2, detector)
        monitor = Monitor(defended, window=60, false_alarm_rate=rate)
        for _ in range(windows):
            monitor.update(verdict(defended, torch.randn(60, columns, generator=generator)))
        found[run] = [
            any(window.rejection_rate_left for window in monitor.alarms),
            any(window.p_values_left for window in monitor.alarms),
        ]
        assert len(monitor.windows) == windows
    return found


def test_the_false_alarm_rate_is_held_however_long_it_runs() -> None:
    """All windows and both tests together, over calibration sets that are as small as a window."""
    rate, runs = 0.4, 160
    found = alarms(runs, windows=6, rate=rate)
    assert found.any(1).mean() < rate
    assert (found.mean(0) > 0.02).all()  # neither test is idle


def test_several_detectors_err_to_the_safe_side() -> None:
    found = alarms(60, 4, 0.4, "any_of(msp,max_logit)", 2)
    assert found[:, 0].mean() < 0.2
    assert not found[:, 1].any()  # their p-values are not uniform, and not tested


def test_one_test_of_uniformity_has_the_level_that_it_states() -> None:
    """As many windows, each with a calibration of its own: p-values at most 0.1 in a tenth of them."""
    p_values = []
    for run in range(250):
        generator = torch.Generator().manual_seed(run)
        defended = classifier(torch.randn(100, 1, generator=generator), 0.1)
        monitor = Monitor(defended, window=100)
        monitor.update(verdict(defended, torch.randn(100, generator=generator)))
        p_values.append(monitor.windows[0].uniformity)
    assert 0.05 < np.mean(np.array(p_values) <= 0.1) < 0.15


@pytest.fixture
def watched() -> Monitor:
    generator = torch.Generator().manual_seed(0)
    return classifier(torch.randn(1000, 1, generator=generator), 0.05).monitor(window=200, false_alarm_rate=0.01)


def test_it_notices_more_rejections_before_the_window_is_full(watched: Monitor) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        watched.update(verdict(watched.defended, torch.randn(100, generator=generator)))
    assert not watched.alarm
    assert (watched.n, len(watched.windows)) == (2000, 10)
    assert 40 < watched.rejected < 170
    (window,) = watched.update(verdict(watched.defended, torch.randn(120, generator=generator) + 2))
    assert (window.index, window.n, window.rejection_rate_left, window.uniformity) == (11, 120, True, None)
    assert watched.alarm
    assert str(window).endswith("are expected (ALARM)")
    watched.update(verdict(watched.defended, torch.randn(120, generator=generator)))
    assert [alarm.index for alarm in watched.alarms] == [11]
    assert watched.alarms[0].n == 200


def test_it_notices_other_p_values_where_the_rejection_rate_stays(watched: Monitor) -> None:
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        watched.update(verdict(watched.defended, 0.3 * torch.randn(200, generator=generator)))  # rejected: none
    assert watched.rejected == 0
    assert [window.p_values_left for window in watched.windows] == [True, True, True]
    assert not any(window.rejection_rate_left for window in watched.windows)


def test_a_large_batch_is_cut_into_windows(watched: Monitor) -> None:
    scores = torch.randn(950, generator=torch.Generator().manual_seed(3))
    at_once = watched.update(verdict(watched.defended, scores))
    watched.restart()
    one_by_one = [window for part in scores.split(7) for window in watched.update(verdict(watched.defended, part))]
    assert at_once == one_by_one
    assert [window.n for window in at_once] == [200] * 4


def test_on_images_it_counts_what_inspect_says_and_is_calibrated_anew(digits: Dataset) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    defended = DefendedClassifier(model, "energy").calibrate(digits.calibration.x, alpha=0.1)
    monitor = defended.monitor(window=100)
    found = monitor.inspect(digits.test.x)
    assert torch.equal(found.rejected, defended.inspect(digits.test.x).rejected)
    assert (monitor.n, monitor.rejected) == (len(digits.test), int(found.rejected.sum()))
    assert not monitor.alarm
    faded = 0.4 * digits.test.x
    monitor.inspect(faded[:150])
    assert monitor.alarm
    monitor.recalibrate(0.4 * digits.calibration.x)
    assert (monitor.n, monitor.alarm, defended.checked_calibration().alpha) == (0, False, 0.1)
    monitor.inspect(faded)
    assert not monitor.alarm
    defended.calibrate(digits.calibration.x)
    with pytest.raises(InputError, match="calibration: is another than when the monitor began; call restart"):
        monitor.inspect(faded)
    monitor.restart()
    assert "0 inputs, 0 rejected" in repr(monitor)


def test_bad_arguments() -> None:
    defended = classifier(torch.arange(99.0)[:, None], 0.05)
    with pytest.raises(InputError, match="window: got 3, must be a whole number of at least 10"):
        defended.monitor(window=3)
    with pytest.raises(InputError, match="false_alarm_rate: got 0, must be in"):
        defended.monitor(false_alarm_rate=0)
    with pytest.raises(InputError, match="not calibrated"):
        DefendedClassifier(nn.Linear(2, 2), "msp").monitor()
    with pytest.raises(InputError, match="m: got 0, must be at least 1"):
        rejections_expected(defended.checked_calibration(), 0, 0.1)


def test_benjamini_hochberg_bounds_the_share_of_clean_images_among_the_reported_ones() -> None:
    """Over batches of 20 outliers among 100 inputs, whose p-values share a calibration set of 500."""
    shares, caught = [], []
    for run in range(300):
        generator = torch.Generator().manual_seed(run)
        calibration = calibrate(torch.randn(500, 1, generator=generator), 0.05)
        scores = torch.randn(100, 1, generator=generator)
        scores[:20] += 3.5
        reported = benjamini_hochberg(calibration.p_value(scores), 0.2)
        shares.append(int(reported[20:].sum()) / max(1, int(reported.sum())))
        caught.append(reported[:20].double().mean())
    assert 0.1 < np.mean(shares) < 0.2  # 0.2 times the share of clean inputs is 0.16
    assert np.mean(caught) > 0.8


def test_benjamini_hochberg_by_hand_and_what_it_refuses() -> None:
    p_values = torch.tensor([0.9, 0.01, 0.03, 0.02, 0.5])
    assert benjamini_hochberg(p_values, 0.051).tolist() == [False, True, True, True, False]
    assert benjamini_hochberg(p_values, 0.049).tolist() == [False] * 5
    assert benjamini_hochberg(p_values[:0], 0.1).tolist() == []
    with pytest.raises(InputError, match=r"p_values: got shape \(5, 1\), must be \(B,\), each in"):
        benjamini_hochberg(p_values[:, None], 0.1)
    with pytest.raises(InputError, match="each in"):
        benjamini_hochberg(2 * p_values, 0.1)
    with pytest.raises(InputError, match="rate: got 1, must be in"):
        benjamini_hochberg(p_values, 1)
