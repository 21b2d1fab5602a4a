"""The attack that wants a rejection: denial of service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .base import IterativeAttack
from .detector_aware.apgd import Evaluation, apgd_ascent
from .errors import InputError
from .goals import Goal, Rejected, logits_and_score
from .objective import logit_margin

OFFSET = 1e9  # keeps the losses of misclassified points above all others


@dataclass(kw_only=True, eq=False)
class ForceReject(IterativeAttack):
    """Has the detector reject the image, whatever its label.

    Two ascents, the second on the images that the first leaves: on the score; and on the classifier's loss until the
    image is misclassified, then on the score. The score is that of the predicted label, so that it can jump where the
    label changes, which its gradient does not tell. J. Chen, J. Raghuram, J. Choi, X. Wu, Y. Liang, S. Jha, "Stratified
    Adversarial Robustness with Rejection", ICML 2023, count a rejection near the clean image as an error.

    Args:
        steps: gradient steps of each ascent; an image leaves as soon as it is rejected.
        alpha: a constant step size; by default the step sizes adapt as in APGD (Croce & Hein 2020).
        eps, random_start, norm, restarts, seed, batch_size: as for every `IterativeAttack`.
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
        x_adv = x.clone()
        remaining = torch.arange(len(x), device=x.device)
        for label_first in (False, True):
            x_adv[remaining] = self._ascend(victim, x[remaining], y[remaining], goal, label_first)
            remaining = remaining[~goal.met(victim, x_adv[remaining], y[remaining])]
            if not len(remaining):
                break
        return x_adv

    def _ascend(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Rejected, label_first: bool) -> Tensor:
        """The best points of one ascent on the score; with `label_first`, of images misclassified before."""

        def evaluate(point: Tensor, rows: Tensor) -> Evaluation:
            x_adv = point.detach().requires_grad_()
            logits, score = logits_and_score(victim, x_adv)
            loss = score.double()
            if label_first:
                margin = -logit_margin(logits, y[rows])  # unlike cross-entropy, it does not saturate
                loss = torch.where(logits.argmax(1) != y[rows], loss, margin.double() - OFFSET)
            (grad,) = torch.autograd.grad(loss.sum(), x_adv)
            score = score.detach()
            # The loop's goal is a low score of a misclassified image; this one's is a high score, whatever the label.
            return Evaluation(score > goal.threshold, -score, loss.detach(), grad)

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
        ).x

    def passes(self, n_classes: int) -> int:
        return 2 * super().passes(n_classes)
