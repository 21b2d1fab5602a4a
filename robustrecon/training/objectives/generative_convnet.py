"""Analysis by synthesis: what is seen must become likelier under its class than what the network makes itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from ...models import EnergyModel, GenerativeConvNet
from ..checks import at_least, in_unit, one_of
from .base import Objective, ObjectiveOptions


class GenerativeConvNetObjective(Objective):
    """Maximum likelihood of images given their labels, by sampling, and the cross-entropy of the labels.

    The gradient of the likelihood is the mean of ∂f_y over images less that over samples of the same classes, which
    Langevin chains draw. For it, images get Gaussian noise of the model's σ, which its densities have around each mode;
    they are classified as they are.

    J. Xie, Y. Lu, S.-C. Zhu, Y. N. Wu, "A Theory of Generative ConvNet", ICML 2016, sections 3 and 6. Persistent
    chains: T. Tieleman, "Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient", ICML
    2008; that some begin anew, so that the way from noise to an image is learned too: Y. Du, I. Mordatch, "Implicit
    Generation and Modeling with Energy-Based Models", NeurIPS 2019.

    Attributes:
        ends: (K, chains_per_class, C, H, W) where the persistent chains of each class are; empty with others.
    """

    requires = (GenerativeConvNet,)
    metrics = ("loss", "cross_entropy", "gap", "accuracy")

    @dataclass(frozen=True)
    class Options(ObjectiveOptions):
        """Options of the objective.

        Attributes:
            chains: "persistent" chains go on where they were, and "contrastive" ones begin at the images of the batch.
            steps: of Langevin dynamics for each update of the weights.
            classification_weight: weight of the cross-entropy of f_k + b_k beside the likelihood.
            noise: standard deviation of the noise on images whose likelihood is learned, in units of the model's σ.
            chains_per_class: how many persistent chains each class has.
            restarts: share of the persistent chains, each time that they are used, which begin anew.

        Raises:
            InputError: one out of its range.
        """

        chains: str = "persistent"
        steps: int = 10
        classification_weight: float = 10.0
        noise: float = 1.0
        chains_per_class: int = 100
        restarts: float = 0.05

        def __post_init__(self) -> None:
            one_of(self, "chains", "persistent", "contrastive")
            at_least(1, self, "steps", "chains_per_class")
            at_least(0, self, "classification_weight", "noise")
            in_unit(self, "restarts")

    model: GenerativeConvNet
    options: Options
    ends: Tensor

    def __init__(self, model: EnergyModel, options: ObjectiveOptions) -> None:
        super().__init__(model, options)
        n = self.options.chains_per_class if self.options.chains == "persistent" else 0
        beginnings = self.model.reference_noise(model.n_classes * n)
        self.register_buffer("ends", beginnings.unflatten(0, (model.n_classes, n)))

    def forward(self, x: Tensor, y: Tensor, progress: float) -> dict[str, Tensor]:
        """Batch means of `metrics` for images x (B, C, H, W) with labels y (B,).

        "gap" is the mean of f_y over the images less that over the samples: near 0 where neither is ahead.

        Raises:
            InputError: the chains diverge.
        """
        options = self.options
        seen = x + options.noise * self.model.sigma * torch.randn_like(x)
        samples = self._contrastive(seen, y) if options.chains == "contrastive" else self._persistent(y)
        ratios, seen_ratios, sample_ratios = self.model.log_ratios(torch.cat([x, seen, samples])).chunk(3)
        logits = ratios + self.model.bias
        gap = (seen_ratios - sample_ratios).gather(1, y[:, None]).mean()
        classification = cross_entropy(logits, y)
        return {
            "loss": options.classification_weight * classification - gap,
            "cross_entropy": classification,
            "gap": gap,
            "accuracy": (logits.argmax(1) == y).float().mean(),
        }

    def _contrastive(self, x: Tensor, y: Tensor) -> Tensor:
        """Chains (B, C, H, W) that begin at the images x."""
        return self.model.chain(x, y, self.options.steps).x

    def _persistent(self, y: Tensor) -> Tensor:
        """Chains (B, C, H, W) of the classes y (B,) that go on where they, or others of the class, were."""
        n = self.options.chains_per_class
        place = (one_hot(y, self.model.n_classes).cumsum(0) - 1).gather(1, y[:, None])[:, 0] % n
        slots = torch.rand(self.ends.shape[:2], device=y.device).argsort(1)[y, place]
        beginnings = self.ends[y, slots]
        anew = torch.rand(len(y), device=y.device) < self.options.restarts
        beginnings[anew] = self.model.reference_noise(int(anew.sum()))
        samples = self.model.chain(beginnings, y, self.options.steps).x
        self.ends[y, slots] = samples
        return samples
