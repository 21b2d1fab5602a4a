"""Attacks of torchattacks (H. Kim, "Torchattacks: A PyTorch Repository for Adversarial Attacks", 2020)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..base import Attack
from ..goals import Goal, Misclassified
from ..iterative import IterativeAttack


class TorchattacksPGD(IterativeAttack):
    """`torchattacks.PGD` for linf and `torchattacks.PGDL2` for l2; arguments as for `attacks.pgd.PGD`."""

    name = "pgd"
    norms = ("linf", "l2")
    supported_goals = (Misclassified,)

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        import torchattacks

        kind = torchattacks.PGD if self.threat.norm == "linf" else torchattacks.PGDL2
        return library_attack(kind, victim, x, self.threat.eps, self.step_size, self.steps, self.random_start)(x, y)


class TorchattacksFGSM(Attack):
    """`torchattacks.FGSM`; the library has it for linf only."""

    name = "fgsm"
    norms = ("linf",)
    supported_goals = (Misclassified,)

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        import torchattacks

        return library_attack(torchattacks.FGSM, victim, x, self.threat.eps)(x, y)


def library_attack(kind: Callable[..., Any], victim: nn.Module, x: Tensor, *settings: Any, **named: Any) -> Any:
    """The library's attack on `victim`, on the device of x.

    The library guesses the device from the model's first parameter, and prints a warning where there is none.
    """
    with contextlib.redirect_stdout(sys.stderr):
        attack = kind(victim, *settings, **named)
    attack.set_device(x.device)
    return attack
