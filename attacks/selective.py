"""The simplest attack that knows the detector: fool the classifier, then please the detector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .base import IterativeAttack
from .errors import InputError
from .goals import Goal, Misclassified, Targeted, Undetected, scored


class SelectivePGD(IterativeAttack):
    """Steps up the classification loss until an image is misread, then down the detector's score while it stays so.

    Keeps the least suspicious misread point seen. O. Bryniarski, N. Hingun, P. Pachuca, V. Wang, N. Carlini,
    "Evading Adversarial Example Detection Defenses with Orthogonal Projected Gradient Descent", ICLR 2022.
    """

    name = "selective"
    knows_detector = True

    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        leading, *others = goal.parts()
        if not isinstance(leading, (Misclassified, Targeted)) or not all(isinstance(o, Undetected) for o in others):
            raise InputError(f"goal: got {goal}, must be Misclassified or Targeted, alone or & Undetected")
        detector = scored(victim)
        moved = self.threat.project(x + self.threat.random(x), x) if self.random_start else x
        best, lowest = moved, torch.full((len(x),), math.inf, device=x.device)
        for step in range(self.steps + 1):
            moved = moved.detach().requires_grad_()
            (misread, loss), score = leading.assess(victim, moved, y), detector.score(moved)
            better = misread & (score.detach() < lowest)
            best = torch.where(better.view(-1, 1, 1, 1), moved.detach(), best)
            lowest = torch.where(better, score.detach(), lowest)
            if step == self.steps:
                break
            (gradient,) = torch.autograd.grad(torch.where(misread, -score, loss).sum(), moved)
            moved = self.threat.project(moved.detach() + self.alpha * self.threat.steepest(gradient), x)
        never = torch.isinf(lowest).view(-1, 1, 1, 1)
        return torch.where(never, moved.detach(), best)
