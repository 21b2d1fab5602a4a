"""What the gradient attacks on classifier and detector together have in common."""

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
from ..goals import Goal, Misclassified, Targeted, Undetected, judged
from ..threat import threat_model
from .apgd import Found, Look, climb

SLACK = 0.02  # how far beyond its goal a hinge pulls, in units of the clean images' margins
LEAST = 1e-12  # a scale below this is taken for none
WIDEST = {"linf": 1.0, "l2": 10.0}  # the ball that an ascent begins in, in units of eps
STAGES = 10  # balls outside that of eps, with half of the steps between them


@dataclass(frozen=True)
class Pursuit:
    """A goal taken apart: a wrong label, any or one, with a score at or below a threshold.

    Attributes:
        target: the wanted label; None for any wrong one.
        threshold: infinite where the goal does not ask about the detector.
    """

    target: int | None
    threshold: float

    @classmethod
    def of(cls, goal: Goal) -> Pursuit:
        """Raises InputError for a goal that is not `Misclassified` or `Targeted`, alone or `& Undetected`."""
        leading, *others = goal.parts()
        if isinstance(leading, (Misclassified, Targeted)) and all(isinstance(part, Undetected) for part in others):
            thresholds = [part.threshold for part in others if isinstance(part, Undetected)]
            return cls(leading.label if isinstance(leading, Targeted) else None, min(thresholds, default=math.inf))
        raise InputError(f"goal: got {goal}, must be Misclassified or Targeted, alone or & Undetected")

    def misread(self, logits: Tensor, y: Tensor) -> Tensor:
        """(B,) bool: whether the label is one that is wanted."""
        label = logits.argmax(1)
        return label != y if self.target is None else (label == self.target) & (y != self.target)

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """(B,) losses that rise towards a wanted label."""
        if self.target is None:
            return cross_entropy(logits, y, reduction="none")
        return -cross_entropy(logits, torch.full_like(y, self.target), reduction="none")

    def wanted(self, logits: Tensor, y: Tensor) -> Tensor:
        """(B,) the wanted label of the highest logit."""
        if self.target is not None:
            return torch.full_like(y, self.target)
        return logits.scatter(1, y[:, None], -math.inf).argmax(1)

    def lead(self, logits: Tensor, y: Tensor) -> Tensor:
        """(B,) by how much a wanted label leads among the logits (B, K)."""
        return -leads(logits, y) if self.target is None else leads(logits, torch.full_like(y, self.target))

    def excess(self, score: Tensor) -> Tensor:
        """(B,) by how much a score exceeds the threshold; itself where there is none."""
        return score - self.threshold if math.isfinite(self.threshold) else score


@dataclass(kw_only=True, eq=False)
class DetectorAware(IterativeAttack):
    """Ascends with the victim's score in view; a subclass writes `hunt`.

    For l2 an ascent comes from outside: it begins in a ball of 10 eps, which shrinks, and spends the second half of its
    steps in that of eps. F. Croce, M. Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image
    classifiers", ICML 2021, begin so for l1.

    Args:
        eps: radius of the budget, in [0, 1] pixel units.
        steps: gradient steps.
        alpha: a constant step size, inside the ball of eps; by default the steps adapt, as APGD's do (Croce & Hein
            2020).
        early_exit: leave an image alone as soon as it meets the goal; by default the attack goes on.
        random_start, norm, restarts, seed, batch_size: as for every `IterativeAttack`.
    """

    knows_detector = True

    steps: int = 100
    early_exit: bool = False

    @final
    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        return self.hunt(victim, x, y, Pursuit.of(goal)).x

    @abstractmethod
    def hunt(self, victim: nn.Module, x: Tensor, y: Tensor, pursuit: Pursuit) -> Found:
        """The least suspicious misread points near x (B, C, H, W) with true labels y (B,)."""

    def climb(self, look: Look, x: Tensor, pursuit: Pursuit) -> Found:
        """One ascent from x or a random start."""
        point = self.threat.project(x + self.threat.random(x), x) if self.random_start else x
        widest = WIDEST[self.norm] if self.alpha is None else 1.0
        outside = range(min(STAGES, self.steps // 2) if widest > 1 else 0)
        inwards = len(outside) and self.steps // 2 // len(outside)  # steps a stage
        for stage in outside:
            ball = threat_model(self.norm, self.eps * widest ** (1 - stage / len(outside)))
            point = climb(look, x, ball.project(point, x), ball, inwards, name=self.name).x
        return climb(
            look,
            x,
            self.threat.project(point, x),
            self.threat,
            self.steps - inwards * len(outside),
            name=self.name,
            threshold=pursuit.threshold if self.early_exit else -math.inf,
            fixed_step=self.alpha,
        )


def leads(logits: Tensor, label: Tensor) -> Tensor:
    """(B,) by how much `label` (B,) leads among the logits (B, K)."""
    others = logits.scatter(1, label[:, None], -math.inf).amax(1)
    return logits.gather(1, label[:, None]).squeeze(1) - others


@torch.no_grad()
def scales(victim: nn.Module, x: Tensor, y: Tensor, pursuit: Pursuit) -> tuple[float, float]:
    """What a unit of lead and of excess is: their median sizes on the clean images x under their true labels y."""
    logits, score = judged(victim, x)
    lead, excess = (values.abs().median().item() for values in (leads(logits, y), pursuit.excess(score)))
    return (lead if lead > LEAST else 1.0), (excess if excess > LEAST else 1.0)


@torch.no_grad()
def confirmed(victim: nn.Module, x: Tensor, misread: Tensor, score: Tensor) -> Tensor:
    """The victim's own scores where misread; elsewhere those that were estimated."""
    if misread.any():
        score = score.clone()
        score[misread] = judged(victim, x[misread])[1]
    return score
