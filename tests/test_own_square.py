"""Square Attack by our own search, which is the one that there is in L1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attacks.squares import first_point, window_share
from attacks.threat import threat_model
from robustrecon import DefendedClassifier, attacks
from robustrecon.data import Dataset

RADII = {"linf": 0.2, "l2": 4.0, "l1": 60.0}


class Means(nn.Module):
    """The nearest class mean of the training images, as a linear layer."""

    def __init__(self, data: Dataset) -> None:
        super().__init__()
        means = torch.stack([data.train.x[data.train.y == k].mean(0) for k in range(10)]).flatten(1)
        self.layer = nn.Linear(784, 10)
        with torch.no_grad():
            self.layer.weight.copy_(2 * means)
            self.layer.bias.copy_(-means.square().sum(1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        return logits


@pytest.mark.parametrize("norm", RADII)
def test_it_breaks_a_plain_network_within_ball_and_box(norm: str, digits: Dataset) -> None:
    model = Means(digits)
    part = digits.test.head(24)
    right = model(part.x).argmax(1) == part.y
    x, y, eps = part.x[right], part.y[right], RADII[norm]
    attack = attacks.load("square", "own", norm=norm, eps=eps, queries=200)
    outcome = attack(model, x, y)
    assert attack.threat.distance(outcome.x - x).max() <= eps * (1 + 1e-5)
    assert outcome.x.min() >= 0
    assert outcome.x.max() <= 1
    assert ((model(outcome.x).argmax(1) != y) == outcome.success).all()
    torch.manual_seed(0)
    noisy = torch.stack([first_point(x, attack.threat) for _ in range(20)])
    by_chance = (model(noisy.flatten(0, 1)).argmax(1).view(20, -1) != y).any(0).double().mean()
    assert outcome.success.double().mean() > float(by_chance) + 0.3


@pytest.mark.parametrize("norm", RADII)
def test_the_search_begins_with_the_whole_radius(norm: str) -> None:
    torch.manual_seed(0)
    x = 0.3 + 0.4 * torch.rand(8, 3, 13, 9)
    ball = threat_model(norm, RADII[norm] / 8)
    start = first_point(x, ball)
    torch.testing.assert_close(ball.distance(start - x), torch.full((8,), ball.eps))
    assert not torch.equal(start[0] - x[0], start[1] - x[1])
    assert torch.equal(first_point(x[:, :, :3, :2], threat_model(norm, 0.0)), x[:, :, :3, :2]), "and in small images"


def test_with_rejection_what_it_finds_is_accepted(defended: DefendedClassifier, digits: Dataset) -> None:
    part = digits.test.head(8)
    attack = attacks.load("square-rejecting", "own", norm="l1", eps=60.0, queries=60)
    outcome = attack(defended, part.x, part.y)
    verdict = defended.inspect(outcome.x)
    assert outcome.success.any()
    assert (((verdict.label != part.y) & ~verdict.rejected) == outcome.success).all()


def test_it_goes_on_from_a_start(digits: Dataset) -> None:
    part, model = digits.test.head(10), Means(digits)
    attack = attacks.load("square", "own", norm="l1", eps=5.0, queries=1)
    start = attack.threat.project(part.x + attack.threat.random(part.x), part.x)
    y = model(start).argmax(1)
    assert torch.equal(attack(model, part.x, y, start=start).x, start), "the one query is that of the start"


def test_windows_shrink_as_in_the_paper() -> None:
    moments = [10, 11, 51, 201, 1001, 2001, 4001, 6001, 8001]
    assert [window_share(moment / 10_000, 0.8) for moment in moments] == [0.8 / 2**k for k in range(9)]


def test_the_worst_case_in_l1_has_it() -> None:
    given = dict(attacks.default_attacks("l1"))
    assert given["square"] == given["square-rejecting"] == {"engine": "own"}
    assert dict(attacks.default_attacks("l2"))["square"] == {}
