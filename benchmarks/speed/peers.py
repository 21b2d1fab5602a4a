"""PGD of other libraries at equal work: so many gradient steps of one size from the clean image, no early exit.

Each is called as its library offers it, without our checks around it, on a network whose weights need no gradient.
torchattacks, ART and foolbox return the last point, adv-lib the last one before it that was misclassified.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import robustrecon.data._torchvision  # noqa: F401 - without it torchvision, which adv-lib imports, may not load
from attacks.adapters.art import art_estimator
from attacks.adapters.torchattacks import library_attack

Peer = Callable[[nn.Module, Tensor, Tensor, float, float, int], Tensor]


def torchattacks_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, alpha: float, steps: int) -> Tensor:
    import torchattacks

    found: Tensor = library_attack(torchattacks.PGD, model, x, eps, alpha, steps, random_start=False)(x, y)
    return found


def art_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, alpha: float, steps: int) -> Tensor:
    from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
        ProjectedGradientDescentPyTorch,
    )

    attack = ProjectedGradientDescentPyTorch(
        art_estimator(model, x), np.inf, eps, alpha, max_iter=steps, batch_size=len(x), verbose=False
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def foolbox_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, alpha: float, steps: int) -> Tensor:
    import foolbox
    from foolbox.models.pytorch import PyTorchModel

    attack = foolbox.attacks.LinfPGD(abs_stepsize=alpha, steps=steps, random_start=False)
    victim = PyTorchModel(model, bounds=(0, 1), device=x.device)
    found: Tensor = attack.run(victim, x, foolbox.criteria.Misclassification(y), epsilon=eps)
    return found


def adv_lib_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, alpha: float, steps: int) -> Tensor:
    from adv_lib.attacks import pgd_linf

    found: Tensor = pgd_linf(model, x, y, eps, steps=steps, random_init=False, absolute_step_size=alpha)
    return found


PEERS: dict[str, Peer] = {
    "torchattacks": torchattacks_pgd,
    "adversarial-robustness-toolbox": art_pgd,
    "foolbox": foolbox_pgd,
    "adv-lib": adv_lib_pgd,
}
