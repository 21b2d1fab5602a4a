"""Gradient attacks of our own: projected gradient ascent on the goal's loss, and its single step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .base import Attack, IterativeAttack
from .goals import Goal


class PGD(IterativeAttack):
    """Projected gradient ascent; keeps the point of highest loss seen, not the last.

    A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
    """

    name = "pgd"

    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        moved = self.threat.project(x + self.threat.random(x), x) if self.random_start else x
        best, highest = moved, torch.full((len(x),), -math.inf, device=x.device)
        for _ in range(self.steps):
            moved = moved.detach().requires_grad_()
            # A sum, not a mean: a mean over the batch pushes small gradients towards zero.
            loss = goal.loss(victim, moved, y)
            (gradient,) = torch.autograd.grad(loss.sum(), moved)
            best, highest = _better(best, highest, moved.detach(), loss.detach())
            moved = self.threat.project(moved.detach() + self.alpha * self.threat.steepest(gradient), x)
        with torch.no_grad():
            return _better(best, highest, moved, goal.loss(victim, moved, y))[0]


def _better(best: Tensor, highest: Tensor, moved: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
    """Image by image, whichever has the higher loss."""
    rises = loss > highest
    return torch.where(rises.view(-1, 1, 1, 1), moved, best), torch.where(rises, loss, highest)


class FGSM(Attack):
    """One step of size eps along the steepest direction (the gradient's sign for linf).

    I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015.
    """

    name = "fgsm"

    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        moved = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(goal.loss(victim, moved, y).sum(), moved)
        return self.threat.project(x + self.threat.eps * self.threat.steepest(gradient), x)
