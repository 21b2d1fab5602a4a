"""The goals of an adversary: each says which images meet it and gives a loss that rises towards it.

Combine goals with `&`: `Misclassified() & Undetected(threshold)` is a wrong label that the detector accepts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .errors import InputError


class Victim(Protocol):
    """A classifier: maps images (B, C, H, W) in [0, 1] to logits (B, K)."""

    def __call__(self, x: Tensor, /) -> Tensor: ...


@runtime_checkable
class ScoredVictim(Victim, Protocol):
    """A classifier with a detector: `score(x)` (B,) is differentiable in x, and higher is more suspicious."""

    def score(self, x: Tensor) -> Tensor: ...


class Goal(ABC):
    """A goal that each image meets or does not meet."""

    @abstractmethod
    def assess(self, victim: Victim, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Whether images x (B, C, H, W) with true labels y (B,) meet the goal, and losses that rise towards it.

        Both are (B,) and come from one pass of the victim; the losses are differentiable in x.
        """

    @torch.no_grad()
    def met(self, victim: Victim, x: Tensor, y: Tensor) -> Tensor:
        """(B,) bool: whether each image meets the goal."""
        return self.assess(victim, x, y)[0]

    def parts(self) -> tuple[Goal, ...]:
        """The goals that this one combines; the first decides about the label."""
        return (self,)

    def __and__(self, other: Goal) -> Goal:
        return _Both(self, other)


@dataclass(frozen=True)
class Misclassified(Goal):
    """The predicted label is not the true one."""

    def assess(self, victim: Victim, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = victim(x)
        return logits.argmax(1) != y, cross_entropy(logits, y, reduction="none")


@dataclass(frozen=True)
class Targeted(Goal):
    """The predicted label is `label`, and that is not the true one.

    Attributes:
        label: the target label.
    """

    label: int

    def assess(self, victim: Victim, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = victim(x)
        met = (logits.argmax(1) == self.label) & (y != self.label)
        return met, -cross_entropy(logits, torch.full_like(y, self.label), reduction="none")


@dataclass(frozen=True)
class Undetected(Goal):
    """The detector's score is at or below its threshold.

    Attributes:
        threshold: the detector rejects scores above it.
        weight: weight of the score's distance above the threshold in the loss, beside the losses of other goals.
    """

    threshold: float
    weight: float = 1.0

    def assess(self, victim: Victim, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        score = require_score(victim).score(x)
        return score <= self.threshold, -self.weight * (score - self.threshold).clamp_min(0)


@dataclass(frozen=True)
class Rejected(Goal):
    """The detector's score is above its threshold, whatever the label: denial of service.

    Attributes:
        threshold: the detector rejects scores above it.
    """

    threshold: float

    def assess(self, victim: Victim, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        score = require_score(victim).score(x)
        return score > self.threshold, score


@dataclass(frozen=True)
class _Both(Goal):
    first: Goal
    second: Goal

    def assess(self, victim: Victim, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        first, first_loss = self.first.assess(victim, x, y)
        second, second_loss = self.second.assess(victim, x, y)
        return first & second, first_loss + second_loss

    def parts(self) -> tuple[Goal, ...]:
        return (*self.first.parts(), *self.second.parts())


def logits_and_score(
    victim: Victim, x: Tensor, predicted: Tensor | None = None, labels: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits (B, K) and scores (B,) of images x, in one pass where the victim has a method `logits_and_score`.

    Args:
        victim: a `ScoredVictim`. `predicted` and `labels` go to its `logits_and_score(x, predicted, labels)`; a victim
            without that method ignores them.
        x: (B, C, H, W) images.
        predicted: (B,) the labels for which the scores are computed; the predicted labels by default.
        labels: (B, J) the labels that the detector compares, `predicted` among them; all labels by default.

    Raises:
        InputError: the victim has no score.
    """
    both = getattr(victim, "logits_and_score", None)
    return (victim(x), require_score(victim).score(x)) if both is None else both(x, predicted, labels)


def require_score(victim: Victim) -> ScoredVictim:
    """The victim, once it is known to have a detector score.

    Raises:
        InputError: it has none.
    """
    if not has_score(victim):
        raise InputError(f"model: {type(victim).__name__} has no score(x); an attack that knows the detector needs one")
    return victim


def has_score(victim: Victim) -> TypeGuard[ScoredVictim]:
    """Whether the victim has a detector score, perhaps that of a model that it wraps.

    From Python 3.12 on, `isinstance` looks past attributes that a wrapper passes on.
    """
    return callable(getattr(victim, "score", None))


def require_gradient(victim: Victim, x: Tensor, y: Tensor, goal: Goal, attack_name: str) -> None:
    """Check that the victim's outputs have a gradient, for an attack that follows it.

    Raises:
        InputError: the logits, or the score where the goal asks about it, have no gradient with respect to x. The
            message says which attacks need none.
    """
    needed = {type(part): part for part in goal.parts()}
    for part in needed.values():
        with torch.enable_grad():
            loss = part.assess(victim, x.detach().clone().requires_grad_(), y)[1]
        if not loss.requires_grad:
            what, instead = "logits of {} have", "square or hop-skip-jump, which need none, or bpda"
            if isinstance(part, Undetected):
                what, instead = "score of {} has", "square-rejecting or hop-skip-jump-rejecting, which need none"
            elif isinstance(part, Rejected):
                what, instead = "score of {} has", "an attack of your own that needs none"
            raise InputError(
                f"model: the {what.format(type(victim).__name__)} no gradient with respect to x, which {attack_name} "
                f"follows; attack it with {instead}"
            )
