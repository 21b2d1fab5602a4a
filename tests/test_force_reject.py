"""The attack that wants a rejection, and the curve of forced rejection, against known answers."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from attacks import ForceReject, InputError, Misclassified, MultiTarget, Rejected, check
from robustrecon import DefendedClassifier, load_defended
from robustrecon.bench import AttackConfig, ForcedRejection, forced_rejection
from robustrecon.data import Dataset
from robustrecon.detectors import Evidence

IMAGE = (1, 3, 3)


class Far(nn.Module):
    """Two labels, and a score that is the distance from the middle of the image space: the farthest corner is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(9))

    def forward(self, x: Tensor) -> Tensor:
        margin = (x - 0.5).flatten(1) @ self.weight
        return torch.stack([-margin, margin], dim=1)

    def score(self, x: Tensor) -> Tensor:
        return (x - 0.5).flatten(1).norm(dim=1)

    def farthest(self, x: Tensor, eps: float, norm: str) -> Tensor:
        """(B,) the highest score within eps."""
        offset = (x - 0.5).flatten(1)
        return (offset.abs() + eps).norm(dim=1) if norm == "linf" else offset.norm(dim=1) + eps


def far_score(evidence: Evidence) -> Tensor:
    """The score of `Far` as a detector."""
    return (evidence.x - 0.5).flatten(1).norm(dim=1)


class Jump(nn.Module):
    """The score is high under label 1 alone, and its gradient points away from the boundary."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(9))

    def forward(self, x: Tensor) -> Tensor:
        margin = x.flatten(1) @ self.weight / 9 - 0.5
        return torch.stack([-margin, margin], dim=1)

    def score(self, x: Tensor) -> Tensor:
        return (self(x)[:, 1] > 0) + 0.1 * self(x)[:, 0]


@pytest.fixture
def x() -> Tensor:
    return 0.4 + 0.15 * torch.rand(16, *IMAGE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_image_is_rejected_just_where_it_can_be(x: Tensor, norm: str) -> None:
    victim = Far()
    eps = 0.1
    y = victim(x).argmax(1)
    reach = victim.farthest(x, eps, norm)
    threshold = reach.median().item()
    attack, goal = ForceReject(eps=eps, norm=norm, steps=20, random_start=False), Rejected(threshold)
    outcome = attack(victim, x, y, goal)
    assert outcome.success[reach > 1.01 * threshold].all()
    assert not outcome.success[reach < threshold].any()
    assert outcome.success.sum() >= 6
    assert norm == "l2" or not check(victim, x, y, outcome, goal, attack)


def test_a_rejection_behind_the_decision_boundary_is_found(x: Tensor) -> None:
    """The score alone leads away from it: only an image that gets the wrong label is rejected."""
    x = x - 0.1
    victim, y = Jump(), torch.zeros(16, dtype=torch.long)
    outcome = ForceReject(eps=0.3, steps=20)(victim, x, y, Rejected(0.5))
    assert outcome.success.all()
    assert (outcome.label == 1).all()
    assert not ForceReject(eps=0.01, steps=20)(victim, x, y, Rejected(0.5)).success.any()


@pytest.fixture(scope="module")
def defended() -> DefendedClassifier:
    return load_defended("robust/digits")


def test_its_goal_is_the_detectors_rejection(defended: DefendedClassifier, digits: Dataset) -> None:
    part = digits.test.head(10)
    outcome = ForceReject(eps=0.15, steps=3)(defended, part.x, part.y)
    clean = defended.inspect(part.x)
    assert torch.equal(outcome.success, defended.inspect(outcome.x).rejected)
    assert torch.equal(outcome.x[clean.rejected], part.x[clean.rejected])


def test_goals_and_models_that_do_not_fit(x: Tensor) -> None:
    y = torch.zeros(16, dtype=torch.long)
    with pytest.raises(InputError, match="model: Far has no threshold"):
        ForceReject()(Far(), x, y)
    with pytest.raises(InputError, match="must be Rejected for ForceReject"):
        ForceReject()(Far(), x, y, Misclassified())
    with pytest.raises(InputError, match="must be Misclassified or Targeted"):
        MultiTarget(steps=1)(Far(), x, y, Rejected(0.1))
    with pytest.raises(InputError, match="model: Sequential has no score"):
        ForceReject()(nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), x, y, Rejected(0.1))
    with pytest.raises(InputError, match="the score of Detached has no gradient"):
        ForceReject()(Detached(), x, y, Rejected(0.1))


class Detached(Far):
    """A score that no gradient reaches."""

    def score(self, x: Tensor) -> Tensor:
        return super().score(x).detach()


def test_the_curve_of_forced_rejection(x: Tensor) -> None:
    """One radius at a time finds what bisection finds; the total error is the robust risk and grows from there."""
    defended = DefendedClassifier(Far(), far_score).calibrate(x, alpha=0.2)
    y = defended(x).argmax(1)
    y[0] = 1 - y[0]
    force = ForceReject(steps=5, random_start=False)
    wrong_label = MultiTarget(steps=5, early_exit=True)
    fractions = (0, 0.1, 0.3, 1)
    curves = forced_rejection(defended, x, y, [0.05, 0.02], fractions=fractions, force=force, wrong_label=wrong_label)
    assert [curve.eps for curve in curves] == [0.05, 0.02]
    verdict = defended.inspect(x)
    right = (verdict.label == y) & ~verdict.rejected
    for curve in curves:
        assert ForcedRejection.from_json(json.loads(json.dumps(curve.to_json()))) == curve
        risk = [curve.total_error(fraction)[0] for fraction in fractions]
        assert risk == sorted(risk)
        assert risk[0] == (~right | torch.tensor(curve.undetected)).double().mean()
        assert curve.rejection(0) == (0, pytest.approx((0, 0.25), abs=0.05))
        for fraction in fractions[1:]:
            outcome = force.with_budget(fraction * curve.eps, 1)(defended, x[right], y[right])
            assert curve.rejection(fraction)[0] == pytest.approx(outcome.success.double().mean().item())
    assert curves[0].total_error(1)[0] > curves[1].total_error(1)[0] > curves[1].total_error(0)[0]
    with pytest.raises(InputError, match=r"fraction: got 0\.5"):
        curves[0].total_error(0.5)
    with pytest.raises(InputError, match="fractions: got"):
        forced_rejection(defended, x, y, eps=[0.1], fractions=(2,))
    with pytest.raises(InputError, match="eps: got none"):
        forced_rejection(defended, x, y, eps=[])


def test_a_benchmark_of_wrong_labels_does_not_take_it() -> None:
    with pytest.raises(InputError, match="attack: got force-reject, whose goal is a rejection"):
        _ = AttackConfig("force-reject", eps=0.1).attack
