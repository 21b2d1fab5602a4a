"""APGD on a classifier, by this library's own ascent: for every norm and any number of classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .base import at_least
from .detector_aware.apgd import Evaluation
from .detector_aware.base import shrinking_ascent
from .detector_aware.rejecting import ClassifierAttack
from .iterative import GradientAttack
from .objective import logit_margin
from .threat import Threat

MAX_TARGETS = 9


@dataclass(kw_only=True, eq=False)
class SteppingAttack(ClassifierAttack, GradientAttack):
    """Base class of attacks on a classifier, or on its decision with rejection, that take gradient steps.

    Args:
        steps: gradient steps, for each target.
        front_end, leaky: as for every `GradientAttack`.
        with_rejection, eps, norm, restarts, seed, batch_size: as for every `ClassifierAttack`.
    """

    steps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.steps = at_least(1, self.steps, "steps")


class OwnApgdCe(SteppingAttack):
    """APGD on the cross-entropy, which begins in a larger ball for l2 and l1; an image leaves once it is misclassified.

    F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", ICML 2020; for l1 their "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML
    2021.
    """

    name = "apgd-ce"

    def perturb_classifier(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        def loss(logits: Tensor, kept: Tensor) -> Tensor:
            return cross_entropy(logits, y[rows[kept]], reduction="none")

        return _ascend(classifier, loss, x[rows], y[rows], self.threat, self.steps, self.name)


class OwnApgdT(SteppingAttack):
    """APGD on the logit of a wrong label less that of the true one, for the likeliest wrong labels in turn.

    Unlike the difference of logits ratio of F. Croce, M. Hein, "Reliable evaluation of adversarial robustness with an
    ensemble of diverse parameter-free attacks", ICML 2020, it needs no four classes: steps depend on the direction of
    the gradient alone, which the ratio's denominator is not there to change. At most 9 labels, as there.
    """

    name = "apgd-t"

    def perturb_classifier(self, classifier: nn.Module, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        return ascend_margins(classifier, x[rows], y[rows], self.threat, self.steps, self.name)

    def passes(self, n_classes: int) -> int:
        return super().passes(n_classes) * min(MAX_TARGETS, n_classes - 1)


def ascend_margins(classifier: nn.Module, x: Tensor, y: Tensor, threat: Threat, steps: int, name: str) -> Tensor:
    """(B, C, H, W) images near x with true labels y (B,) on which some wrong label's logit comes nearest to y's.

    Args:
        classifier: logits (B, K), with K of at least 2.
        x, y: the images and their labels.
        threat: the ball.
        steps: gradient steps towards each of at most 9 labels; an image leaves once it is misclassified.
        name: the attack's name, for errors.
    """
    with torch.no_grad():
        logits = classifier(x)
    n_targets = min(MAX_TARGETS, logits.shape[1] - 1)
    targets = logits.scatter(1, y[:, None], -torch.inf).topk(n_targets, dim=1).indices
    x_adv, remaining = x.clone(), torch.arange(len(x), device=x.device)
    margin_best = torch.full((len(x),), torch.inf, device=x.device)
    for target in targets.T:
        clean, label, wanted = x[remaining], y[remaining], target[remaining]

        def loss(logits: Tensor, kept: Tensor, label: Tensor = label, wanted: Tensor = wanted) -> Tensor:
            both = torch.stack([wanted[kept], label[kept]], dim=1)
            return logits.gather(1, both).diff(dim=1).neg().squeeze(1)

        found = _ascend(classifier, loss, clean, label, threat, steps, name)
        with torch.no_grad():
            margin = logit_margin(classifier(found), label)
        nearer = margin < margin_best[remaining]  # towards an unlikely label an image ends far away
        x_adv[remaining[nearer]], margin_best[remaining[nearer]] = found[nearer], margin[nearer]
        remaining = remaining[margin >= 0]
        if not len(remaining):
            break
    return x_adv


def _ascend(
    classifier: nn.Module,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    threat: Threat,
    steps: int,
    name: str,
) -> Tensor:
    def evaluate(point: Tensor, rows: Tensor) -> Evaluation:
        x_adv = point.detach().requires_grad_()
        logits = classifier(x_adv)
        loss = loss_of(logits, rows)
        (grad,) = torch.autograd.grad(loss.sum(), x_adv)
        misclassified = logits.argmax(1) != y[rows]
        return Evaluation(misclassified, torch.zeros_like(loss.detach()), loss.detach(), grad)

    start = threat.project(x + threat.random(x), x)
    return shrinking_ascent(evaluate, x, start, threat, steps, name=name, threshold=0.0).x
