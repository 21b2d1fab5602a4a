"""The objective of EGC: to see the noise in noised images, and the label of noised and of clean ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...models.base import Denoises
from ..checks import at_least, in_unit
from .base import Objective, ObjectiveOptions


class EGCObjective(Objective):
    """Mean of (ε − ε̂)² over pixels + `classification_weight` · cross-entropy, whose weight at noise level t is √ᾱ_t.

    The cross-entropy is the mean over the noised images and the same ones clean, t = 0. ε̂ is a gradient of the network,
    so that this gradient is differentiated again.

    Q. Guo et al., "EGC: Image Generation and Classification via a Diffusion Energy-Based Model", ICCV 2023. The noise
    levels of a batch are evenly spaced from a random start (D. Kingma et al., "Variational Diffusion Models", NeurIPS
    2021).
    """

    requires = (Denoises,)
    metrics = ("loss", "denoising", "cross_entropy", "accuracy")

    @dataclass(frozen=True)
    class Options(ObjectiveOptions):
        """Options of the objective.

        Attributes:
            classification_weight: of the cross-entropy; the paper's γ, 0.001 for CIFAR-10.
            label_smoothing: share of a label that is spread over all classes.

        Raises:
            InputError: one out of its range.
        """

        classification_weight: float = 0.1
        label_smoothing: float = 0.2

        def __post_init__(self) -> None:
            at_least(0, self, "classification_weight")
            in_unit(self, "label_smoothing", below_1=True)

    options: Options

    def forward(self, x: Tensor, y: Tensor, progress: float) -> dict[str, Tensor]:
        """Batch means of `metrics` for images x (B, C, H, W) with labels y (B,); the accuracy is that of clean ones."""
        model, options = cast(Denoises, self.model), self.options
        shares = (torch.rand(1, device=x.device) + torch.arange(len(x), device=x.device) / len(x)) % 1
        t = 1 + (shares * (len(model.alpha_bars) - 1)).long()
        noise = torch.randn_like(x)
        noised, predicted = model.logits_and_noise(model.noised(x, t, noise), t)
        clean = self.model(x)
        denoising = (predicted - noise).square().mean()
        on_noised, on_clean = (
            cross_entropy(logits, y, reduction="none", label_smoothing=options.label_smoothing)
            for logits in (noised, clean)
        )
        classification = (model.alpha_bars[t].sqrt() * on_noised + on_clean).mean() / 2
        return {
            "loss": denoising + options.classification_weight * classification,
            "denoising": denoising,
            "cross_entropy": classification,
            "accuracy": (clean.argmax(1) == y).float().mean(),
        }
