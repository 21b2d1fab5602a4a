"""Models of p(x|k) in which each output of a network tilts one Gaussian towards its class."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Generator, Tensor

from ..runtime import device_of, dtype_of, traced
from ..sampling.chain import normal
from ..types import ImageShape, InputError
from .base import Labels
from .gradient_drawings import GradientDrawings, chosen, with_input_gradients


class TiltedGaussian(GradientDrawings):
    """p(x|k) ∝ exp(f_k(x) / T) N(x; centre, σ²I), of K outputs f; a subclass writes `forward` and `log_ratios`.

    Where f is linear in x the density is a Gaussian of variance σ² around centre + σ² ∂f_k/∂x / T, the drawing under k.

    Args:
        n_classes, image_shape, energy: as for `GradientDrawings`.
        config: the arguments of the subclass's constructor. Among them `sigma`, σ in [0, 1] pixel units; `centre`, the
            grey level of the reference distribution N(centre, σ²I), 0 by default; `temperature`, T, 1 by default.

    Raises:
        InputError: an argument out of its range.
    """

    def __init__(self, n_classes: int, image_shape: ImageShape, energy: str, **config: Any) -> None:
        super().__init__(n_classes, image_shape, energy, **config)
        sigma, centre, temperature = config["sigma"], config.get("centre", 0.0), config.get("temperature", 1.0)
        for name, value in {"sigma": sigma, "temperature": temperature}.items():
            if not 0 < value < float("inf"):
                raise InputError(f"{name}: got {value}, must be above 0 and finite")
        if not 0 <= centre <= 1:
            raise InputError(f"centre: got {centre}, must be in [0, 1]")
        self.sigma, self.centre, self.temperature = sigma, centre, temperature

    @abstractmethod
    def log_ratios(self, x: Tensor) -> Tensor:
        """f (B, K) of images x (B, C, H, W)."""

    @abstractmethod
    def logits_of(self, ratios: Tensor) -> Tensor:
        """Logits (B, K) of the model, from f (B, K)."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images x (B, C, H, W)."""
        return self.logits_of(self.log_ratios(x))

    def logits_and_drawings(self, x: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """Logits (B, K), and drawings centre + σ² ∂f_k/∂x / T (B, J, C, H, W) under `labels` (B, J)."""

        def outputs(x: Tensor) -> tuple[Tensor, Tensor]:
            ratios = self.log_ratios(x)
            logits = self.logits_of(ratios)
            return logits, ratios.gather(1, chosen(labels, logits))

        if traced(x):
            logits = self(x)
            wanted = chosen(labels, logits)
            copies = x.repeat_interleave(wanted.shape[1], 0)
            of_copy = with_input_gradients(lambda x: (x, self.log_ratios(x).gather(1, wanted.reshape(-1, 1))), copies)
            gradients = of_copy[1].view(*wanted.shape, *x.shape[1:])
        else:
            logits, gradients = with_input_gradients(outputs, x)
        return logits, self.centre + self.sigma**2 / self.temperature * gradients

    def energy_of(self, x: Tensor, labels: Tensor) -> Tensor:
        """‖x − centre‖² / 2σ² − f_k(x) / T, (B,): −log p(x|k) but for a constant, of images x under `labels` (B,).

        Its gradient is (x − drawing of x under k) / σ²: Langevin dynamics follow the reconstruction error.
        """
        reference = (x - self.centre).flatten(1).square().sum(1) / (2 * self.sigma**2)
        return reference - self.log_ratios(x).gather(1, labels[:, None])[:, 0] / self.temperature

    def reference_noise(self, n: int, generator: Generator | None = None) -> Tensor:
        """Images (n, C, H, W) of the reference distribution N(centre, σ²I)."""
        blank = torch.zeros(n, *self.image_shape, dtype=dtype_of(self), device=device_of(self))
        return self.centre + self.sigma * normal(blank, generator)
