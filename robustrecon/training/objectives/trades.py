"""TRADES on logits and class energies: adversarial images must give the outputs of the clean ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, nll_loss

from ..adversary import pgd_for_training
from ..augment import random_distortion
from ..checks import at_least
from .energies import EnergyObjective, EnergyOptions, evaluate, losses, true_and_likeliest_wrong


class TradesObjective(EnergyObjective):
    """Cross-entropy of the clean images + `beta` · KL(clean ‖ adversarial), on the logits and on −energies.

    Every image enters twice, clean and adversarial; the drawings of both are compared with the clean image. While `eps`
    is 0 there are only clean images and their cross-entropy.

    H. Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019.
    """

    @dataclass(frozen=True)
    class Options(EnergyOptions):
        """Options of the objective, and those of `EnergyOptions`.

        Attributes:
            beta: weight of the divergence, the paper's β = 1/λ.

        Raises:
            InputError: one out of its range.
        """

        beta: float = 6.0

        def __post_init__(self) -> None:
            super().__post_init__()
            at_least(0, self, "beta")

    options: Options

    def forward(self, x: Tensor, y: Tensor, progress: float) -> dict[str, Tensor]:
        """Batch means of `metrics` for images x (B, C, H, W) with labels y (B,)."""
        options, n = self.options, len(x)
        if options.distortion:
            x = random_distortion(x, options.distortion)
        inputs = x + options.noise * torch.randn_like(x)
        eps = options.eps_at(progress)
        if eps:
            x_adv = pgd_for_training(self.model, x, y, eps, options.attack_steps)
            inputs, x, y = torch.cat([inputs, x_adv]), x.repeat(2, 1, 1, 1), y.repeat(2)

        def labels(logits: Tensor) -> Tensor:
            chosen = true_and_likeliest_wrong(logits, y, options.wrong_labels)
            return chosen[n:].repeat(2, 1) if eps else chosen  # the same for both, to compare their energies

        found = evaluate(self.model, inputs, y, labels, options.style_noise)
        first = torch.zeros_like(y)  # the true label is the first of `labels`
        if eps:
            classification = trades_loss(found.logits, y, options.beta)
            contrast = trades_loss(-found.energies, first, options.beta)
        else:
            classification, contrast = cross_entropy(found.logits, y), cross_entropy(-found.energies, first)
        accuracy = (found.logits.argmax(1) == y).float().mean()
        return losses(options, classification, contrast, found.reconstruction_error(x), accuracy)


def trades_loss(logits: Tensor, y: Tensor, beta: float) -> Tensor:
    """Cross-entropy of the first half of logits (2B, K), clean, plus `beta` times KL(clean ‖ second half)."""
    clean, adversarial = logits.log_softmax(1).chunk(2)
    classification = nll_loss(clean, y[: len(clean)])
    return classification + beta * kl_div(adversarial, clean, log_target=True, reduction="batchmean")
