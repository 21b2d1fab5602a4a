"""What an attack can change of an image at 1 bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.one_bit import can_be_flipped, crossing


class Counting(nn.Module):
    """Label 1 where at least three pixels are white."""

    def forward(self, x: Tensor) -> Tensor:
        white = x.flatten(1).sum(1)
        return torch.stack([torch.full_like(white, 2.5), white], 1)


def test_pixels_within_eps_of_a_half_can_cross_it() -> None:
    x = torch.tensor([0.0, 0.15, 0.25, 0.5, 0.75, 0.85, 1.0]).view(1, 1, 1, 7)
    assert crossing(x, 0.3).flatten().tolist() == [False, False, True, True, True, False, False]


@pytest.mark.parametrize(("crossing_pixels", "found"), [(2, False), (3, True), (9, True)])
def test_the_search_flips_as_many_pixels_as_it_takes(crossing_pixels: int, found: bool) -> None:
    crosses = (torch.arange(9) < crossing_pixels).view(1, 1, 3, 3)
    x = torch.full((1, 1, 3, 3), 0.3)
    assert can_be_flipped(Counting(), x, torch.tensor([0]), crosses) is found
