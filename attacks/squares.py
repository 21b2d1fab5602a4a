"""The move of a random search: a square of the image drawn anew.

M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, "Square Attack: a query-efficient black-box adversarial attack via
random search", ECCV 2020.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .threat import Threat


def redrawn(point: Tensor, x: Tensor, share: float, ball: Threat) -> Tensor:
    """`point`, in the ball around x (B, C, H, W), with a random window of this share of its pixels drawn anew.

    Each channel's change in the window is a random one. For linf it takes the window from one side of the ball to the
    other, as in the paper. For l2 it is as much shorter as the window is smaller than the image, which is not the
    paper's move: that takes the length of the change away from a second window.
    """
    window = _window(x, share)
    change = ball.steepest(window * torch.randn(*x.shape[:2], 1, 1, device=x.device))
    part = ball.distance(window[:1]) / ball.distance(torch.ones_like(window[:1]))
    return ball.project(point + 2 * ball.eps * part * change, x)


def _window(x: Tensor, share: float) -> Tensor:
    """(B, 1, H, W): 1 in a random window of this share of an image's pixels, one window an image."""
    n, _, height, width = x.shape
    sides = [max(1, round(math.sqrt(share) * size)) for size in (height, width)]
    inside = []
    for side, size in zip(sides, (height, width), strict=True):
        start = torch.randint(size - side + 1, (n, 1), device=x.device)
        place = torch.arange(size, device=x.device)
        inside.append((place >= start) & (place < start + side))
    return (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(x.dtype)
