"""Small attacks that test another one: it with the whole image space as its budget, a search without gradient, and
steps that go on from where it ended. Each costs a bounded number of passes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .base import Attack, IterativeAttack
from .goals import Goal, Victim
from .squares import redrawn
from .threat import Threat

QUERIES = 200  # of the search without gradient, an image
CORNERS = 20  # of these, drawn before the search goes by what it found
MORE_STEPS = 10


def whole_space(attack: Attack, x: Tensor) -> Attack:
    """The same attack, once, with a budget in which every image of the shape of x is within reach."""
    widened = copy.copy(attack)
    widened.eps, widened.restarts = 1.0 if attack.norm == "linf" else math.sqrt(x[0].numel()), 1
    if isinstance(widened, IterativeAttack) and widened.alpha is not None:
        widened.alpha *= widened.eps / attack.eps
    return widened


@torch.no_grad()
def search(victim: nn.Module, x: Tensor, y: Tensor, goal: Goal, ball: Threat) -> Tensor:
    """(B, C, H, W) the best points of a random search by the goal's loss, without its gradient.

    First random corners of the ball (for l2, points of its sphere), then random windows of the best one are drawn anew,
    smaller and smaller. M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, "Square Attack: a query-efficient
    black-box adversarial attack via random search", ECCV 2020, with fewer queries.
    """
    best, reached, highest = _nowhere(x)
    for query in range(QUERIES):
        if reached.all():
            break
        if query < CORNERS:
            moved = ball.project(x + ball.eps * ball.steepest(torch.randn_like(x)), x)
        else:
            moved = redrawn(best, x, 0.5 * (1 - query / QUERIES) ** 2, ball)
        met, loss = goal.assess(victim, moved, y)
        best, reached, highest = _better(best, reached, highest, moved, met, loss)
    return best


def go_on(victim: nn.Module, x: Tensor, y: Tensor, moved: Tensor, goal: Goal, ball: Threat) -> tuple[Tensor, Tensor]:
    """Where a few plain gradient steps lead from `moved`: the best points (B, C, H, W) and their leading loss (B,).

    They ascend the loss of the goal's first part that an image does not meet yet.
    """
    best, reached, highest = _nowhere(moved)
    leading, *others = goal.parts()
    for step in range(MORE_STEPS + 1):
        met, loss = leading.assess(victim, moved, y)
        all_met = met.clone()
        for part in others:
            all_met &= part.met(victim, moved, y)
        best, reached, highest = _better(best, reached, highest, moved, all_met, loss.detach())
        if step == MORE_STEPS:
            break
        moved = ball.project(moved + ball.eps / MORE_STEPS * ball.steepest(_direction(victim, moved, y, goal)), x)
    return best, highest


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Of the sum of what `function` gives; zero where it is cut off from x."""
    with torch.enable_grad():
        moved = x.detach().clone().requires_grad_()
        values = function(moved).sum()
        if not values.requires_grad:
            return torch.zeros_like(x)
        (found,) = torch.autograd.grad(values, moved, allow_unused=True)
        return torch.zeros_like(x) if found is None else found


def _direction(victim: Victim, moved: Tensor, y: Tensor, goal: Goal) -> Tensor:
    def first_unmet(point: Tensor) -> Tensor:
        total = torch.zeros(len(point), device=point.device)
        open_still = torch.ones(len(point), dtype=torch.bool, device=point.device)
        for part in goal.parts():
            met, loss = part.assess(victim, point, y)
            total = total + torch.where(open_still & ~met, loss, 0)
            open_still &= met
        return total

    return gradient(first_unmet, moved).nan_to_num(0, 0, 0)


def _nowhere(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n = len(x)
    reached = torch.zeros(n, dtype=torch.bool, device=x.device)
    return x, reached, torch.full((n,), -math.inf, device=x.device)


def _better(
    best: Tensor, reached: Tensor, highest: Tensor, moved: Tensor, met: Tensor, loss: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A point that meets the goal before one that does not, then the higher loss."""
    better = (met & ~reached) | ((met == reached) & (loss > highest))
    return torch.where(better.view(-1, 1, 1, 1), moved, best), reached | met, torch.where(better, loss, highest)
