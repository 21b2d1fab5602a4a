"""The contrastive objective: the true label must explain an input better than the likeliest wrong ones do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ...models import EnergyModel
from ..adversary import pgd_for_training
from ..augment import random_distortion
from ..checks import at_least, in_unit
from .energies import EnergyObjective, EnergyOptions, evaluate, losses, true_and_likeliest_wrong


class ContrastiveObjective(EnergyObjective):
    """Cross-entropy on the logits and on −energies, and the reconstruction error of a model that can draw.

    The energies are those of the input that the network gets, noise or attack included, as a detector will see them;
    the drawing under the true label is compared with the clean image. With `eps` above 0 all but a `clean_share` of a
    batch is adversarial: A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
    """

    @dataclass(frozen=True)
    class Options(EnergyOptions):
        """Options of the objective, and those of `EnergyOptions`.

        Attributes:
            clean_share: share of each batch that stays clean.
            margin_gap: this much is added to the true label's energy of a clean image and subtracted from that of an
                adversarial one, so that clean images must show a larger margin than adversarial ones: a detector
                rejects what no label explains much better than the others. 0 asks the same of both.

        Raises:
            InputError: one out of its range.
        """

        clean_share: float = 0.25
        margin_gap: float = 0.0

        def __post_init__(self) -> None:
            super().__post_init__()
            in_unit(self, "clean_share", below_1=True)
            at_least(0, self, "margin_gap")

    options: Options

    def forward(self, x: Tensor, y: Tensor, progress: float) -> dict[str, Tensor]:
        """Batch means of `metrics` for images x (B, C, H, W) with labels y (B,)."""
        options = self.options
        if options.distortion:
            x = random_distortion(x, options.distortion)
        inputs, n_clean = x + options.noise * torch.randn_like(x), len(x)
        if eps := options.eps_at(progress):
            n_clean = round(options.clean_share * len(x))
            inputs = torch.cat([inputs[:n_clean], self._adversarial(x[n_clean:], y[n_clean:], eps)])
        found = evaluate(
            self._trained,
            self._seen(inputs),
            y,
            lambda logits: true_and_likeliest_wrong(self._likely(logits, inputs, y), y, options.wrong_labels),
            options.style_noise,
        )
        gap = torch.full_like(y, options.margin_gap, dtype=found.energies.dtype)
        gap[n_clean:] *= -1
        energies = torch.cat([found.energies[:, :1] + gap[:, None], found.energies[:, 1:]], dim=1)
        return losses(
            options,
            classification=cross_entropy(found.logits, y),
            contrast=cross_entropy(-energies, torch.zeros_like(y)),
            reconstruction=found.reconstruction_error(self._target(x)),
            accuracy=(found.logits.argmax(1) == y).float().mean(),
        )

    @property
    def _trained(self) -> EnergyModel:
        """The model whose losses these are."""
        return self.model

    def _seen(self, x: Tensor) -> Tensor:
        """What that model sees of images x (B, C, H, W)."""
        return x

    def _target(self, x: Tensor) -> Tensor:
        """What its drawings of images x (B, C, H, W) should look like."""
        return x

    def _adversarial(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        """Adversarial images for x (B, C, H, W) with labels y (B,)."""
        return pgd_for_training(self._trained, x, y, eps, self.options.attack_steps)

    def _likely(self, logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """(B, K), higher for labels whose energies should be compared; the logits of the inputs x."""
        return logits
