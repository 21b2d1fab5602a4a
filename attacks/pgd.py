"""Gradient attacks of our own: projected gradient ascent on the goal's loss, and its single step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .base import Attack, IterativeAttack
from .goals import Goal


class PGD(IterativeAttack):
    """Projected gradient ascent on the goal's loss.

    Keeps the best point seen, not the last: one that meets the goal before one that does not, then the higher loss.
    A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
    """

    name = "pgd"

    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        moved = self.threat.project(x + self.threat.random(x), x) if self.random_start else x
        best, reached = moved, torch.zeros(len(x), dtype=torch.bool, device=x.device)
        highest = torch.full((len(x),), -math.inf, device=x.device)
        for step in range(self.steps + 1):
            moved = moved.detach().requires_grad_()
            met, loss = goal.assess(victim, moved, y)
            better = (met & ~reached) | ((met == reached) & (loss.detach() > highest))
            best = torch.where(better.view(-1, 1, 1, 1), moved.detach(), best)
            highest, reached = torch.where(better, loss.detach(), highest), reached | met
            if step == self.steps:
                break
            # A sum, not a mean: a mean over the batch pushes small gradients towards zero.
            (gradient,) = torch.autograd.grad(loss.sum(), moved)
            moved = self.threat.project(moved.detach() + self.alpha * self.threat.steepest(gradient), x)
        return best


class FGSM(Attack):
    """One step of size eps along the steepest direction (the gradient's sign for linf).

    I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015.
    """

    name = "fgsm"

    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        moved = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(goal.assess(victim, moved, y)[1].sum(), moved)
        return self.threat.project(x + self.threat.eps * self.threat.steepest(gradient), x)
