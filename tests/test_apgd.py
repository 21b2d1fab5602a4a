"""The ascent that the attacks share, on a hill whose top is known."""

from __future__ import annotations

import torch
from torch import Tensor

from attacks.detector_aware.apgd import Found, Look, Seen, climb
from attacks.threat import Linf

X = torch.full((3, 1, 2, 2), 0.5)
TOP = X + torch.linspace(-0.17, 0.19, 12).view(3, 1, 2, 2)


def hill(visited: list[Tensor], misread_within: float = 0.0) -> Look:
    """Value: minus the squared distance from TOP; misread near it, the less suspicious the nearer to the left."""

    def look(point: Tensor, rows: Tensor) -> Seen:
        visited.append(point.clone())
        apart = point - TOP[rows]
        away = apart.flatten(1).square().sum(1)
        return Seen(away < misread_within, point[:, 0, 0, 0].clone(), -away, -2 * apart)

    return look


def ascent(look: Look, steps: int = 100, fixed_step: float | None = None) -> Found:
    return climb(look, X, X, Linf(0.3), steps, name="test", fixed_step=fixed_step)


def test_the_schedule_halves_its_way_to_the_top_where_one_large_step_circles_it() -> None:
    apart = (ascent(hill([])).x - TOP).abs().amax()
    circling = (ascent(hill([]), fixed_step=0.6).x - TOP).abs().amax()
    assert apart < 0.01
    assert circling > 5 * apart


def test_it_returns_the_highest_point_that_it_saw_not_the_last() -> None:
    visited: list[Tensor] = []
    found = ascent(hill(visited), steps=9, fixed_step=0.25)
    heights = torch.stack([-(point - TOP).flatten(1).square().sum(1) for point in visited])
    assert torch.equal(found.value, heights.amax(0))
    highest = torch.stack(visited)[heights.argmax(0), torch.arange(len(X))]
    assert torch.equal(found.x, highest)
    assert not torch.equal(found.x, visited[-1])


def test_a_halved_step_starts_again_from_the_highest_point() -> None:
    visited: list[Tensor] = []
    ascent(hill(visited), steps=100)
    heights = torch.stack([-(point - TOP).flatten(1).square().sum(1) for point in visited])
    # APGD's first look is after 22 of 100 steps. The next point is the best so far and a step of half the size from
    # there, without what the momentum would keep of the step before.
    best = torch.stack(visited)[heights[:23].argmax(0), torch.arange(len(X))]
    step = (best + 0.3 * (TOP - best).sign()).clamp(0.2, 0.8) - best
    assert torch.allclose(visited[23], best + 0.75 * step, atol=1e-6)
    assert not torch.equal(best, visited[22])


def test_of_misread_points_the_least_suspicious_is_kept_whatever_its_value() -> None:
    visited: list[Tensor] = []
    found = ascent(hill(visited, misread_within=0.02), steps=50)
    points = torch.stack(visited)
    near = (points - TOP).flatten(2).square().sum(2) < 0.02
    scores = points[:, :, 0, 0, 0].masked_fill(~near, torch.inf)
    assert found.misread.all()
    assert torch.equal(found.score, scores.amin(0))
