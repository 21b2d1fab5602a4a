"""The parts of AutoAttack, by torchattacks, one by one and with their own numbers of steps.

Each is run through the library's `attack_single_run`, not through its call: that one starts from the same random
numbers every time, and gives back the clean image where it failed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..base import at_least
from ..detector_aware.rejecting import ClassifierAttack
from ..errors import InputError
from .torchattacks import made

NORMS = {"linf": "Linf", "l2": "L2"}
MOST_TARGETS = 9
LEAST_CLASSES = 4  # that the targeted difference of logits ratio compares


@dataclass(kw_only=True, eq=False)
class _Stepping(ClassifierAttack):
    """What the attacks that take steps have in common.

    Args:
        eps: radius of the budget, in [0, 1] pixel units.
        steps: gradient steps, for each target.
        norm, restarts, seed, batch_size: as for every `Attack`.
    """

    steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.steps = at_least(1, self.steps, "steps")


class ApgdCe(_Stepping):
    """`torchattacks.APGD` on the cross-entropy.

    F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", ICML 2020.
    """

    name = "apgd-ce"

    def fool(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        import torchattacks

        norm = NORMS[self.threat.norm]
        attack = made(torchattacks.APGD, classifier, x, norm=norm, eps=self.threat.eps, steps=self.steps, loss="ce")
        furthest, right, _, fooled = attack.attack_single_run(x[rows], y[rows])
        return _choose(right, furthest, fooled)


class ApgdT(_Stepping):
    """`torchattacks.APGDT`: APGD on the targeted difference of logits ratio, for the likeliest wrong labels in turn.

    F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", ICML 2020. At most 9 labels, as there.

    Raises:
        InputError: from a call, for a model of fewer than 4 classes.
    """

    name = "apgd-t"

    def fool(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        import torchattacks

        n_classes = _n_classes(classifier, x)
        if n_classes < LEAST_CLASSES:
            raise InputError(
                f"model: has {n_classes} classes, must have at least {LEAST_CLASSES} for {self.name}, whose loss "
                "compares as many logits; apgd-ce and fab-t take fewer"
            )
        norm = NORMS[self.threat.norm]
        attack = made(torchattacks.APGDT, classifier, x, norm=norm, eps=self.threat.eps, steps=self.steps)
        moved, standing = x[rows], torch.arange(len(rows), device=x.device)
        for target in _targets(n_classes):
            attack.target_class = target
            of = rows[standing]
            furthest, right, _, fooled = attack.attack_single_run(x[of], y[of])
            moved[standing] = _choose(right, furthest, fooled)
            standing = standing[right]
            if not len(standing):
                break
        return moved


class FabT(_Stepping):
    """`torchattacks.FAB`, targeted: the nearest misread image, towards the likeliest wrong labels in turn.

    F. Croce, M. Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020.
    At most 9 labels, as in AutoAttack. With several restarts each also starts at a random point.
    """

    name = "fab-t"

    def fool(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        import torchattacks

        attack = made(
            torchattacks.FAB,
            classifier,
            x,
            norm=NORMS[self.threat.norm],
            eps=self.threat.eps,
            steps=self.steps,
            multi_targeted=True,
        )
        moved = x[rows].contiguous()
        nearest = torch.full((len(rows),), torch.inf, device=x.device)
        standing = torch.arange(len(rows), device=x.device)
        for target in _targets(_n_classes(classifier, x)):
            attack.target_class = target
            for random_start in (False, True)[: self.restarts]:
                of = rows[standing]
                clean = x[of].contiguous()
                with torch.no_grad():
                    found = attack.attack_single_run_targeted(clean, y[of], use_rand_start=random_start)
                    distance = self.threat.distance(found - clean)
                    distance[classifier(found).argmax(1) == y[of]] = torch.inf
                nearer = distance < nearest[standing]
                moved[standing[nearer]], nearest[standing[nearer]] = found[nearer], distance[nearer]
                standing = standing[nearest[standing] > self.threat.eps]
                if not len(standing):
                    return moved
        return moved


@dataclass(kw_only=True, eq=False)
class Square(ClassifierAttack):
    """`torchattacks.Square`: random search with squares; asks for logits, never for gradients.

    M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, "Square Attack: a query-efficient black-box adversarial
    attack via random search", ECCV 2020.

    Args:
        eps: radius of the budget, in [0, 1] pixel units.
        queries: logits asked for, an image.
        norm, restarts, seed, batch_size: as for every `Attack`.

    Raises:
        InputError: from a call, for l2 and images with sides below 5, or far from square, which the library cannot do.
    """

    name = "square"
    needs_gradient = False

    queries: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.queries = at_least(1, self.queries, "queries")

    def fool(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        import torchattacks

        height, width = x.shape[2:]
        largest = round((0.8 * height * width) ** 0.5) | 1  # the side of its first window, an odd number
        if self.threat.norm == "l2" and (min(height, width) < 5 or largest > min(height, width)):
            raise InputError(
                f"x: images are {height}×{width}, must be about square with sides of at least 5 for {self.name} with l2"
            )
        attack = made(
            torchattacks.Square,
            classifier,
            x,
            norm=NORMS[self.threat.norm],
            eps=self.threat.eps,
            n_queries=self.queries,
        )
        attack.init_hyperparam(x)
        return attack.attack_single_run(x[rows].contiguous(), y[rows])[1]


class ApgdCeRejecting(ApgdCe):
    """`ApgdCe` on the decision with rejection."""

    name = "apgd-ce-rejecting"
    knows_detector = True


class ApgdTRejecting(ApgdT):
    """`ApgdT` on the decision with rejection."""

    name = "apgd-t-rejecting"
    knows_detector = True


class FabTRejecting(FabT):
    """`FabT` on the decision with rejection."""

    name = "fab-t-rejecting"
    knows_detector = True


class SquareRejecting(Square):
    """`Square` on the decision with rejection."""

    name = "square-rejecting"
    knows_detector = True


def _n_classes(classifier: nn.Module, x: Tensor) -> int:
    with torch.no_grad():
        return classifier(x[:1]).shape[1]


def _targets(n_classes: int) -> range:
    """The library counts labels from the likeliest, 1: the wrong ones begin at 2."""
    return range(2, min(MOST_TARGETS, n_classes - 1) + 2)


def _choose(right: Tensor, furthest: Tensor, fooled: Tensor) -> Tensor:
    """The point of the highest loss where no point was misread."""
    return torch.where(right.view(-1, 1, 1, 1), furthest, fooled)
