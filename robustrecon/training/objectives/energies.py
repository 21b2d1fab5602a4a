"""What the objectives that train the class energies share: their base, options, and one evaluation of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...models import EnergyModel
from ...models.base import Reconstructs, StyleCodes
from ...types import InputError
from ..checks import at_least, in_unit
from .base import Objective, ObjectiveOptions

METRICS = ("loss", "cross_entropy", "contrast", "reconstruction", "accuracy")


@dataclass(frozen=True)
class EnergyOptions(ObjectiveOptions):
    """Options of an objective on logits and class energies, of clean or of adversarial images.

    Attributes:
        noise: standard deviation of the Gaussian noise added to clean inputs, in [0, 1] pixel units.
        distortion: strength of the random distortions of the images, see `random_distortion`; 0 for none.
        style_noise: standard deviation of the Gaussian noise added to the style code before the drawing.
        energy_weight: weight of the loss on −energies beside that on the logits.
        reconstruction_weight: weight of the reconstruction error ‖x̂ − x‖₂ under the true label, not squared.
        wrong_labels: how many wrong labels, those of the highest logits, are compared with the true one; all where
            there are fewer.
        eps: linf radius of the adversarial images; 0 for none.
        ramp: share of the steps over which eps grows from 0.
        attack_steps: gradient steps of the adversary.

    Raises:
        InputError: one out of its range.
    """

    noise: float = 0.1
    distortion: float = 0.0
    style_noise: float = 0.0
    energy_weight: float = 1.0
    reconstruction_weight: float = 0.05
    wrong_labels: int = 3
    eps: float = 0.0
    ramp: float = 0.4
    attack_steps: int = 7

    def __post_init__(self) -> None:
        at_least(0, self, "noise", "distortion", "style_noise", "energy_weight", "reconstruction_weight")
        at_least(1, self, "wrong_labels", "attack_steps")
        in_unit(self, "eps", "ramp")

    @property
    def adversarial(self) -> bool:
        return self.eps > 0

    def eps_at(self, progress: float) -> float:
        """The radius when a share `progress` of the steps is done."""
        return self.eps * min(1.0, progress / self.ramp) if self.ramp else self.eps

    @property
    def eps_changes(self) -> bool:
        """Whether the radius depends on the progress."""
        return bool(self.eps and self.ramp)


class EnergyObjective(Objective):
    """An objective on logits and class energies; a subclass writes `forward`, with `Options` beside those here.

    Raises:
        InputError: style noise for a model that has no style codes.
    """

    metrics = METRICS
    options: EnergyOptions

    def __init__(self, model: EnergyModel, options: EnergyOptions) -> None:
        super().__init__(model, options)
        if options.style_noise and not isinstance(model, StyleCodes):
            raise InputError(
                f"style_noise: got {options.style_noise}, must be 0 for {model.name}, which has no StyleCodes"
            )

    @property
    def uses_progress(self) -> bool:
        return self.options.eps_changes


@dataclass(frozen=True)
class Evaluated:
    """What a model says of B images.

    Attributes:
        logits: (B, K).
        energies: (B, J) of the labels that were asked for.
        drawing: (B, C, H, W) under the true labels; None of a model that cannot draw.
    """

    logits: Tensor
    energies: Tensor
    drawing: Tensor | None

    def reconstruction_error(self, x: Tensor) -> Tensor:
        """Mean over the batch of ‖drawing − x‖₂; 0 without a drawing."""
        if self.drawing is None:
            return self.logits.new_zeros(())
        return torch.linalg.vector_norm((self.drawing - x).flatten(1), dim=1).mean()


def evaluate(
    model: EnergyModel, x: Tensor, y: Tensor, labels: Callable[[Tensor], Tensor], style_noise: float
) -> Evaluated:
    """Logits, energies of `labels` and drawing under labels y (B,) of images x; one encoding where the model has it.

    Args:
        labels: gives the labels (B, J) whose energies are wanted from the logits (B, K).
    """
    if isinstance(model, StyleCodes):
        logits, style = model.encode(x)
        if style_noise:
            style = style + style_noise * torch.randn_like(style)
        energies = model.energies(x, style, labels(logits))
        return Evaluated(logits, energies, model.decode(one_hot(y, model.n_classes).to(style.dtype), style))
    logits, energies = model.logits_and_energies(x, labels)
    return Evaluated(logits, energies, model.reconstruct(x, y) if isinstance(model, Reconstructs) else None)


def true_and_likeliest_wrong(logits: Tensor, y: Tensor, wrong_labels: int) -> Tensor:
    """(B, 1 + J): the true label, then at most `wrong_labels` wrong ones, those of the highest logits."""
    wrong_labels = min(wrong_labels, logits.shape[1] - 1)
    wrong = logits.detach().scatter(1, y[:, None], -torch.inf).topk(wrong_labels, dim=1).indices
    return torch.cat([y[:, None], wrong], dim=1)


def losses(
    options: EnergyOptions, classification: Tensor, contrast: Tensor, reconstruction: Tensor, accuracy: Tensor
) -> dict[str, Tensor]:
    """The values of `METRICS` from their parts."""
    loss = classification + options.energy_weight * contrast + options.reconstruction_weight * reconstruction
    return dict(zip(METRICS, (loss, classification, contrast, reconstruction, accuracy), strict=True))
