"""Gradient attacks of our own: projected gradient ascent on the goal's loss, and its single step."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from .base import Attack, IterativeAttack
from .finite import finite, not_finite, refuse
from .goals import Goal

WORTH_SHRINKING = 0.9  # share of the batch still standing, above which copying it costs more than it saves


@dataclass(kw_only=True, eq=False)
class PGD(IterativeAttack):
    """Projected gradient ascent on the goal's loss.

    Keeps the best point seen, not the last: one that meets the goal before one that does not, then the higher loss.
    A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.

    Args:
        eps, steps, alpha, random_start, norm, restarts, seed, batch_size: as for every `IterativeAttack`.
        early_exit: images that meet the goal leave the batch: the same images fall, sooner, with a lower loss.

    Raises:
        NonFiniteLoss: from a call, when the loss or its gradient is not finite.
    """

    name = "pgd"

    early_exit: bool = False

    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        start = self.threat.project(x + self.threat.random(x), x) if self.random_start else x
        result = start.clone()
        standing = _Standing.all_of(x, y, start)
        broken = torch.zeros_like(standing.reached)
        for step in range(self.steps + 1):
            moved = standing.moved.detach().requires_grad_(step < self.steps)
            met, loss = goal.assess(victim, moved, standing.y)
            standing.note(moved.detach(), met, loss.detach())
            # The last point is looked at for those images alone that have met the goal nowhere else.
            leave = self.early_exit or step == self.steps - 1
            kept = (~standing.reached).nonzero().squeeze(1) if leave else standing.rows
            if step == self.steps or not len(kept):
                break
            # A sum, not a mean: a mean over the batch pushes small gradients towards zero.
            (gradient,) = torch.autograd.grad(loss.sum(), moved)
            broken[standing.rows] |= not_finite(loss, gradient)
            standing.moved = self.threat.project(
                moved.detach() + self.step_size * self.threat.steepest(gradient), standing.x
            )
            if len(kept) < WORTH_SHRINKING * len(standing.rows):
                result[standing.rows] = standing.best
                standing = standing.at(kept)
        refuse(self.name, broken)
        result[standing.rows] = standing.best
        return result


@dataclass
class _Standing:
    """The images that are still attacked, one row each; `rows` is where they lie in the batch."""

    rows: Tensor
    x: Tensor
    y: Tensor
    moved: Tensor
    best: Tensor
    highest: Tensor
    reached: Tensor

    @classmethod
    def all_of(cls, x: Tensor, y: Tensor, start: Tensor) -> _Standing:
        rows = torch.arange(len(x), device=x.device)
        return cls(rows, x, y, start, start, torch.full_like(rows, -math.inf, dtype=x.dtype), rows < 0)

    def note(self, moved: Tensor, met: Tensor, loss: Tensor) -> None:
        better = (met & ~self.reached) | ((met == self.reached) & (loss > self.highest))
        self.best = torch.where(better.view(-1, 1, 1, 1), moved, self.best)
        self.highest, self.reached = torch.where(better, loss, self.highest), self.reached | met

    def at(self, kept: Tensor) -> _Standing:
        return _Standing(*(getattr(self, field.name)[kept] for field in fields(self)))


class FGSM(Attack):
    """One step of size eps along the steepest direction (the gradient's sign for linf).

    I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015.

    Raises:
        NonFiniteLoss: from a call, when the loss or its gradient is not finite.
    """

    name = "fgsm"

    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        moved = x.detach().requires_grad_()
        loss = goal.assess(victim, moved, y)[1]
        (gradient,) = torch.autograd.grad(loss.sum(), moved)
        finite(self.name, loss, gradient)
        return self.threat.project(x + self.threat.eps * self.threat.steepest(gradient), x)
