"""Our own gradient attacks on the goal's loss: PGD and FGSM."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from .base import Attack
from .errors import nonfinite, raise_if_nonfinite
from .goals import Goal
from .iterative import IterativeAttack

SHRINK_BELOW = 0.9  # share of the batch that remains, above which copying the batch costs more than it saves


@dataclass(kw_only=True, eq=False)
class PGD(IterativeAttack):
    """Projected gradient ascent on the goal's loss.

    Keeps the best point seen, not the last: a point that meets the goal is better than one that does not, then the
    higher loss is better. A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
    For l1 a step changes 1 % of the values (F. Tramèr, D. Boneh, "Adversarial Training and Robustness for Multiple
    Perturbations", NeurIPS 2019).

    Args:
        early_exit: images that meet the goal leave the batch. The same images are broken in less time, with a lower
            loss.
        eps, steps, alpha, random_start, front_end, leaky, norm, restarts, seed, batch_size: as for every
            `IterativeAttack`.

    Raises:
        NonFiniteLoss: from a call, when the loss or its gradient is not finite.
    """

    name = "pgd"

    early_exit: bool = False

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        start = self.threat.project(x + self.threat.random(x), x) if self.random_start else x
        x_best = start.clone()
        remaining = _Remaining.all_of(x, y, start)
        flags = torch.zeros_like(remaining.success)
        for step in range(self.steps + 1):
            x_adv = remaining.x_adv.detach().requires_grad_(step < self.steps)
            met, loss = goal.assess(victim, x_adv, remaining.y)
            remaining.update(x_adv.detach(), met, loss.detach())
            # Only images that have not met the goal yet are evaluated at the last point.
            leave = self.early_exit or step == self.steps - 1
            kept = (~remaining.success).nonzero().squeeze(1) if leave else remaining.rows
            if step == self.steps or not len(kept):
                break
            # A sum, not a mean: a mean over the batch pushes small gradients towards zero.
            (grad,) = torch.autograd.grad(loss.sum(), x_adv)
            flags[remaining.rows] |= nonfinite(loss, grad)
            x_adv = x_adv.detach()
            remaining.x_adv = self.threat.project(
                x_adv + self.step_size * self.threat.direction(x_adv, grad), remaining.x
            )
            if len(kept) < SHRINK_BELOW * len(remaining.rows):
                x_best[remaining.rows] = remaining.x_best
                remaining = remaining.at(kept)
        raise_if_nonfinite(self.name, flags)
        x_best[remaining.rows] = remaining.x_best
        return x_best


@dataclass
class _Remaining:
    """The images that are still attacked, one row each; `rows` are their places in the batch."""

    rows: Tensor
    x: Tensor
    y: Tensor
    x_adv: Tensor
    x_best: Tensor
    loss_best: Tensor
    success: Tensor

    @classmethod
    def all_of(cls, x: Tensor, y: Tensor, start: Tensor) -> _Remaining:
        rows = torch.arange(len(x), device=x.device)
        return cls(rows, x, y, start, start, torch.full_like(rows, -math.inf, dtype=x.dtype), rows < 0)

    def update(self, x_adv: Tensor, met: Tensor, loss: Tensor) -> None:
        better = (met & ~self.success) | ((met == self.success) & (loss > self.loss_best))
        self.x_best = torch.where(better.view(-1, 1, 1, 1), x_adv, self.x_best)
        self.loss_best, self.success = torch.where(better, loss, self.loss_best), self.success | met

    def at(self, kept: Tensor) -> _Remaining:
        return _Remaining(*(getattr(self, field.name)[kept] for field in fields(self)))


class FGSM(Attack):
    """One step of size eps along the steepest direction (the sign of the gradient for linf).

    For l1 the pixels of the largest gradients change as far as [0, 1] allows, until eps is used up.

    I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015.

    Raises:
        NonFiniteLoss: from a call, when the loss or its gradient is not finite.
    """

    name = "fgsm"

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        x_adv = x.detach().requires_grad_()
        loss = goal.assess(victim, x_adv, y)[1]
        (grad,) = torch.autograd.grad(loss.sum(), x_adv)
        raise_if_nonfinite(self.name, nonfinite(loss, grad))
        return self.threat.single_step(x, grad)
