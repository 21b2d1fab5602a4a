"""Expectation over transformation (EOT): the attack on models that draw random numbers."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .averaged import Averaged
from .base import at_least
from .goals import Goal
from .pgd import PGD


@dataclass(kw_only=True, eq=False)
class EOT(PGD):
    """Projected gradient ascent on the mean over the victim's random numbers.

    A. Athalye, L. Engstrom, A. Ilyas, K. Kwok, "Synthesizing Robust Adversarial Examples", ICML 2018; A. Athalye,
    N. Carlini, D. Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018.

    Args:
        samples: passes that each step averages over.
        Others: as for `PGD`.
    """

    name = "eot"

    samples: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self.samples = at_least(1, self.samples, "samples")

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        return super().perturb(Averaged(victim, self.samples), x, y, goal)

    def passes(self, n_classes: int) -> int:
        return super().passes(n_classes) * self.samples
