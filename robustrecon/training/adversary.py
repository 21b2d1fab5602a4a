"""The adversaries of adversarial training: a short PGD on logits and class energies, or on the confidence alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from ..models import EnergyModel
from ..runtime import frozen

RELATIVE_STEP_SIZE = 2.5  # all steps together, in radii
MOMENTUM = 0.9
BACKTRACK = 0.5  # what a step that did not raise the loss leaves of an image's step size


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


def pgd_on_confidence(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """Images (B, C, H, W) within linf `eps` of x whose likeliest wrong label is as probable as PGD can make it.

    Ascends log max over k ≠ y of P[k] by signs of a gradient with momentum. An image takes a step only if this raises
    its loss; else its step size is halved. The start is random: a random direction, at a distance that is uniform in
    [0, eps]. Weights get no gradient.

    D. Stutz, M. Hein, B. Schiele, "Confidence-Calibrated Adversarial Training: Generalizing to Unseen Attacks",
    ICML 2020; the momentum is that of Y. Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018.
    """
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)

    def loss_and_grad(x_adv: Tensor) -> tuple[Tensor, Tensor]:
        x_adv = x_adv.detach().requires_grad_()
        loss = model(x_adv).log_softmax(1).scatter(1, y[:, None], -torch.inf).amax(1)
        (grad,) = torch.autograd.grad(loss.sum(), x_adv)
        return loss.detach()[:, None, None, None], grad

    with frozen(model):
        radius = eps * torch.rand_like(x[:, :1, :1, :1])
        noise = torch.empty_like(x).uniform_(-1, 1)
        x_adv = (x + radius * noise / noise.abs().amax((1, 2, 3), keepdim=True)).clamp(0, 1)
        step_size = torch.full_like(radius, min(eps, RELATIVE_STEP_SIZE * eps / steps))
        velocity = torch.zeros_like(x)
        loss, grad = loss_and_grad(x_adv)
        for _ in range(steps):
            size = grad.abs().mean((1, 2, 3), keepdim=True)
            velocity = MOMENTUM * velocity + grad / size.clamp_min(torch.finfo(size.dtype).tiny)
            x_new = torch.clamp(x_adv + step_size * velocity.sign(), low, high)
            loss_new, grad_new = loss_and_grad(x_new)
            improved = loss_new > loss
            x_adv, grad = torch.where(improved, x_new, x_adv), torch.where(improved, grad_new, grad)
            loss = torch.where(improved, loss_new, loss)
            step_size = torch.where(improved, step_size, BACKTRACK * step_size)
    return x_adv
