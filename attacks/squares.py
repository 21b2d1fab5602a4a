"""The first point and the proposals of a random search: a window of the image is redrawn at random.

M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, "Square Attack: a query-efficient black-box adversarial attack via
random search", ECCV 2020; for l1 F. Croce, M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
classifiers", ICML 2021.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .threat import Linf, Threat

GRID = 5  # bumps of the first point, along a side
HALVINGS = (0.001, 0.005, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8)  # shares of the search after which the windows halve
POWERS = {"l1": 1, "l2": 2}  # of the sizes that add up, over disjoint windows, to that of the norm


def window_share(progress: float, first: float) -> float:
    """Share of the pixels in a window after this share of the search, which begins with the share `first`."""
    return first / 2 ** sum(progress > moment for moment in HALVINGS)


def first_point(x: Tensor, threat: Threat) -> Tensor:
    """Where a search around x (B, C, H, W) begins that is given no start: at random, with the whole radius spent.

    For linf in stripes of eps or -eps from top to bottom; for l2 and l1 on a grid of bumps, each with a random sign.
    """
    height, width = x.shape[2:]
    if isinstance(threat, Linf):
        return threat.project(x + threat.eps * torch.randn(*x.shape[:2], 1, width, device=x.device).sign(), x)
    side = max(1, min(height, width) // GRID)
    rows, columns = -(-height // side), -(-width // side)
    signs = torch.randn(*x.shape[:2], rows, columns, device=x.device).sign()
    signs = signs.repeat_interleave(side, 2).repeat_interleave(side, 3)
    grid = (signs * _bumps(side, side, x).repeat(rows, columns))[:, :, :height, :width]
    return threat.project(x + threat.eps * _unit(grid, threat), x)


def redraw_window(x_adv: Tensor, x: Tensor, share: float, threat: Threat) -> Tensor:
    """`x_adv`, in the ball around x (B, C, H, W), with one random window redrawn that holds this share of the pixels.

    For linf the change of each channel in the window becomes eps or -eps. For l2 and l1 two neighbouring bumps of
    opposite sign are added to the change in the window. Their length is what remains of the radius plus the length of
    the change in a second window, which is set to zero.
    """
    return (_redraw_linf if isinstance(threat, Linf) else _redraw_lp)(x_adv, x, share, threat)


def _redraw_linf(x_adv: Tensor, x: Tensor, share: float, threat: Threat) -> Tensor:
    sides = _sides(x, share)
    window = _placed(torch.ones(sides, device=x.device).expand(len(x), *sides), x)
    change = threat.eps * torch.randn(*x.shape[:2], 1, 1, device=x.device).sign()
    return torch.where(window > 0, x + change, x_adv).clamp(0, 1)


def _redraw_lp(x_adv: Tensor, x: Tensor, share: float, threat: Threat) -> Tensor:
    power = POWERS[threat.norm]
    height, width = _sides(x, share)
    vertical = torch.rand(len(x), 1, 1, device=x.device) < 0.5
    bumps = _placed(torch.where(vertical, _bumps(height, width, x), _bumps(width, height, x).T), x)
    emptied = _placed(torch.ones(len(x), height, width, device=x.device), x) > 0
    window = bumps != 0
    sign = torch.randn(*x.shape[:2], 1, 1, device=x.device).sign()
    change = x_adv - x
    direction = _unit(sign * bumps, threat) + _unit(change * window, threat)
    spent = threat.distance(change * (window | emptied))
    unused = (threat.eps**power - threat.distance(change) ** power).clamp_min(0)
    length = ((spent**power + unused) ** (1 / power)).view(-1, 1, 1, 1)
    return threat.project(x + change * ~(window | emptied) + length * _unit(direction, threat), x)


def _unit(delta: Tensor, threat: Threat) -> Tensor:
    """`delta`, divided by its norm."""
    return delta / threat.distance(delta).clamp_min(1e-12).view(-1, 1, 1, 1)


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
    """(height, width): a bump above another one of the opposite sign; a single bump in a window of one row."""
    upper = height // 2
    return torch.cat([_bump(upper, width, x), -_bump(height - upper, width, x)])


def _bump(height: int, width: int, x: Tensor) -> Tensor:
    """(height, width), highest in the middle: a pixel on ring k around it is the sum of 1 / i² over all rings i > k."""
    down, right = ((torch.arange(side, device=x.device) - side // 2).abs() for side in (height, width))
    rings = torch.maximum(down[:, None], right[None, :])
    tail = torch.arange(1, max(height, width) + 1, device=x.device, dtype=x.dtype).pow(-2).flip(0).cumsum(0).flip(0)
    return tail[rings]
