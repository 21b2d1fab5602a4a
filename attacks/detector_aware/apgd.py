"""Auto-PGD ascent: the loop that the detector-aware attacks share.

Step sizes, momentum and restarts from the best point are those of F. Croce, M. Hein, "Reliable evaluation of
adversarial robustness with an ensemble of diverse parameter-free attacks", ICML 2020 (APGD), and for l1 those of their
"Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import nonfinite, raise_if_nonfinite
from ..threat import Threat
from .steps import State, n_changed, per_image, step_rule


@dataclass
class Evaluation:
    """What an attack computes at its current points.

    Attributes:
        misclassified: (B,) bool, whether the predicted label meets the goal.
        score: (B,) detector scores, by which misclassified points are compared; estimates where `Confirm` is given.
        loss: (B,) the loss to ascend; the step sizes follow it.
        grad: (B, C, H, W) the direction of the next step.
    """

    misclassified: Tensor
    score: Tensor
    loss: Tensor
    grad: Tensor


Evaluate: TypeAlias = Callable[[Tensor, Tensor], Evaluation]
Confirm: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass
class BestPoints:
    """The best point of each image: the misclassified point of the lowest score, or else that of the highest loss.

    Attributes:
        x: (B, C, H, W) the points.
        misclassified: (B,) bool.
        score: (B,) detector scores, infinite where not misclassified.
        loss: (B,) the highest loss that was seen on the way.
    """

    x: Tensor
    misclassified: Tensor
    score: Tensor
    loss: Tensor

    @classmethod
    def unevaluated(cls, x: Tensor) -> BestPoints:
        """The points x before any is evaluated."""
        infinite = torch.full((len(x),), math.inf, device=x.device)
        return cls(x.clone(), torch.zeros_like(infinite, dtype=torch.bool), infinite, -infinite)

    def broken(self, threshold: float) -> Tensor:
        """(B,) bool: the images that are misclassified with a score at or below the threshold."""
        return self.misclassified & (self.score <= threshold)

    def update(self, rows: Tensor, other: BestPoints) -> None:
        """Take the points of `other`, which are for the images `rows`, where they are better."""
        higher = ~other.misclassified & ~self.misclassified[rows] & (other.loss > self.loss[rows])
        better = (other.misclassified & ~self.misclassified[rows]) | (other.score < self.score[rows]) | higher
        for field in fields(self):
            getattr(self, field.name)[rows[better]] = getattr(other, field.name)[better]


def apgd_ascent(
    evaluate: Evaluate,
    x: Tensor,
    start: Tensor,
    threat: Threat,
    steps: int,
    *,
    name: str,
    threshold: float = -math.inf,
    fixed_step: float | None = None,
    confirm: Confirm | None = None,
) -> BestPoints:
    """Ascend a loss from `start` for `steps` steps inside the ball around x.

    Args:
        evaluate: called with points (b, C, H, W) and the rows (b,) of x that they belong to.
        x, start: (B, C, H, W).
        threat: the ball.
        steps: gradient steps.
        name: the attack's name, for errors.
        threshold: an image leaves as soon as it is misclassified with a score at or below the threshold.
        fixed_step: a constant step size without momentum, instead of a schedule.
        confirm: called with points that `evaluate` finds better than any before and their rows; gives what holds for
            them exactly, (b,) misclassified and (b,) scores.

    Raises:
        NonFiniteLoss: a loss or gradient is not finite.
    """
    n = len(x)
    best = BestPoints.unevaluated(start)
    lowest = torch.full((n,), -math.inf, device=x.device)
    rule = step_rule(threat, steps, fixed_step)
    state = State(
        rows=torch.arange(n, device=x.device),
        x=x,
        x_adv=start,
        x_adv_old=start,
        step_size=torch.full((n, 1, 1, 1), rule.initial_step, device=x.device),
        share=rule.initial_share(x, start),
        x_best=start,
        grad_best=torch.zeros_like(x),
        loss_best=lowest,
        loss_old=lowest,
        loss_best_last_check=lowest,
        n_increases=torch.zeros(n, device=x.device),
        reduced_last_check=torch.ones(n, dtype=torch.bool, device=x.device),
        sparsity_last_check=n_changed(start, x),
    )
    last_check = 0
    for step in range(steps + 1):
        found = evaluate(state.x_adv, state.rows)
        raise_if_nonfinite(name, nonfinite(found.loss, found.grad))
        improved = found.loss > state.loss_best
        if confirm is not None:
            _correct(found, best, state, confirm)
        _update_best(best, state, found, improved)
        state.x_best = torch.where(per_image(improved), state.x_adv, state.x_best)
        state.grad_best = torch.where(per_image(improved), found.grad, state.grad_best)
        if step:
            state.n_increases = state.n_increases + (found.loss > state.loss_old)
        state.loss_best, state.loss_old = torch.where(improved, found.loss, state.loss_best), found.loss
        if step == steps:
            break
        grad = found.grad
        if step in rule.checkpoints:
            back = rule.adapt(state, step - last_check)
            _return_to_best(state, back)
            grad = torch.where(per_image(back), state.grad_best, grad)
            last_check = step
        if threshold > -math.inf:
            remaining = ~(found.misclassified & (found.score <= threshold))
            if not remaining.all():
                state.keep(remaining)
                grad = grad[remaining]
                if not len(state.rows):
                    break
        _take_step(state, grad, threat, rule.momentum if step else 1.0)
    return best


def _correct(found: Evaluation, best: BestPoints, state: State, confirm: Confirm) -> None:
    """Put what holds exactly in the place of estimates that would become the best points."""
    lower_score = found.misclassified & (found.score < best.score[state.rows])
    if lower_score.any():
        misclassified, score = confirm(state.x_adv[lower_score], state.rows[lower_score])
        found.misclassified = found.misclassified.masked_scatter(lower_score, misclassified)
        found.score = found.score.masked_scatter(lower_score, score)


def _update_best(best: BestPoints, state: State, found: Evaluation, improved: Tensor) -> None:
    """Keep a misclassified point of a lower score, and before any is misclassified the point of the highest loss."""
    rows = state.rows
    lower_score = found.misclassified & (found.score < best.score[rows])
    better = lower_score | (~found.misclassified & ~best.misclassified[rows] & improved)
    kept = rows[better]
    best.x[kept] = state.x_adv[better]
    best.score[kept] = torch.where(found.misclassified, found.score, best.score[rows])[better]
    best.misclassified[kept] |= found.misclassified[better]
    best.loss[rows] = torch.maximum(best.loss[rows], found.loss.to(best.loss))


def _return_to_best(state: State, back: Tensor) -> None:
    state.x_adv = torch.where(per_image(back), state.x_best, state.x_adv)
    state.x_adv_old = torch.where(per_image(back), state.x_best, state.x_adv_old)
    state.loss_best_last_check, state.n_increases = state.loss_best, torch.zeros_like(state.n_increases)


def _take_step(state: State, grad: Tensor, threat: Threat, momentum: float) -> None:
    x_adv, x_adv_old = state.x_adv, state.x_adv_old
    z = threat.project(x_adv + state.step_size * threat.direction(x_adv, grad, state.share), state.x)
    if momentum < 1:
        z = threat.project(x_adv + momentum * (z - x_adv) + (1 - momentum) * (x_adv - x_adv_old), state.x)
    state.x_adv_old, state.x_adv = x_adv, z
