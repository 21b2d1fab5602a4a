"""Consistent prediction: does a small attack on the prediction change it?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .base import Detector, Evidence


class Ascent(NamedTuple):
    """A PGD without random start: its linf radius, its step size and the number of its steps."""

    eps: float
    step_size: float
    steps: int


GREY = Ascent(0.1, 0.01, 20)  # the paper's for MNIST
COLOUR = Ascent(0.0055, 0.001, 10)  # for CIFAR-10, SVHN and GTSRB


class ConsistentPrediction(Detector):
    """max over k ≠ p of f[k], − f[p], at x + δ: the margin that a small PGD attack on the prediction leaves it.

    δ ascends the cross-entropy of p from x without a random start, for grey images in 20 steps of 0.01 within linf 0.1,
    for colour images in 10 steps of 0.001 within linf 0.0055. The paper rejects where the score is positive, where
    the attack changes the prediction; the calibrated threshold may be another. The gradient takes δ as a constant
    (BPDA, as in the paper's adaptive attacks). Costs as many passes forward and backward as there are steps.

    J. Chen et al., "Stratified Adversarial Robustness with Rejection", ICML 2023: CPR, meant for classifiers that are
    trained to be robust.
    """

    name = "cpr"
    several_passes = True

    def score(self, evidence: Evidence) -> Tensor:
        p, x = evidence.predicted, evidence.x
        attacked = perturbed(evidence.model, x.detach(), p, GREY if x.shape[1] == 1 else COLOUR)
        logits = Evidence(evidence.model, x + (attacked - x.detach())).logits
        others = logits.scatter(1, p[:, None], -torch.inf)
        return others.amax(1) - logits.gather(1, p[:, None]).squeeze(1)


def perturbed(model: nn.Module, x: Tensor, labels: Tensor, ascent: Ascent) -> Tensor:
    """Images (B, C, H, W) within the radius of x and [0, 1] for which the model is less sure of `labels` (B,)."""
    low, high = (x - ascent.eps).clamp_min(0), (x + ascent.eps).clamp_max(1)
    attacked = x
    for _ in range(ascent.steps):
        with torch.enable_grad():
            attacked = attacked.detach().requires_grad_()
            logits = Evidence(model, attacked).logits
            others = logits.scatter(1, labels[:, None], -torch.inf)
            # Rises with the cross-entropy, and has a gradient of the same sign where that of a sure model vanishes.
            log_odds = others.logsumexp(1) - logits.gather(1, labels[:, None]).squeeze(1)
            (grad,) = torch.autograd.grad(log_odds.sum(), attacked)
        attacked = torch.clamp(attacked.detach() + ascent.step_size * grad.sign(), low, high)
    return attacked
