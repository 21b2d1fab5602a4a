"""Random distortions of training images."""

from __future__ import annotations

import pytest
import torch

from robustrecon.training import augment
from robustrecon.training.augment import random_distortion


@pytest.mark.parametrize(("side", "moved"), [(2 / 9, 1), (-4 / 9, -2)])
def test_a_shift_is_in_shares_of_a_side_and_the_outside_is_black(
    side: float, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what in ("ROTATION", "SCALE", "SHEAR", "ELASTIC", "UNCHANGED"):
        monkeypatch.setattr(augment, what, 0.0)
    monkeypatch.setattr(augment, "SHIFT", side)
    monkeypatch.setattr("torch.randn", lambda *size, device: torch.ones(size, device=device))
    x = torch.zeros(2, 1, 9, 9)
    x[:, 0, 4, 4] = 1
    expected = torch.zeros_like(x)
    expected[:, 0, 4 - moved, 4 - moved] = 1
    assert torch.allclose(random_distortion(x, 1.0), expected, atol=1e-5)
    assert random_distortion(torch.ones_like(x), 1.0)[:, 0, -1 if moved > 0 else 0].max() < 1e-5


def test_distortions_differ_grow_with_their_strength_and_leave_some_images_unchanged() -> None:
    torch.manual_seed(0)
    x = torch.zeros(300, 1, 12, 9)
    x[:, :, 3:9, 3:6] = 1
    weak, strong = ((random_distortion(x, strength) - x).square().mean((1, 2, 3)) for strength in (0.5, 2.0))
    assert 0 < weak.mean() < strong.mean()
    assert 0.1 < (strong == 0).double().mean() < 0.35
    moved = random_distortion(x, 1.0)
    assert moved.shape == x.shape
    assert 0 <= moved.min() < moved.max() <= 1
    assert len(moved.flatten(1).unique(dim=0)) > 150
