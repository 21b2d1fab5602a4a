"""Generative ConvNet: a classifier whose outputs f_k are log densities of the images of a class."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from ..sampling import Chain, langevin
from ..sampling.chain import normal
from ..types import ImageShape, InputError
from .base import Labels
from .gradient_drawings import PAIRS, GradientDrawings, chosen, with_input_gradients
from .strided import FirstConvolution


class GenerativeConvNet(GradientDrawings):
    """p(x|k) ∝ exp(f_k(x)) N(x; centre, σ²I), with a ConvNet of K outputs f, and p(k|x) = softmax(f_k(x) + b_k).

    Where no ReLU changes between on and off, f is linear in x, f_k(x) = ⟨B_k, x⟩ + const, and the density is a Gaussian
    of variance σ² around centre + σ² B_k, the drawing under k. As far as p(x|k) is right, the drawing is also the mean
    of all images that Gaussian noise of σ could have made x of (Robbins 1956): a network of noisy images denoises.

    J. Xie, Y. Lu, S.-C. Zhu, Y. N. Wu, "A Theory of Generative ConvNet", ICML 2016. There pixels are 0 to 255 and σ is
    1; here the network sees (x − centre) / σ, so that the paper's numbers hold in units of σ.

    Args:
        n_classes: K.
        image_shape: (C, H, W).
        width: channels of the first convolution; twice as many in the second, and 8 times as many hidden neurons.
        sigma: σ, in [0, 1] pixel units.
        centre: grey level of the reference distribution N(centre, σ²I), in which chains begin.
        steps: of the Langevin chains that `sample` runs.
        step_size: of these and those of training, in [0, 1] pixel units.
        energy: as for `GradientDrawings`.

    Raises:
        InputError: an argument out of its range.
    """

    name = "generative-convnet"

    def __init__(
        self,
        n_classes: int = 10,
        image_shape: ImageShape = (1, 28, 28),
        width: int = 16,
        sigma: float = 0.25,
        centre: float = 0.0,
        steps: int = 60,
        step_size: float = 0.125,
        energy: str = "reconstruction",
    ) -> None:
        settings = {"width": width, "sigma": sigma, "centre": centre, "steps": steps, "step_size": step_size}
        super().__init__(n_classes, image_shape, energy, **settings)
        for name in ("width", "steps"):
            if settings[name] < 1:
                raise InputError(f"{name}: got {settings[name]}, must be at least 1")
        for name in ("sigma", "step_size"):
            if not 0 < settings[name] < float("inf"):
                raise InputError(f"{name}: got {settings[name]}, must be above 0")
        if not 0 <= centre <= 1:
            raise InputError(f"centre: got {centre}, must be in [0, 1]")
        self.sigma, self.centre, self.steps, self.step_size = sigma, centre, steps, step_size
        channels, height, width_of_image = self.image_shape
        features = 2 * width * -(-height // 4) * -(-width_of_image // 4)
        self.network = nn.Sequential(
            FirstConvolution(channels, width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(features, 8 * width),
            nn.ReLU(),
            nn.Linear(8 * width, n_classes, bias=False),
        )
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, x: Tensor) -> Tensor:
        """f_k(x) + b_k, (B, K), of images x (B, C, H, W)."""
        return self.log_ratios(x) + self.bias

    def log_ratios(self, x: Tensor) -> Tensor:
        """f (B, K): the log ratios of p(x|k) and the reference distribution N(centre, σ²I), but for constants."""
        outputs: Tensor = self.network((x - self.centre) / self.sigma)
        return outputs

    def logits_and_drawings(self, x: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        """Logits (B, K), and drawings centre + σ² ∂f_k/∂x (B, J, C, H, W) under `labels` (B, J)."""

        def outputs(x: Tensor) -> tuple[Tensor, Tensor]:
            ratios = self.log_ratios(x)
            logits = ratios + self.bias
            return logits, ratios.gather(1, chosen(labels, logits))

        logits, gradients = with_input_gradients(outputs, x)
        return logits, self.centre + self.sigma**2 * gradients

    def energy_of(self, x: Tensor, labels: Tensor) -> Tensor:
        """‖x − centre‖² / 2σ² − f_k(x), (B,): −log p(x|k) but for a constant, of images x under `labels` (B,).

        Its gradient is (x − drawing of x under k) / σ²: Langevin dynamics follow the reconstruction error.
        """
        reference = (x - self.centre).flatten(1).square().sum(1) / (2 * self.sigma**2)
        return reference - self.log_ratios(x).gather(1, labels[:, None])[:, 0]

    def reference_noise(self, n: int, generator: Generator | None = None) -> Tensor:
        """Images (n, C, H, W) of the reference distribution N(centre, σ²I)."""
        return self.centre + self.sigma * normal(self.bias.new_empty(n, *self.image_shape), generator)

    def chain(
        self, x: Tensor, labels: Tensor, steps: int, step_size: float | None = None, generator: Generator | None = None
    ) -> Chain:
        """Langevin chains of p(x|k) that begin at images x (B, C, H, W), for `labels` (B,).

        Args:
            step_size: in [0, 1] pixel units; the model's by default.

        Raises:
            InputError: chains that diverge, or an argument out of its range.
        """
        wanted = self.step_size if step_size is None else step_size
        return langevin(lambda points: self.energy_of(points, labels), x, steps, wanted, generator=generator)

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        generator: Generator | None = None,
        *,
        steps: int | None = None,
        step_size: float | None = None,
    ) -> Tensor:
        """New images (B, C, H, W) in [0, 1] of `labels` (B,): drawings of where Langevin chains from noise end.

        Args:
            generator: random numbers; torch's own by default.
            steps, step_size: of the chains; the model's by default.

        Raises:
            InputError: chains that diverge, or an argument out of its range.
        """
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.n_classes:
            raise InputError(f"labels: span [{labels.min()}, {labels.max()}], must be in [0, {self.n_classes - 1}]")
        drawn = []
        for some in labels.to(self.bias.device).split(PAIRS):
            beginnings = self.reference_noise(len(some), generator)
            ends = self.chain(beginnings, some, self.steps if steps is None else steps, step_size, generator).x
            drawn.append(self.reconstruct(ends, some).clamp(0, 1))
        return torch.cat(drawn)
