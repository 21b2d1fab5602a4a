"""Base class of the gradient attacks on classifier and detector together."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from ..goals import Goal, logits_and_score
from ..iterative import IterativeAttack
from ..objective import AttackObjective
from ..precision import exact_model
from ..threat import Threat, threat_model
from .apgd import BestPoints, Confirm, Evaluate, apgd_ascent

SLACK = 0.02  # by how much a hinge loss overshoots its goal, in units of the clean images' margins
WIDEST = {"linf": 1.0, "l2": 10.0, "l1": 3.0}  # radius of the ball in which an ascent begins, in units of eps
STAGES = {"linf": 0, "l2": 10, "l1": 2}  # balls larger than eps
STAGES_SHARE = {"linf": 0.0, "l2": 0.5, "l1": 0.6}  # share of the steps that they get together


@dataclass(kw_only=True, eq=False)
class DetectorAware(IterativeAttack):
    """An attack on classifier and detector together; a subclass writes `find_best`.

    For l2 and l1 an ascent starts outside the ball: in one of radius 10 eps (l1: 3 eps), which shrinks; it spends the
    last half of its steps (l1: 40 %) in the ball of radius eps. F. Croce, M. Hein, "Mind the box: l1-APGD
    for sparse adversarial attacks on image classifiers", ICML 2021, start so for l1.

    Args:
        steps: gradient steps of each ascent.
        alpha: a constant step size, inside the ball of radius eps; by default the step sizes adapt as in APGD (Croce &
            Hein 2020).
        early_exit: an image leaves as soon as it meets the goal; by default the attack goes on.
        eps, random_start, front_end, leaky, norm, restarts, seed, batch_size: as for every `IterativeAttack`.
    """

    knows_detector = True

    steps: int = 100
    early_exit: bool = False

    @final
    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        return self.find_best(victim, x, y, AttackObjective.of(goal)).x

    @abstractmethod
    def find_best(self, victim: nn.Module, x: Tensor, y: Tensor, objective: AttackObjective) -> BestPoints:
        """The best points near images x (B, C, H, W) with true labels y (B,)."""

    def run_apgd(
        self,
        evaluate: Evaluate,
        x: Tensor,
        objective: AttackObjective,
        confirm: Confirm | None = None,
        start: Tensor | None = None,
    ) -> BestPoints:
        """One ascent from `start`, by default from x or a random point; arguments as for `apgd_ascent`."""
        if start is None:
            start = self.random_or_clean(x)
        return shrinking_ascent(
            evaluate,
            x,
            start,
            self.threat,
            self.steps,
            name=self.name,
            threshold=objective.threshold if self.early_exit else -math.inf,
            fixed_step=self.alpha,
            confirm=confirm,
        )

    def random_or_clean(self, x: Tensor) -> Tensor:
        """(B, C, H, W) where an ascent for images x starts: at random points of the ball, or at x."""
        return self.threat.project(x + self.threat.random(x), x) if self.random_start else x


def shrinking_ascent(
    evaluate: Evaluate,
    x: Tensor,
    start: Tensor,
    threat: Threat,
    steps: int,
    *,
    name: str,
    threshold: float = -math.inf,
    fixed_step: float | None = None,
    confirm: Confirm | None = None,
) -> BestPoints:
    """`apgd_ascent`, which for l2 and l1 comes from larger balls unless the step is fixed; the same arguments."""
    widest = WIDEST[threat.norm] if fixed_step is None else 1.0
    outside = int(STAGES_SHARE[threat.norm] * steps) if widest > 1 else 0
    n_stages = min(STAGES[threat.norm], outside)
    stage_steps = outside // n_stages if n_stages else 0
    for stage in range(n_stages):
        ball = threat_model(threat.norm, threat.eps * widest ** (1 - stage / n_stages))
        start = apgd_ascent(evaluate, x, ball.project(start, x), ball, stage_steps, name=name, confirm=confirm).x
    return apgd_ascent(
        evaluate,
        x,
        threat.project(start, x),
        threat,
        steps - stage_steps * n_stages,
        name=name,
        threshold=threshold,
        fixed_step=fixed_step,
        confirm=confirm,
    )


def confirmed_by(victim: nn.Module, y: Tensor, objective: AttackObjective) -> Confirm:
    """For `apgd_ascent`: the label and the score that the model itself gives, of images with true labels y (B,)."""
    model = exact_model(victim)

    @torch.no_grad()
    def confirm(x_adv: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        logits, score = logits_and_score(model, x_adv)
        return objective.misclassified(logits, y[rows]), score

    return confirm
