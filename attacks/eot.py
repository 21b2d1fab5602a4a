"""Expectation over transformation (EOT): the attack on models that draw random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .base import at_least
from .goals import Goal, logits_and_score, require_score
from .pgd import PGD


class Expected(nn.Module):
    """A victim whose logits and score are means over several passes with different random numbers.

    Args:
        victim: gives logits (B, K) of images (B, C, H, W), and a score where it has a detector.
        samples: number of passes.
    """

    def __init__(self, victim: nn.Module, samples: int) -> None:
        super().__init__()
        self.victim, self.samples = victim, samples
        self.training = victim.training

    def forward(self, x: Tensor) -> Tensor:
        """Mean logits (B, K)."""
        return self._mean(lambda: (self.victim(x),))[0]

    def score(self, x: Tensor) -> Tensor:
        """Mean scores (B,).

        Raises:
            InputError: the victim has no score.
        """
        return self._mean(lambda: (require_score(self.victim).score(x),))[0]

    def logits_and_score(
        self, x: Tensor, predicted: Tensor | None = None, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean logits (B, K) and mean scores (B,); arguments as for `attacks.goals.logits_and_score`."""
        logits, score = self._mean(lambda: logits_and_score(self.victim, x, predicted, labels))
        return logits, score

    def _mean(self, one_pass: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        passes = [one_pass() for _ in range(self.samples)]
        return tuple(torch.stack(column).mean(0) for column in zip(*passes, strict=True))


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
        return super().perturb(Expected(victim, self.samples), x, y, goal)

    def passes(self, n_classes: int) -> int:
        return super().passes(n_classes) * self.samples
