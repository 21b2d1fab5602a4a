"""The adversary of adversarial training: a short PGD on the classifier and on the class energies together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softplus

from ..models import EnergyModel
from ..runtime import frozen

RELATIVE_STEP_SIZE = 2.5  # all steps together, in radii


def pgd_for_training(model: EnergyModel, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """Adversarial images (B, C, H, W) within linf `eps` of x, from a random start; weights get no gradient.

    Each image has its own random mixture of two losses, the cross-entropy of the logits and softplus(E[y] − E[w]) for
    the wrong label w of the highest logit, so that neither the classifier nor the energies can rely on the other.

    A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
    """
    mixture = torch.rand(len(x), device=x.device)
    step_size = min(eps, RELATIVE_STEP_SIZE * eps / steps)
    x_adv = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)

    def true_and_wrong(logits: Tensor) -> Tensor:
        wrong = logits.detach().scatter(1, y[:, None], -torch.inf).argmax(1)
        return torch.stack([y, wrong], dim=1)

    with frozen(model):
        for _ in range(steps):
            x_adv.requires_grad_()
            logits, energies = model.logits_and_energies(x_adv, true_and_wrong)
            classification = cross_entropy(logits, y, reduction="none")
            loss = mixture * classification + (1 - mixture) * softplus(energies[:, 0] - energies[:, 1])
            (grad,) = torch.autograd.grad(loss.sum(), x_adv)
            x_adv = torch.clamp(x_adv.detach() + step_size * grad.sign(), low, high)
    return x_adv
