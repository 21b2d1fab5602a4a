"""A classifier with a detector as an ordinary classifier, for attacks that know only classifiers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from ..base import Attack
from ..errors import InputError
from ..goals import Goal, Victim, logits_and_score
from ..objective import AttackObjective, margin_scales

TINY = 1e-12  # size of a logit that lies on the decision boundary
HUGE = 1e30  # stands for infinity


class RejectingClassifier(nn.Module):
    """The decision with rejection, for images of one true label, as the logits of a classifier.

    Its logits z (B, K) are 0 at the true label. At every other label they are the smaller of two margins, each in its
    unit: the victim's logit margin of that label, and threshold − score, with the score computed as if that label were
    predicted. So argmax z is the true label exactly where the victim predicts it or the score is above the threshold.
    The logits are finite and differentiable in x.

    Args:
        victim: a `ScoredVictim`. Its `logits_and_label_scores(x) -> (logits, scores)`, both (B, K), is used where it
            has that method; otherwise its score stands for the scores of all labels.
        label: the true label of all images.
        threshold: scores above it are rejected.
        scales: units of the logit margin and of the score margin.
    """

    def __init__(
        self, victim: nn.Module, label: int, threshold: float, scales: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        super().__init__()
        self.victim, self.label, self.threshold, self.scales = victim, label, threshold, scales
        self.training = victim.training

    def extra_repr(self) -> str:
        return f"label={self.label}, threshold={self.threshold:.6g}, scales={self.scales}"

    def forward(self, x: Tensor) -> Tensor:
        """Logits z (B, K) of images (B, C, H, W)."""
        logits, scores = _label_scores(self.victim, x)
        predicted = logits.argmax(1, keepdim=True)
        first, second = logits.topk(2, dim=1).values.split(1, dim=1)
        logit_margin = (logits - first.expand_as(logits).scatter(1, predicted, second)) / self.scales[0]
        score_margin = (max(-HUGE, min(self.threshold, HUGE)) - scores) / self.scales[1]
        z = torch.minimum(logit_margin, score_margin).nan_to_num(-HUGE).clamp(-HUGE, HUGE)
        # With ties and rounding, z must still decide as the victim does.
        accepted = scores.gather(1, predicted) <= self.threshold
        positive = torch.zeros_like(z, dtype=torch.bool).scatter(1, predicted, accepted)
        wrong_sign = torch.where(positive, z < TINY, z > -TINY)
        z = torch.where(wrong_sign, z - z.detach() + TINY * (2.0 * positive - 1.0), z)
        return z.index_fill(1, torch.tensor([self.label], device=z.device), 0.0)


@dataclass(kw_only=True, eq=False)
class ClassifierAttack(Attack):
    """An attack on ordinary classifiers, or on the decision with rejection. A subclass writes `perturb_classifier`.

    Args:
        with_rejection: attack the decision with rejection, so that the attack knows the detector. Without it the attack
            does so only where the goal asks about the detector.
        eps, norm, restarts, seed, batch_size: as for every `Attack`.
    """

    with_rejection: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.with_rejection:
            self.knows_detector, self.name = True, f"{type(self).name}-rejecting"

    @final
    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        x_adv = x.clone()
        for classifier, rows in _classifiers(victim, x, y, goal):
            x_adv[rows] = self.perturb_classifier(classifier, x, y, rows)
        return x_adv

    @final
    def perturb_from(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal, start: Tensor) -> Tensor:
        x_adv = x.clone()
        for classifier, rows in _classifiers(victim, x, y, goal):
            x_adv[rows] = self.perturb_classifier_from(classifier, x, y, rows, start)
        return x_adv

    @abstractmethod
    def perturb_classifier(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """Images near x[rows] that `classifier`, with logits (B, K), misclassifies; x and y are the whole batch."""

    def perturb_classifier_from(
        self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor, start: Tensor
    ) -> Tensor:
        """The same from points `start` (B, C, H, W), for attacks that can begin anywhere; by default not used."""
        return self.perturb_classifier(classifier, x, y, rows)


def _classifiers(victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Iterator[tuple[nn.Module, Tensor]]:
    """Classifiers that misclassify an image exactly where the goal is met, each with the rows of its images."""
    objective = AttackObjective.of(goal)
    if objective.target is not None:
        raise InputError(f"goal: got {goal}, must be Misclassified, alone or & Undetected")
    if objective.threshold == math.inf:
        yield victim, torch.arange(len(x), device=x.device)
        return
    scales = margin_scales(victim, x, y, objective)
    for label in y.unique().tolist():
        yield RejectingClassifier(victim, label, objective.threshold, scales), (y == label).nonzero().squeeze(1)


def _label_scores(victim: Victim, x: Tensor) -> tuple[Tensor, Tensor]:
    both = getattr(victim, "logits_and_label_scores", None)
    if both is not None:
        return both(x)
    logits, score = logits_and_score(victim, x)
    return logits, score[:, None].expand_as(logits)
