"""The parts of AutoAttack, by torchattacks, each with its own number of steps.

They use the library's `attack_single_run`, because its `__call__` starts from the same random numbers every time and
returns the clean image where it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..base import at_least
from ..detector_aware.rejecting import ClassifierAttack
from ..errors import InputError
from ..objective import logit_margin
from ..own_apgd import MAX_TARGETS, SteppingAttack, ascend_margins
from .torchattacks import library_attack

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
MIN_CLASSES = 4  # the targeted difference of logits ratio compares so many


class ApgdCe(SteppingAttack):
    """`torchattacks.APGD` on the cross-entropy.

    F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", ICML 2020.
    """

    name = "apgd-ce"
    norms = ("linf", "l2")

    def perturb_classifier(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        import torchattacks

        norm = NORMS[self.threat.norm]
        attack = library_attack(
            torchattacks.APGD, classifier, x, norm=norm, eps=self.threat.eps, steps=self.steps, loss="ce"
        )
        x_best, correct, _, x_best_adv = attack.attack_single_run(x[rows], y[rows])
        return _choose(correct, x_best, x_best_adv)


class _OverTargets(SteppingAttack):
    """Base class of those that go through the likeliest wrong labels."""

    def passes(self, n_classes: int) -> int:
        return super().passes(n_classes) * len(_targets(n_classes))


class ApgdT(_OverTargets):
    """`torchattacks.APGDT`: APGD on the targeted difference of logits ratio, for the likeliest wrong labels in turn.

    F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", ICML 2020. At most 9 labels, as there. A model of fewer than 4 classes, which the ratio needs, is attacked
    as by `OwnApgdT`, on the difference of the two logits.
    """

    name = "apgd-t"
    norms = ("linf", "l2")

    def perturb_classifier(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        import torchattacks

        n_classes = _n_classes(classifier, x)
        if n_classes < MIN_CLASSES:
            return ascend_margins(classifier, x[rows], y[rows], self.threat, self.steps, self.name)
        norm = NORMS[self.threat.norm]
        attack = library_attack(torchattacks.APGDT, classifier, x, norm=norm, eps=self.threat.eps, steps=self.steps)
        x_adv, remaining = x[rows], torch.arange(len(rows), device=x.device)
        margin_best = torch.full((len(rows),), torch.inf, device=x.device)
        for target in _targets(n_classes):
            attack.target_class = target
            left = rows[remaining]
            x_best, correct, _, x_best_adv = attack.attack_single_run(x[left], y[left])
            found = _choose(correct, x_best, x_best_adv)
            with torch.no_grad():
                margin = logit_margin(classifier(found), y[left])
            nearer = ~correct | (margin < margin_best[remaining])  # towards an unlikely target an image ends far away
            x_adv[remaining[nearer]], margin_best[remaining[nearer]] = found[nearer], margin[nearer]
            remaining = remaining[correct]
            if not len(remaining):
                break
        return x_adv


class FabT(_OverTargets):
    """`torchattacks.FAB`, targeted: the nearest misclassified image, towards the likeliest wrong labels in turn.

    F. Croce, M. Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020.
    At most 9 labels, as in AutoAttack. With several restarts it also starts at a random point.
    """

    name = "fab-t"
    in_bfloat16 = False

    def perturb_classifier(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        import torchattacks

        attack = library_attack(
            torchattacks.FAB,
            classifier,
            x,
            norm=NORMS[self.threat.norm],
            eps=self.threat.eps,
            steps=self.steps,
            multi_targeted=True,
        )
        x_adv = x[rows].contiguous()
        distance_best = torch.full((len(rows),), torch.inf, device=x.device)
        remaining = torch.arange(len(rows), device=x.device)
        for target in _targets(_n_classes(classifier, x)):
            attack.target_class = target
            for random_start in (False, True)[: self.restarts]:
                labels = y[rows[remaining]]
                clean = x[rows[remaining]].contiguous()
                with torch.no_grad():
                    found = attack.attack_single_run_targeted(clean, labels, use_rand_start=random_start)
                    distance = self.threat.distance(found - clean)
                    distance[classifier(found).argmax(1) == labels] = torch.inf
                nearer = distance < distance_best[remaining]
                x_adv[remaining[nearer]], distance_best[remaining[nearer]] = found[nearer], distance[nearer]
                remaining = remaining[distance_best[remaining] > self.threat.eps]
                if not len(remaining):
                    return x_adv
        return x_adv


@dataclass(kw_only=True, eq=False)
class Square(ClassifierAttack):
    """`torchattacks.Square`: random search with squares; uses logits, never gradients.

    M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, "Square Attack: a query-efficient black-box adversarial
    attack via random search", ECCV 2020.

    Args:
        queries: queries of the logits, for each image.
        with_rejection, eps, norm, restarts, seed, batch_size: as for every `ClassifierAttack`.

    Raises:
        InputError: from a call, for l2 and images with sides below 5 or far from square.
    """

    name = "square"
    norms = ("linf", "l2")
    in_bfloat16 = False
    needs_gradient = False

    queries: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.queries = at_least(1, self.queries, "queries")

    def perturb_classifier(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        return self._search(classifier, x, y, rows, None)

    def perturb_classifier_from(
        self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor, start: Tensor
    ) -> Tensor:
        return self._search(classifier, x, y, rows, start)

    def _search(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor, start: Tensor | None) -> Tensor:
        import torchattacks

        height, width = x.shape[2:]
        largest = round((0.8 * height * width) ** 0.5) | 1  # the side of its first window, an odd number
        if self.threat.norm == "l2" and (min(height, width) < 5 or largest > min(height, width)):
            raise InputError(
                f"x: images are {height}×{width}, must be about square with sides of at least 5 for {self.name} with l2"
            )
        attack = library_attack(
            torchattacks.Square,
            classifier,
            x,
            norm=NORMS[self.threat.norm],
            eps=self.threat.eps,
            n_queries=self.queries,
        )
        attack.init_hyperparam(x)
        if start is not None:
            # The library's first point is x plus eps times what the first call of this method gives.
            first = "random_choice" if self.threat.norm == "linf" else "normalize_delta"
            change = (start[rows] - x[rows]) / self.threat.eps
            setattr(attack, first, _first(change, getattr(attack, first)))
        return attack.attack_single_run(x[rows].contiguous(), y[rows])[1]

    def passes(self, n_classes: int) -> int:
        return (super().passes(n_classes) + 1) // 2  # a query has no backward pass


def _first(value: Tensor, function: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    """`function`, whose first call gives `value` instead."""
    values = iter([value])

    def call(argument: Any) -> Tensor:
        found = next(values, None)
        return function(argument) if found is None else found

    return call


def _n_classes(classifier: nn.Module, x: Tensor) -> int:
    with torch.no_grad():
        return classifier(x[:1]).shape[1]


def _targets(n_classes: int) -> range:
    """The library numbers the labels by their logits: the likeliest is 1, and the wrong ones begin at 2."""
    return range(2, min(MAX_TARGETS, n_classes - 1) + 2)


def _choose(correct: Tensor, x_best: Tensor, x_best_adv: Tensor) -> Tensor:
    """The misclassified point, or the point of the highest loss where all points are classified correctly."""
    return torch.where(correct.view(-1, 1, 1, 1), x_best, x_best_adv)
