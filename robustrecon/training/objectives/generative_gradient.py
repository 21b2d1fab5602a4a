"""The generative gradient: a softmax over the images of a batch, where the discriminative one is over the labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from ...models.gradient_drawings import GradientDrawings
from ..checks import at_least, in_unit
from .base import Objective, ObjectiveOptions

OVER_IMAGES, OVER_LABELS = 0, 1  # dimensions of logits (B, K)


class GenerativeGradientObjective(Objective):
    """Generative pre-training, then discriminative fine-tuning.

    With p(x|k) ∝ exp(f_k(x)) q(x) the gradient of log p(x|y) in the weights w is ∂f_y(x)/∂w − E[∂f_y(x')/∂w], a mean
    over x' of p(x|y). Importance sampling takes it over the images x_i of the batch, which are of q where q is what all
    images are of: Σ_i W_i ∂f_y(x_i)/∂w, W_i = exp f_y(x_i) / Σ_j exp f_y(x_j). That is the gradient of a cross-entropy
    over the images, in the logits' columns. It does not see what is added to all outputs of a class, which the
    fine-tuning finds.

    J. Dai, Y. Lu, Y. N. Wu, "Generative Modeling of Convolutional Neural Networks", ICLR 2015.
    """

    requires = (GradientDrawings,)

    @dataclass(frozen=True)
    class Options(ObjectiveOptions):
        """Options of the objective.

        Attributes:
            generative_share: share of the steps that are generative pre-training; the others, which come later, are
                discriminative fine-tuning.
            noise: standard deviation of the Gaussian noise added to the images, in [0, 1] pixel units. None in the
                paper; with it the input gradients look like the class, and so do drawings and samples.

        Raises:
            InputError: one out of its range.
        """

        generative_share: float = 0.5
        noise: float = 0.0

        def __post_init__(self) -> None:
            in_unit(self, "generative_share")
            at_least(0, self, "noise")

    options: Options

    @property
    def uses_progress(self) -> bool:
        return 0 < self.options.generative_share < 1

    def forward(self, x: Tensor, y: Tensor, progress: float) -> dict[str, Tensor]:
        """Batch means of `metrics` for images x (B, C, H, W) with labels y (B,)."""
        if self.options.noise:
            x = x + self.options.noise * torch.randn_like(x)
        logits = self.model(x)
        over = OVER_IMAGES if progress < self.options.generative_share else OVER_LABELS
        return {
            "loss": nll_loss(logits.log_softmax(over), y),
            "accuracy": (logits.argmax(OVER_LABELS) == y).float().mean(),
        }
