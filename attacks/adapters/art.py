"""Attacks of the Adversarial Robustness Toolbox (M.-I. Nicolae et al., 2018)."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..base import Attack
from ..errors import InputError
from ..goals import Goal, Misclassified
from ..iterative import IterativeAttack


class ArtPGD(IterativeAttack):
    """ART's `ProjectedGradientDescentPyTorch`; arguments as for `attacks.pgd.PGD`."""

    name = "pgd"
    norms = ("linf", "l2")  # for l1 the library changes one pixel a step and projects by rescaling
    supported_goals = (Misclassified,)

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        from art.attacks.evasion.projected_gradient_descent.projected_gradient_descent_pytorch import (
            ProjectedGradientDescentPyTorch,
        )

        attack = ProjectedGradientDescentPyTorch(
            art_estimator(victim, x),
            norm=norm_of(self.threat.norm),
            eps=self.threat.eps,
            eps_step=self.step_size,
            max_iter=self.steps,
            num_random_init=int(self.random_start),
            batch_size=len(x),
            verbose=False,
        )
        return _generate(attack, x, y)


class ArtFGSM(Attack):
    """ART's `FastGradientMethod`, for linf and l2."""

    name = "fgsm"
    norms = ("linf", "l2")  # for l1 the library changes a single pixel
    supported_goals = (Misclassified,)

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        from art.attacks.evasion import FastGradientMethod

        attack = FastGradientMethod(
            art_estimator(victim, x),
            norm=norm_of(self.threat.norm),
            eps=self.threat.eps,
            batch_size=len(x),
        )
        return _generate(attack, x, y)


def art_estimator(victim: nn.Module, x: Tensor) -> Any:
    """ART's `PyTorchClassifier` around `victim`, for images like x (B, C, H, W) in [0, 1] and on their device.

    Raises:
        InputError: a device that ART does not know.
    """
    from art.estimators.classification import PyTorchClassifier

    if x.device.type not in ("cpu", "cuda"):
        raise InputError(f"x: is on {x.device}, must be on cpu or cuda for the engine art")
    with torch.no_grad():
        n_classes = victim(x[:1]).shape[1]
    # The library moves the model to CUDA's current device, which need not be the one that the model is on.
    with torch.cuda.device(x.device) if x.device.type == "cuda" else contextlib.nullcontext():
        return PyTorchClassifier(
            victim,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=n_classes,
            clip_values=(0.0, 1.0),
            device_type="cpu" if x.device.type == "cpu" else "gpu",
        )


def norm_of(name: str) -> float:
    """What ART calls a norm."""
    return np.inf if name == "linf" else 2


def _generate(attack: Any, x: Tensor, y: Tensor) -> Tensor:
    return torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy())).to(x)
