"""The moves of a random search: a window of the image drawn anew.

M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, "Square Attack: a query-efficient black-box adversarial attack via
random search", ECCV 2020.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .threat import L2, Threat


def redrawn(point: Tensor, x: Tensor, share: float, ball: Threat) -> Tensor:
    """`point`, in the ball around x (B, C, H, W), with a random window of this share of its pixels drawn anew.

    For linf each channel's change in the window becomes eps or -eps. For l2 two neighbouring bumps of opposite sign are
    added to the change in the window, and a second window, which loses its own, and whatever the ball has left pay for
    their length.
    """
    return (_bumps_moved if isinstance(ball, L2) else _refilled)(point, x, share, ball)


def _refilled(point: Tensor, x: Tensor, share: float, ball: Threat) -> Tensor:
    sides = _sides(x, share)
    window = _placed(torch.ones(sides, device=x.device).expand(len(x), *sides), x)
    change = ball.eps * torch.randn(*x.shape[:2], 1, 1, device=x.device).sign()
    return torch.where(window > 0, x + change, point).clamp(0, 1)


def _bumps_moved(point: Tensor, x: Tensor, share: float, ball: Threat) -> Tensor:
    height, width = _sides(x, share)
    upright = torch.rand(len(x), 1, 1, device=x.device) < 0.5
    bumps = _placed(torch.where(upright, _bumps(height, width, x), _bumps(width, height, x).T), x)
    emptied = _placed(torch.ones(len(x), height, width, device=x.device), x) > 0
    window = bumps != 0
    sign = torch.randn(*x.shape[:2], 1, 1, device=x.device).sign()
    change = point - x
    drawn = ball.steepest(sign * bumps) + ball.steepest(change * window)
    spent = ball.distance(change * (window | emptied))
    left = (ball.eps**2 - ball.distance(change) ** 2).clamp_min(0)
    length = (spent**2 + left).sqrt().view(-1, 1, 1, 1)
    return ball.project(x + change * ~(window | emptied) + length * ball.steepest(drawn), x)


def _sides(x: Tensor, share: float) -> tuple[int, int]:
    height, width = (max(1, round(math.sqrt(share) * size)) for size in x.shape[2:])
    return height, width


def _placed(patch: Tensor, x: Tensor) -> Tensor:
    """(B, 1, H, W): each image's patch (B, h, w) at a random place, zero around it."""
    n, *sides = patch.shape
    rows, columns = (
        torch.randint(size - side + 1, (n, 1), device=x.device) + torch.arange(side, device=x.device)
        for side, size in zip(sides, x.shape[2:], strict=True)
    )
    canvas = torch.zeros_like(x[:, :1])
    canvas[torch.arange(n, device=x.device)[:, None, None], 0, rows[:, :, None], columns[:, None, :]] = patch.to(x)
    return canvas


def _bumps(height: int, width: int, x: Tensor) -> Tensor:
    """(height, width): a bump and below it one of the other sign; one alone in a window of one row."""
    upper = height // 2
    return torch.cat([_bump(upper, width, x), -_bump(height - upper, width, x)])


def _bump(height: int, width: int, x: Tensor) -> Tensor:
    """(height, width), highest in the middle: a pixel k rings from it sums 1 / i² over the rings i beyond k."""
    down, right = ((torch.arange(side, device=x.device) - side // 2).abs() for side in (height, width))
    rings = torch.maximum(down[:, None], right[None, :])
    tail = torch.arange(1, max(height, width) + 1, device=x.device, dtype=x.dtype).pow(-2).flip(0).cumsum(0).flip(0)
    return tail[rings]
