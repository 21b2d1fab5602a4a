"""Base class of the gradient attacks on classifier and detector together."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..base import IterativeAttack
from ..errors import InputError
from ..goals import Goal, Misclassified, Targeted, Undetected, logits_and_score
from ..threat import threat_model
from .apgd import BestPoints, Evaluate, apgd_ascent

SLACK = 0.02  # by how much a hinge loss overshoots its goal, in units of the clean images' margins
TINY = 1e-12  # a scale below this counts as zero
WIDEST = {"linf": 1.0, "l2": 10.0}  # radius of the ball in which an ascent begins, in units of eps
STAGES = 10  # balls larger than eps; together they get half of the steps


@dataclass(frozen=True)
class AttackObjective:
    """A goal in parts: a wrong label, any or one, with a score at or below a threshold.

    Attributes:
        target: the target label; None for any wrong label.
        threshold: the highest accepted score; infinite where the goal does not ask about the detector.
    """

    target: int | None
    threshold: float

    @classmethod
    def of(cls, goal: Goal) -> AttackObjective:
        """The parts of a goal.

        Raises:
            InputError: the goal is not `Misclassified` or `Targeted`, alone or `& Undetected`.
        """
        leading, *others = goal.parts()
        if isinstance(leading, (Misclassified, Targeted)) and all(isinstance(part, Undetected) for part in others):
            thresholds = [part.threshold for part in others if isinstance(part, Undetected)]
            return cls(leading.label if isinstance(leading, Targeted) else None, min(thresholds, default=math.inf))
        raise InputError(f"goal: got {goal}, must be Misclassified or Targeted, alone or & Undetected")

    def misclassified(self, logits: Tensor, y: Tensor) -> Tensor:
        """(B,) bool: whether the predicted label meets the goal."""
        label = logits.argmax(1)
        return label != y if self.target is None else (label == self.target) & (y != self.target)

    def classification_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """(B,) losses that rise towards a label that meets the goal."""
        if self.target is None:
            return cross_entropy(logits, y, reduction="none")
        return -cross_entropy(logits, torch.full_like(y, self.target), reduction="none")

    def target_label(self, logits: Tensor, y: Tensor) -> Tensor:
        """(B,) the target, or else the wrong label of the highest logit."""
        if self.target is not None:
            return torch.full_like(y, self.target)
        return logits.scatter(1, y[:, None], -math.inf).argmax(1)

    def logit_margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """(B,) margin of the goal's label among the logits (B, K); positive where the label meets the goal."""
        if self.target is None:
            return -logit_margin(logits, y)
        return logit_margin(logits, torch.full_like(y, self.target))

    def score_margin(self, score: Tensor) -> Tensor:
        """(B,) threshold − score, positive where accepted; −score where the goal has no threshold."""
        return self.threshold - score if math.isfinite(self.threshold) else -score


@dataclass(kw_only=True, eq=False)
class DetectorAware(IterativeAttack):
    """An attack on classifier and detector together; a subclass writes `find_best`.

    For l2 an ascent starts outside the ball: it begins in a ball of radius 10 eps, which shrinks, and spends the second
    half of its steps in the ball of radius eps. F. Croce, M. Hein, "Mind the box: l1-APGD for sparse adversarial
    attacks on image classifiers", ICML 2021, start so for l1.

    Args:
        steps: gradient steps of each ascent.
        alpha: a constant step size, inside the ball of radius eps; by default the step sizes adapt as in APGD (Croce &
            Hein 2020).
        early_exit: an image leaves as soon as it meets the goal; by default the attack goes on.
        eps, random_start, norm, restarts, seed, batch_size: as for every `IterativeAttack`.
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

    def run_apgd(self, evaluate: Evaluate, x: Tensor, objective: AttackObjective) -> BestPoints:
        """One ascent from x, or from a random start."""
        start = self.threat.project(x + self.threat.random(x), x) if self.random_start else x
        widest = WIDEST[self.norm] if self.alpha is None else 1.0
        n_stages = min(STAGES, self.steps // 2) if widest > 1 else 0
        stage_steps = self.steps // 2 // n_stages if n_stages else 0
        for stage in range(n_stages):
            ball = threat_model(self.norm, self.eps * widest ** (1 - stage / n_stages))
            start = apgd_ascent(evaluate, x, ball.project(start, x), ball, stage_steps, name=self.name).x
        return apgd_ascent(
            evaluate,
            x,
            self.threat.project(start, x),
            self.threat,
            self.steps - stage_steps * n_stages,
            name=self.name,
            threshold=objective.threshold if self.early_exit else -math.inf,
            fixed_step=self.alpha,
        )


def logit_margin(logits: Tensor, label: Tensor) -> Tensor:
    """(B,) logit of `label` (B,) minus the highest other logit, of logits (B, K)."""
    others = logits.scatter(1, label[:, None], -math.inf).amax(1)
    return logits.gather(1, label[:, None]).squeeze(1) - others


@torch.no_grad()
def margin_scales(victim: nn.Module, x: Tensor, y: Tensor, objective: AttackObjective) -> tuple[float, float]:
    """Units for the logit margin and the score margin: their median sizes on clean images x with true labels y."""
    logits, score = logits_and_score(victim, x)
    margins = logit_margin(logits, y), objective.score_margin(score)
    logit_scale, score_scale = (margin.abs().median().item() for margin in margins)
    return (logit_scale if logit_scale > TINY else 1.0), (score_scale if score_scale > TINY else 1.0)


@torch.no_grad()
def exact_scores(victim: nn.Module, x: Tensor, misclassified: Tensor, score: Tensor) -> Tensor:
    """(B,) the victim's own scores where misclassified; elsewhere the estimates in `score`."""
    if misclassified.any():
        score = score.clone()
        score[misclassified] = logits_and_score(victim, x[misclassified])[1]
    return score
