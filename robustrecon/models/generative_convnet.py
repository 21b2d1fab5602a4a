"""Generative ConvNet: a classifier whose outputs f_k are log densities of the images of a class."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from ..sampling import Chain, langevin
from ..types import ImageShape, InputError
from .gradient_drawings import PAIRS
from .strided import FirstConvolution
from .tilted_gaussian import TiltedGaussian


class GenerativeConvNet(TiltedGaussian):
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
        if not 0 < step_size < float("inf"):
            raise InputError(f"step_size: got {step_size}, must be above 0 and finite")
        self.steps, self.step_size = steps, step_size
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

    def log_ratios(self, x: Tensor) -> Tensor:
        """f (B, K): the log ratios of p(x|k) and the reference distribution N(centre, σ²I), but for constants."""
        outputs: Tensor = self.network((x - self.centre) / self.sigma)
        return outputs

    def logits_of(self, ratios: Tensor) -> Tensor:
        """f_k + b_k, (B, K)."""
        return ratios + self.bias

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
        drawn = []
        for some in self.checked_labels(labels).split(PAIRS):
            beginnings = self.reference_noise(len(some), generator)
            ends = self.chain(beginnings, some, self.steps if steps is None else steps, step_size, generator).x
            drawn.append(self.reconstruct(ends, some).clamp(0, 1))
        return torch.cat(drawn)
