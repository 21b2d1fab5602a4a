"""The proposals of a random search."""

from __future__ import annotations

import pytest
import torch

from attacks.squares import redraw_window
from attacks.threat import L2, Linf

X = 0.2 + 0.6 * torch.rand(16, 3, 12, 9, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_linf_changes_one_window_by_eps() -> None:
    moved = redraw_window(X, X, 0.25, Linf(0.1))
    change = moved - X
    assert torch.allclose(change[change != 0].abs(), torch.tensor(0.1), atol=1e-6)
    for image in change:
        rows, columns = (image[0] != 0).nonzero().T
        assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (6, round(9 / 2))
        assert all(len(channel[channel != 0].unique().round(decimals=4).unique()) == 1 for channel in image)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.001])
def test_l2_stays_in_the_ball_and_comes_to_use_the_whole_radius(share: float) -> None:
    ball, point = L2(0.8), X
    for _ in range(50):
        point = redraw_window(point, X, share, ball)
        assert ball.distance(point - X).max() <= 0.8 + 1e-5
        assert point.min() >= 0
        assert point.max() <= 1
    assert ball.distance(point - X).min() > 0.7


def test_l2_moves_the_change_from_one_window_to_another() -> None:
    """On the sphere a proposal keeps the norm, sets some pixels back and keeps all pixels outside of two windows."""
    ball = L2(0.5)
    point = X + 0.5 * ball.steepest(torch.randn_like(X))
    point = point.where((point > 0) & (point < 1), X)
    point = X + 0.5 * ball.steepest(point - X)
    moved = redraw_window(point, X, 0.1, ball)
    untouched = (moved - point).abs().amax(1) < 1e-6
    emptied = (moved - X).abs().amax(1) < 1e-6
    assert torch.allclose(ball.distance(moved - X), torch.tensor(0.5), atol=0.02)
    assert untouched.flatten(1).float().mean(1).min() >= 0.7
    assert emptied.flatten(1).any(1).float().mean() > 0.9
