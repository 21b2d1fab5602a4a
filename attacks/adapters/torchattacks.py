"""Attacks of torchattacks (H. Kim, "Torchattacks: A PyTorch Repository for Adversarial Attacks", 2020)."""

from __future__ import annotations

from torch import Tensor, nn

from ..base import Attack, IterativeAttack
from ..goals import Goal, Misclassified


class TorchattacksPGD(IterativeAttack):
    """`torchattacks.PGD` for linf and `torchattacks.PGDL2` for l2; arguments as for `attacks.pgd.PGD`."""

    name = "pgd"
    pursues = (Misclassified,)

    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        import torchattacks

        kind = torchattacks.PGD if self.threat.norm == "linf" else torchattacks.PGDL2
        attack = kind(victim, self.threat.eps, self.alpha, self.steps, self.random_start)
        attack.set_device(x.device)  # it guesses from the first parameter, which there may not be
        return attack(x, y)


class TorchattacksFGSM(Attack):
    """`torchattacks.FGSM`; the library has it for linf only."""

    name = "fgsm"
    norms = ("linf",)
    pursues = (Misclassified,)

    def run(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        import torchattacks

        attack = torchattacks.FGSM(victim, self.threat.eps)
        attack.set_device(x.device)
        return attack(x, y)
