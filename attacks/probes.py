"""Small attacks that test another attack: the same attack with the whole image space as its budget, a random search,
and more gradient steps from where it ended. Each costs a bounded number of passes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .base import Attack
from .goals import Goal, Victim
from .squares import redraw_window
from .threat import Threat

QUERIES = 200  # per image, of the random search
CORNERS = 20  # of these, queries that are drawn independently of each other
MORE_STEPS = 10


def with_whole_space(attack: Attack, x: Tensor) -> Attack:
    """The same attack without restarts, with a budget that contains every image of the shape of x."""
    return attack.with_budget(attack.threat.whole_space(x[0].numel()), restarts=1)


@torch.no_grad()
def random_search(victim: nn.Module, x: Tensor, y: Tensor, goal: Goal, threat: Threat) -> Tensor:
    """(B, C, H, W) the best points of a random search on the goal's loss, without its gradient.

    The search first draws random corners of the ball (for l2, points of its sphere; for l1, corners of its
    intersection with [0, 1]). Then it redraws random windows of
    the best point, which become smaller and smaller. M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, "Square
    Attack: a query-efficient black-box adversarial attack via random search", ECCV 2020, with fewer queries.
    """
    x_best, success, loss_best = _start(x)
    for query in range(QUERIES):
        if success.all():
            break
        if query < CORNERS:
            x_adv = threat.single_step(x, torch.randn_like(x))
        else:
            x_adv = redraw_window(x_best, x, 0.5 * (1 - query / QUERIES) ** 2, threat)
        met, loss = goal.assess(victim, x_adv, y)
        x_best, success, loss_best = _better(x_best, success, loss_best, x_adv, met, loss)
    return x_best


def more_steps(
    victim: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, goal: Goal, threat: Threat
) -> tuple[Tensor, Tensor]:
    """A few plain gradient steps from `x_adv`: the best points (B, C, H, W) and the loss (B,) of the goal's first part.

    The steps ascend the loss of the first part of the goal that an image does not meet yet.
    """
    x_best, success, loss_best = _start(x_adv)
    leading, *others = goal.parts()
    for step in range(MORE_STEPS + 1):
        met, loss = leading.assess(victim, x_adv, y)
        all_met = met.clone()
        for part in others:
            all_met &= part.met(victim, x_adv, y)
        x_best, success, loss_best = _better(x_best, success, loss_best, x_adv, all_met, loss.detach())
        if step == MORE_STEPS:
            break
        grad = _gradient_of_first_unmet(victim, x_adv, y, goal)
        x_adv = threat.project(x_adv + threat.eps / MORE_STEPS * threat.direction(x_adv, grad), x)
    return x_best, loss_best


def input_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient of the sum of `function(x)` with respect to x; zero where there is none."""
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        values = function(leaf).sum()
        if not values.requires_grad:
            return torch.zeros_like(x)
        (grad,) = torch.autograd.grad(values, leaf, allow_unused=True)
        return torch.zeros_like(x) if grad is None else grad


def _gradient_of_first_unmet(victim: Victim, x_adv: Tensor, y: Tensor, goal: Goal) -> Tensor:
    def first_unmet(x: Tensor) -> Tensor:
        total = torch.zeros(len(x), device=x.device)
        met_so_far = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for part in goal.parts():
            met, loss = part.assess(victim, x, y)
            total = total + torch.where(met_so_far & ~met, loss, 0)
            met_so_far &= met
        return total

    return input_gradient(first_unmet, x_adv).nan_to_num(0, 0, 0)


def _start(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n = len(x)
    success = torch.zeros(n, dtype=torch.bool, device=x.device)
    return x, success, torch.full((n,), -math.inf, device=x.device)


def _better(
    x_best: Tensor, success: Tensor, loss_best: Tensor, x_adv: Tensor, met: Tensor, loss: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A point that meets the goal is better than one that does not, then the higher loss is better."""
    better = (met & ~success) | ((met == success) & (loss > loss_best))
    return torch.where(better.view(-1, 1, 1, 1), x_adv, x_best), success | met, torch.where(better, loss, loss_best)
