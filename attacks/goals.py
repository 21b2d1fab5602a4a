"""What an adversary wants: a test that says where it has it, and a loss to ascend towards it.

Combine goals with `&`: `Misclassified() & Undetected(threshold)` is a wrong label that the detector accepts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .errors import InputError


class Victim(Protocol):
    """A classifier: images (B, C, H, W) in [0, 1] to logits (B, K)."""

    def __call__(self, x: Tensor, /) -> Tensor: ...


@runtime_checkable
class ScoredVictim(Victim, Protocol):
    """A classifier with a detector whose score (B,) is differentiable in x; higher is more suspicious."""

    def score(self, x: Tensor) -> Tensor: ...


class Goal(ABC):
    """A goal is met or not, image by image."""

    @abstractmethod
    def met(self, victim: Victim, x: Tensor, y: Tensor) -> Tensor:
        """(B,) bool: where images x (B, C, H, W), whose true labels are y (B,), are what is wanted."""

    @abstractmethod
    def loss(self, victim: Victim, x: Tensor, y: Tensor) -> Tensor:
        """(B,) losses, differentiable in x, that rise towards the goal."""

    def parts(self) -> tuple[Goal, ...]:
        """The goals that this one is made of, the leading one first."""
        return (self,)

    def __and__(self, other: Goal) -> Goal:
        return _Both(self, other)


@dataclass(frozen=True)
class Misclassified(Goal):
    """Any label but the true one."""

    def met(self, victim: Victim, x: Tensor, y: Tensor) -> Tensor:
        return victim(x).argmax(1) != y

    def loss(self, victim: Victim, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(victim(x), y, reduction="none")


@dataclass(frozen=True)
class Targeted(Goal):
    """One label, and it is not the true one.

    Attributes:
        label: the wanted label.
    """

    label: int

    def met(self, victim: Victim, x: Tensor, y: Tensor) -> Tensor:
        return (victim(x).argmax(1) == self.label) & (y != self.label)

    def loss(self, victim: Victim, x: Tensor, y: Tensor) -> Tensor:
        return -cross_entropy(victim(x), torch.full_like(y, self.label), reduction="none")


@dataclass(frozen=True)
class Undetected(Goal):
    """A score at or below the detector's threshold.

    Attributes:
        threshold: the detector rejects scores above it.
        weight: of the excess over the threshold in the loss, where this goal stands beside another.
    """

    threshold: float
    weight: float = 1.0

    def met(self, victim: Victim, x: Tensor, y: Tensor) -> Tensor:
        return scored(victim).score(x) <= self.threshold

    def loss(self, victim: Victim, x: Tensor, y: Tensor) -> Tensor:
        return -self.weight * (scored(victim).score(x) - self.threshold).clamp_min(0)


@dataclass(frozen=True)
class _Both(Goal):
    first: Goal
    second: Goal

    def parts(self) -> tuple[Goal, ...]:
        return (*self.first.parts(), *self.second.parts())

    def met(self, victim: Victim, x: Tensor, y: Tensor) -> Tensor:
        return self.first.met(victim, x, y) & self.second.met(victim, x, y)

    def loss(self, victim: Victim, x: Tensor, y: Tensor) -> Tensor:
        return self.first.loss(victim, x, y) + self.second.loss(victim, x, y)


def scored(victim: Victim) -> ScoredVictim:
    """The victim, once it is known to have a score.

    Raises:
        InputError: it has none.
    """
    if not isinstance(victim, ScoredVictim):
        raise InputError(f"model: {type(victim).__name__} has no score(x); an attack that knows the detector needs it")
    return victim
