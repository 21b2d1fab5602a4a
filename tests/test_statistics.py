"""The distance of two sets of features."""

from __future__ import annotations

import numpy as np
import pytest

from robustrecon.statistics import frechet_distance


def test_frechet_distance_of_gaussians_in_closed_form() -> None:
    random = np.random.default_rng(0)
    a = random.normal(size=(200_000, 3)) * [1.0, 2.0, 0.5] + [0.0, 1.0, -1.0]
    b = random.normal(size=(200_000, 3)) * [2.0, 2.0, 1.5] + [3.0, 1.0, -1.0]
    # With diagonal covariances it is ‖difference of means‖² + ‖difference of standard deviations‖².
    assert frechet_distance(a, b) == pytest.approx(9 + 1 + 0 + 1, rel=0.02)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_frechet_distance_of_features_that_are_always_zero() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 500, 4)).astype(np.float32)
    a[:, 2] = b[:, 2] = 0
    assert 0 < frechet_distance(a, b) < 0.1
