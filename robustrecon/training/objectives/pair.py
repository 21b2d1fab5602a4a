"""The objective of a drawer beside a classifier that is not trained: contrastive, on adversarial images of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...models import EnergyModel
from ...models.base import Pair
from ..adversary import pgd_for_training
from ..checks import in_unit
from .contrastive import ContrastiveObjective


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
    def _trained(self) -> EnergyModel:
        return cast(EnergyModel, cast(Any, self.model).drawer)

    def _adversarial(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        n_pair = round(self.options.pair_share * len(x))

        def of(model: EnergyModel, part: Callable[[Tensor], Tensor]) -> Tensor:
            return pgd_for_training(model, part(x), part(y), eps, self.options.attack_steps)

        return torch.cat([of(self.model, lambda t: t[:n_pair]), of(self._trained, lambda t: t[n_pair:])])

    @torch.no_grad()
    def _likely(self, logits: Tensor, x: Tensor, y: Tensor) -> Tensor:
        wrong = self.model(x).scatter(1, y[:, None], -torch.inf).argmax(1)
        return logits.masked_fill(one_hot(wrong, logits.shape[1]).bool(), torch.inf)
