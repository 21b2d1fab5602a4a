"""One attack at several radii: each outcome is one that the attack could have given there, and work is shared."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustrecon import DefendedClassifier, InputError
from robustrecon.attacks import FGSM, PGD, Goal, MultiTarget, load
from robustrecon.data import Dataset

EPS = [0.3, 0.02, 0.1]


class Counting(PGD):
    """PGD that counts the images that it is run on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.counts: list[int] = []

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal) -> Tensor:
        self.counts.append(len(x))
        return super().perturb(victim, x, y, goal)


def test_an_outcome_for_each_radius_in_their_order(defended: DefendedClassifier, digits: Dataset) -> None:
    x, y = digits.test.x[:40], digits.test.y[:40]
    attack = Counting(steps=5, batch_size=16)
    outcomes = attack.over(defended, x, y, eps=EPS)
    broken = {eps: outcome.success for eps, outcome in zip(EPS, outcomes, strict=True)}
    for eps, outcome in zip(EPS, outcomes, strict=True):
        assert outcome.distance.max() <= eps + 1e-6
        torch.testing.assert_close(outcome.distance, (outcome.x - x).flatten(1).abs().amax(1))
        with torch.no_grad():
            assert torch.equal(outcome.label, defended(outcome.x).argmax(1))
        assert torch.equal(outcome.success, outcome.label != y)
        if eps != 0.02:
            alone = PGD(eps=eps, steps=5)(defended, x, y)
            assert outcome.success.sum() >= alone.success.sum()
    assert (broken[0.02] <= broken[0.1]).all()
    assert (broken[0.1] <= broken[0.3]).all()
    clean = defended(x).argmax(1) == y
    attacked = [clean, ~broken[0.02], ~broken[0.1]]  # what is attacked at each radius, the smallest first
    assert sum(attack.counts) == sum(int(rows.sum()) for rows in attacked)


def test_one_that_knows_the_detector_has_the_same_goal_as_a_call(defended: DefendedClassifier, digits: Dataset) -> None:
    x, y = digits.test.x[:12], digits.test.y[:12]
    (alone,) = (attack := MultiTarget(steps=5, targets=2)).over(defended, x, y, eps=[0.2])
    direct = attack.with_budget(0.2, 1)(defended, x, y)
    assert torch.equal(alone.success, direct.success)
    verdict = defended.inspect(alone.x)
    assert torch.equal(alone.success, (verdict.label != y) & ~verdict.rejected)


def test_a_random_search_begins_where_the_smaller_radius_ended(digits: Dataset, defended: DefendedClassifier) -> None:
    starts = []
    attack = load("square", queries=5)

    class Watched(type(attack)):  # type: ignore[misc]
        def perturb_from(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal, start: Tensor) -> Tensor:
            starts.append(start)
            return super().perturb_from(victim, x, y, goal, start)

    attack.__class__ = Watched
    first, second = attack.over(defended, digits.test.x[:6], digits.test.y[:6], eps=[0.01, 0.02])
    left = ~first.success
    assert torch.equal(starts[-1], first.x[left])
    assert second.distance.max() <= 0.02 + 1e-6


@pytest.mark.parametrize(
    ("eps", "message"),
    [([], "eps: got none"), ([0.1, -1], "eps: got -1"), ([float("nan")], "eps: got nan"), ([2.0], r"eps: got 2\.0")],
)
def test_wrong_radii(defended: DefendedClassifier, digits: Dataset, eps: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FGSM().over(defended, digits.test.x[:2], digits.test.y[:2], eps=eps)


def test_wrong_labels(defended: DefendedClassifier, digits: Dataset) -> None:
    with pytest.raises(InputError, match="y: labels span"):
        FGSM().over(defended, digits.test.x[:2], digits.test.y[:2] + 10, eps=[0.1])
