"""The attack that wants a rejection: denial of service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .detector_aware.apgd import Confirm, Evaluate, Evaluation, apgd_ascent
from .detector_aware.multi_target import rival_labels
from .errors import InputError
from .goals import Goal, Rejected, logits_and_score
from .iterative import IterativeAttack
from .objective import logit_margin
from .precision import exact_model

OFFSET = 1e9  # keeps the losses of misclassified points above all others


@dataclass(kw_only=True, eq=False)
class ForceReject(IterativeAttack):
    """Has the detector reject the image, whatever its label.

    Two ascents, the second on the images that the first leaves: on the negated logit margin of the true label until the
    image is misclassified, then on the score of the label that it has; and on the score of the clean image's label. The
    first is there because the score jumps where the label changes, which its gradient does not tell. J. Chen,
    J. Raghuram, J. Choi, X. Wu, Y. Liang, S. Jha, "Stratified Adversarial Robustness with Rejection", ICML 2023, count
    a rejection near the clean image as an error.

    Args:
        steps: gradient steps of each ascent; an image leaves as soon as it is rejected.
        alpha: a constant step size; by default the step sizes adapt as in APGD (Croce & Hein 2020).
        eps, random_start, front_end, leaky, norm, restarts, seed, batch_size: as for every `IterativeAttack`.
    """

    name = "force-reject"
    knows_detector = True
    supported_goals: ClassVar[tuple[type[Goal], ...]] = (Rejected,)

    steps: int = 100

    def default_goal(self, model: nn.Module | Callable[[Tensor], Tensor]) -> Goal:
        """`Rejected(model.threshold)`.

        Raises:
            InputError: the model has no threshold.
        """
        threshold = getattr(model, "threshold", None)
        if threshold is None:
            raise InputError(f"model: {type(model).__name__} has no threshold; {self.name} needs one")
        return Rejected(threshold)

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        assert isinstance(goal, Rejected)
        x_adv = self._ascend(_through_the_label(victim, y, goal.threshold), x, goal)
        remaining = (~goal.met(victim, x_adv, y)).nonzero()[:, 0]
        if len(remaining):
            clean = x[remaining]
            found = self._ascend(_on_the_score(victim, clean, goal.threshold), clean, goal, _confirmed_by(victim, goal))
            x_adv[remaining] = found
        return x_adv

    def _ascend(self, evaluate: Evaluate, x: Tensor, goal: Rejected, confirm: Confirm | None = None) -> Tensor:
        start = self.threat.project(x + self.threat.random(x), x) if self.random_start else x
        return apgd_ascent(
            evaluate,
            x,
            start,
            self.threat,
            self.steps,
            name=self.name,
            threshold=-goal.threshold,
            fixed_step=self.alpha,
            confirm=confirm,
        ).x

    def passes(self, n_classes: int) -> int:
        return 2 * super().passes(n_classes)


# The loop looks for a low score of a misclassified image. Here an image that is rejected takes the place of a
# misclassified one, and the negated score that of the score.


def _through_the_label(victim: nn.Module, y: Tensor, threshold: float) -> Evaluate:
    """Ascend the negated logit margin until misclassified, then the score, which is computed only from there on."""

    def evaluate(point: Tensor, rows: Tensor) -> Evaluation:
        x_adv = point.detach().requires_grad_()
        logits = victim(x_adv)
        margin = -logit_margin(logits, y[rows])  # unlike cross-entropy, it does not saturate
        loss, score = margin.double() - OFFSET, torch.full_like(margin, -torch.inf)
        misclassified = (logits.argmax(1) != y[rows]).nonzero()[:, 0]
        if len(misclassified):
            found = logits_and_score(victim, x_adv[misclassified])[1]
            loss = loss.index_copy(0, misclassified, found.double())
            score = score.index_copy(0, misclassified, found.detach())
        (grad,) = torch.autograd.grad(loss.sum(), x_adv)
        return Evaluation(score > threshold, -score, loss.detach(), grad)

    return evaluate


def _on_the_score(victim: nn.Module, x: Tensor, threshold: float) -> Evaluate:
    """Ascend the score of the label that the clean images x have, against the labels that explain them best."""
    with torch.no_grad():
        label = victim(x).argmax(1)
    compared = rival_labels(victim, x, label)

    def evaluate(point: Tensor, rows: Tensor) -> Evaluation:
        x_adv = point.detach().requires_grad_()
        score = logits_and_score(victim, x_adv, label[rows], None if compared is None else compared[rows])[1]
        (grad,) = torch.autograd.grad(score.sum(), x_adv)
        score = score.detach()
        return Evaluation(score > threshold, -score, score, grad)

    return evaluate


def _confirmed_by(victim: nn.Module, goal: Rejected) -> Confirm:
    """Whether the model itself rejects, which judges by the label that an image has and compares all others."""
    model = exact_model(victim)

    @torch.no_grad()
    def confirm(x_adv: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        score = logits_and_score(model, x_adv)[1]
        return score > goal.threshold, -score

    return confirm
