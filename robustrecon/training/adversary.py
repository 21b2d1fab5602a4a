"""The adversary that a network is trained against: short, and after classifier and energies alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softplus

from ..models import StyleMemoryNet
from ..runtime import frozen

STEP_OF_BUDGET = 2.5


def ascend(model: StyleMemoryNet, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """Images (B, C, H, W) within linf `eps` of x: projected gradient ascent from a random start.

    Each image has its own mixture of two losses, the cross-entropy of the logits and softplus(E[y] − E[w]) for the
    wrong label w of the highest logit, so that neither the classifier nor the energies can rely on the other.
    """
    mixture = torch.rand(len(x), device=x.device)
    step = min(eps, STEP_OF_BUDGET * eps / steps)
    moved = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    with frozen(model):
        for _ in range(steps):
            moved.requires_grad_()
            logits, style = model.encode(moved)
            wrong = logits.detach().scatter(1, y[:, None], -torch.inf).argmax(1)
            energies = model.energies(moved, style, torch.stack([y, wrong], dim=1))
            classified = cross_entropy(logits, y, reduction="none")
            loss = mixture * classified + (1 - mixture) * softplus(energies[:, 0] - energies[:, 1])
            (gradient,) = torch.autograd.grad(loss.sum(), moved)
            moved = torch.clamp(moved.detach() + step * gradient.sign(), low, high)
    return moved
