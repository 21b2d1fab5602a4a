"""Confidence-calibrated adversarial training: the farther an adversarial image, the less sure the classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from ...models.base import Reconstructs
from ...types import InputError
from ..adversary import pgd_on_confidence
from ..checks import at_least
from .base import Objective, ObjectiveOptions


class CCATObjective(Objective):
    """Cross-entropy of half a batch clean, and of the other half adversarial with targets that fade to uniform.

    The target of an image x + δ is λ · onehot(y) + (1 − λ) / K with λ = (1 − min(1, ‖δ‖∞ / eps))^rho. So a network
    learns to be unsure along the whole way to the border of the ball, and beyond it, where no training image was; the
    detector `msp` then rejects what attacks of larger radii and of other norms make. A model that draws is trained on
    its drawings of the clean half too, which no gradient of the confidence would train.

    D. Stutz, M. Hein, B. Schiele, "Confidence-Calibrated Adversarial Training: Generalizing to Unseen Attacks",
    ICML 2020.
    """

    metrics = ("loss", "cross_entropy", "adversarial_cross_entropy", "reconstruction", "accuracy")

    @dataclass(frozen=True)
    class Options(ObjectiveOptions):
        """Options of the objective.

        Attributes:
            eps: linf radius of the adversarial images, and where the target is uniform.
            rho: how fast the target fades; the paper's ρ.
            attack_steps: gradient steps of the adversary; the paper's are 40.
            reconstruction_weight: weight of the reconstruction error ‖x̂ − x‖₂ under the true label, not squared.

        Raises:
            InputError: one out of its range.
        """

        eps: float = 0.3
        rho: float = 10.0
        attack_steps: int = 10
        reconstruction_weight: float = 0.05

        def __post_init__(self) -> None:
            if not 0 < self.eps <= 1:
                raise InputError(f"eps: got {self.eps!r}, must be in (0, 1]")
            at_least(0, self, "rho", "reconstruction_weight")
            at_least(1, self, "attack_steps")

        @property
        def adversarial(self) -> bool:
            return True

    options: Options

    def forward(self, x: Tensor, y: Tensor, progress: float) -> dict[str, Tensor]:
        """Batch means of `metrics` for images x (B, C, H, W) with labels y (B,); the accuracy is that of clean ones."""
        options, n_clean = self.options, (len(x) + 1) // 2
        x_adv = pgd_on_confidence(self.model, x[n_clean:], y[n_clean:], options.eps, options.attack_steps)
        logits = self.model(torch.cat([x[:n_clean], x_adv]))
        true = one_hot(y, logits.shape[1]).to(logits.dtype)
        share = transition(x_adv - x[n_clean:], options.eps, options.rho)[:, None]
        faded = share * true[n_clean:] + (1 - share) / logits.shape[1]
        losses = cross_entropy(logits, torch.cat([true[:n_clean], faded]), reduction="none")
        reconstruction = logits.new_zeros(())
        if isinstance(self.model, Reconstructs):
            difference = self.model.reconstruct(x[:n_clean], y[:n_clean]) - x[:n_clean]
            reconstruction = torch.linalg.vector_norm(difference.flatten(1), dim=1).mean()
        return {
            "loss": losses.mean() + options.reconstruction_weight * reconstruction,
            "cross_entropy": losses[:n_clean].mean(),
            "adversarial_cross_entropy": losses[n_clean:].sum() / max(1, len(x_adv)),
            "reconstruction": reconstruction,
            "accuracy": (logits[:n_clean].argmax(1) == y[:n_clean]).float().mean(),
        }


def transition(delta: Tensor, eps: float, rho: float) -> Tensor:
    """(B,) λ(δ) = (1 − min(1, ‖δ‖∞ / eps))^rho of perturbations (B, C, H, W): 1 for none, 0 from eps on."""
    distance = delta.flatten(1).abs().amax(1) / eps
    return (1 - distance.clamp_max(1)) ** rho
