"""The objective of a drawer beside a classifier that is not trained: contrastive, on adversarial images of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ...data import Dataset
from ...models import EnergyModel
from ...models.base import Labels, Pair
from ...models.grafted import Grafted
from ...runtime import device_of, evaluating
from ..adversary import pgd_for_training
from ..checks import in_unit
from .contrastive import ContrastiveObjective

MISSED_ON = 500  # calibration images, fewer where there are many classes
MOST_DRAWINGS = 50_000


class PairObjective(ContrastiveObjective):
    """The contrastive objective for the drawer of a pair; the classifier of the pair gets no gradient.

    A share of the adversarial images misleads the classifier and the energies together, towards the label that the
    classifier is misled to; the others mislead the drawer's own logits and energies, as if there were no classifier.
    The classifier's likeliest wrong label is always among those whose energies are compared with the true one's.
    """

    requires = (Pair,)

    @dataclass(frozen=True)
    class Options(ContrastiveObjective.Options):
        """Options of the objective, and those of `ContrastiveObjective`.

        Attributes:
            pair_share: share of the adversarial images that are of the pair.

        Raises:
            InputError: one out of its range.
        """

        pair_share: float = 0.5

        def __post_init__(self) -> None:
            super().__post_init__()
            in_unit(self, "pair_share")

    options: Options

    @property
    def _pair(self) -> Pair:
        return cast(Pair, self.model)

    @property
    def _trained(self) -> EnergyModel:
        return self._pair.drawer

    def _seen(self, x: Tensor) -> Tensor:
        return self._pair.for_drawer(x)

    def _target(self, x: Tensor) -> Tensor:
        return self._pair.target(x)

    def _adversarial(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        n_pair = round(self.options.pair_share * len(x))

        parts = ((self.model, slice(n_pair)), (_DrawerOnImages(self._pair), slice(n_pair, None)))
        steps = self.options.attack_steps
        return torch.cat(
            [pgd_for_training(model, x[part], y[part], eps, steps) for model, part in parts if len(x[part])]
        )

    def findings(self, trained: nn.Module, data: Dataset) -> dict[str, Any]:
        """With `top_labels`: for which share of calibration images the lowest energy is not among them."""
        assert isinstance(trained, Grafted)
        if not trained.top_labels:
            return {}
        x = data.calibration.head(min(MISSED_ON, MOST_DRAWINGS // trained.n_classes)).x
        with evaluating(trained):
            return {"minimum_missed": {"calibration": trained.minimum_missed(x.to(device_of(trained))), "n": len(x)}}

    @torch.no_grad()
    def _likely(self, logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        wrong = self.model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
        return logits.masked_fill(one_hot(wrong, logits.shape[1]).bool(), torch.inf)


class _DrawerOnImages(EnergyModel):
    """The drawer alone, with its own logits, as a model of the pair's images."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair.n_classes, pair.image_shape)
        self.pair = pair

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.pair.drawer(self.pair.for_drawer(x))
        return logits

    def class_energies(self, x: Tensor) -> Tensor:
        return self.pair.drawer.class_energies(self.pair.for_drawer(x))

    def logits_and_energies(self, x: Tensor, labels: Labels | None = None) -> tuple[Tensor, Tensor]:
        return self.pair.drawer.logits_and_energies(self.pair.for_drawer(x), labels)
