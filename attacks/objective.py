"""A goal taken apart into a label and a threshold, and how far an image is from each."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .errors import InputError
from .goals import Goal, Misclassified, Targeted, Undetected, Victim, logits_and_score

TINY = 1e-12  # a scale below this counts as zero


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


def logit_margin(logits: Tensor, label: Tensor) -> Tensor:
    """(B,) logit of `label` (B,) minus the highest other logit, of logits (B, K)."""
    others = logits.scatter(1, label[:, None], -math.inf).amax(1)
    return logits.gather(1, label[:, None]).squeeze(1) - others


@torch.no_grad()
def margin_scales(victim: Victim, x: Tensor, y: Tensor, objective: AttackObjective) -> tuple[float, float]:
    """Units for the logit margin and the score margin: their median sizes on clean images x with true labels y."""
    logits, score = logits_and_score(victim, x)
    margins = logit_margin(logits, y), objective.score_margin(score)
    logit_scale, score_scale = (margin.abs().median().item() for margin in margins)
    return (logit_scale if logit_scale > TINY else 1.0), (score_scale if score_scale > TINY else 1.0)


@torch.no_grad()
def nearness(victim: Victim, x: Tensor, x_adv: Tensor, y: Tensor, goal: Goal) -> Tensor:
    """(B,) the smaller margin of label and score at points x_adv, positive where the goal is met.

    The units are the median margins of the clean images x with true labels y. For a goal that `AttackObjective` does
    not know, every point that has not met it counts as near.
    """
    try:
        objective = AttackObjective.of(goal)
    except InputError:
        return torch.zeros(len(x), device=x.device)
    if math.isinf(objective.threshold):
        logits = victim(x_adv)
        scale = logit_margin(victim(x), y).abs().median().clamp_min(TINY)
        return objective.logit_margin(logits, y) / scale
    logits, score = logits_and_score(victim, x_adv)
    logit_scale, score_scale = margin_scales(victim, x, y, objective)
    return torch.minimum(objective.logit_margin(logits, y) / logit_scale, objective.score_margin(score) / score_scale)
