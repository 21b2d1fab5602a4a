"""The APGD ascent on a hill whose top is known."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.detector_aware.apgd import BestPoints, Evaluate, Evaluation, apgd_ascent
from attacks.threat import Linf

X = torch.full((3, 1, 2, 2), 0.5)
TOP = X + torch.linspace(-0.17, 0.19, 12).view(3, 1, 2, 2)


def hill(visited: list[Tensor], misclassified_within: float = 0.0) -> Evaluate:
    """The loss is minus the squared distance from TOP; points near TOP are misclassified; the score is one pixel."""

    def evaluate(x_adv: Tensor, rows: Tensor) -> Evaluation:
        visited.append(x_adv.clone())
        difference = x_adv - TOP[rows]
        distance = difference.flatten(1).square().sum(1)
        return Evaluation(distance < misclassified_within, x_adv[:, 0, 0, 0].clone(), -distance, -2 * difference)

    return evaluate


def ascent(evaluate: Evaluate, steps: int = 100, fixed_step: float | None = None) -> BestPoints:
    return apgd_ascent(evaluate, X, X, Linf(0.3), steps, name="test", fixed_step=fixed_step)


def test_adaptive_steps_reach_the_top_where_a_large_fixed_step_does_not() -> None:
    adaptive = (ascent(hill([])).x - TOP).abs().amax()
    fixed = (ascent(hill([]), fixed_step=0.6).x - TOP).abs().amax()
    assert adaptive < 0.01
    assert fixed > 5 * adaptive


def test_the_ascent_returns_the_point_of_the_highest_loss_not_the_last_one() -> None:
    visited: list[Tensor] = []
    found = ascent(hill(visited), steps=9, fixed_step=0.25)
    losses = torch.stack([-(point - TOP).flatten(1).square().sum(1) for point in visited])
    assert torch.equal(found.loss, losses.amax(0))
    expected = torch.stack(visited)[losses.argmax(0), torch.arange(len(X))]
    assert torch.equal(found.x, expected)
    assert not torch.equal(found.x, visited[-1])


def test_the_ascent_returns_to_the_best_point_when_it_halves_the_step_size() -> None:
    visited: list[Tensor] = []
    ascent(hill(visited), steps=100)
    losses = torch.stack([-(point - TOP).flatten(1).square().sum(1) for point in visited])
    # APGD's first checkpoint is after 22 of 100 steps. The next point is one step of half the size from the best point
    # so far, without the momentum of the step before.
    best = torch.stack(visited)[losses[:23].argmax(0), torch.arange(len(X))]
    step = (best + 0.3 * (TOP - best).sign()).clamp(0.2, 0.8) - best
    assert torch.allclose(visited[23], best + 0.75 * step, atol=1e-6)
    assert not torch.equal(best, visited[22])


def test_the_misclassified_point_of_the_lowest_score_is_kept_whatever_its_loss() -> None:
    visited: list[Tensor] = []
    found = ascent(hill(visited, misclassified_within=0.02), steps=50)
    points = torch.stack(visited)
    near = (points - TOP).flatten(2).square().sum(2) < 0.02
    scores = points[:, :, 0, 0, 0].masked_fill(~near, torch.inf)
    assert found.misclassified.all()
    assert torch.equal(found.score, scores.amin(0))
