"""A classifier with a detector as an ordinary classifier, for attacks that know only those."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn

from ..base import Attack
from ..errors import InputError
from ..goals import Goal, Victim, judged
from .base import Pursuit, scales

TINY = 1e-12  # the sign of a logit that lies on the boundary
HUGE = 1e30  # what stands for infinity


class Rejecting(nn.Module):
    """The decision with rejection, for images of one true label: misread exactly where misread *and* accepted.

    Its logits z (B, K) are 0 at the true label and, at every other label, the smaller of how far that label leads
    among the victim's logits and how far the score, judged as though that label were predicted, lies below the
    threshold, each in its unit. argmax z is the true label just where the victim's label is right or the score is
    above the threshold. Finite and differentiable in x.

    Args:
        victim: a `ScoredVictim`; asked for `logits_and_label_scores(x) -> (logits, scores)`, (B, K) both, where it
            has that, else its score stands for the scores under all labels.
        label: the true label of all images.
        threshold: scores above it are rejected.
        units: of a logit's lead and of a score.
    """

    def __init__(
        self, victim: nn.Module, label: int, threshold: float, units: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        super().__init__()
        self.victim, self.label, self.threshold, self.units = victim, label, threshold, units
        self.training = victim.training

    def extra_repr(self) -> str:
        return f"label={self.label}, threshold={self.threshold:.6g}, units={self.units}"

    def forward(self, x: Tensor) -> Tensor:
        """Logits z (B, K) of images (B, C, H, W)."""
        logits, scores = _label_scores(self.victim, x)
        predicted = logits.argmax(1, keepdim=True)
        first, second = logits.topk(2, dim=1).values.split(1, dim=1)
        lead = (logits - first.expand_as(logits).scatter(1, predicted, second)) / self.units[0]
        leeway = (max(-HUGE, min(self.threshold, HUGE)) - scores) / self.units[1]
        z = torch.minimum(lead, leeway).nan_to_num(-HUGE).clamp(-HUGE, HUGE)
        # Ties and rounding must not decide otherwise than the victim does.
        accepted = scores.gather(1, predicted) <= self.threshold
        above = torch.zeros_like(z, dtype=torch.bool).scatter(1, predicted, accepted)
        off = torch.where(above, z < TINY, z > -TINY)
        z = torch.where(off, z - z.detach() + TINY * (2.0 * above - 1.0), z)
        return z.index_fill(1, torch.tensor([self.label], device=z.device), 0.0)


class ClassifierAttack(Attack):
    """An attack on ordinary classifiers; a goal that asks about the detector is pursued on `Rejecting` ones.

    A subclass writes `fool`; one with `knows_detector` set attacks the detector too where no goal is given.
    """

    @final
    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        moved = x.clone()
        for classifier, rows in _classifiers(victim, x, y, goal):
            moved[rows] = self.fool(classifier, x, y, rows)
        return moved

    @abstractmethod
    def fool(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """Images near x[rows] that `classifier`, logits (B, K), gives another label than y[rows]; x: all there are."""


def _classifiers(victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Iterator[tuple[nn.Module, Tensor]]:
    """Classifiers that misread an image just where the goal is met, each with the rows it is for."""
    pursuit = Pursuit.of(goal)
    if pursuit.target is not None:
        raise InputError(f"goal: got {goal}, must be Misclassified, alone or & Undetected")
    if pursuit.threshold == math.inf:
        yield victim, torch.arange(len(x), device=x.device)
        return
    units = scales(victim, x, y, pursuit)
    for label in y.unique().tolist():
        yield Rejecting(victim, label, pursuit.threshold, units), (y == label).nonzero().squeeze(1)


def _label_scores(victim: Victim, x: Tensor) -> tuple[Tensor, Tensor]:
    both = getattr(victim, "logits_and_label_scores", None)
    if both is not None:
        return both(x)
    logits, score = judged(victim, x)
    return logits, score[:, None].expand_as(logits)
