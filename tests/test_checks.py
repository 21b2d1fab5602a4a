"""Each check fires on a model built to trip it, and none on a sound one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import attacks
from robustrecon import DefendedClassifier
from robustrecon.data import Dataset

X = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Sound(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(16, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5).flatten(1) @ self.w


class Stepped(Sound):
    """Masks the gradient with a step function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward((x * 8).round() / 8)


class Probabilities(Sound):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).softmax(1)


class Noisy(Sound):
    """Dropout that evaluation mode does not switch off."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(x, 0.3, training=True))


class Singular(Sound):
    """A square root whose gradient at 0 is infinite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + (x - x.detach()).flatten(1).sum(1, keepdim=True).sqrt()


class Detached(Sound):
    """A detector whose score is cut off from the image."""

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach().flatten(1).sum(1)


class Nudge(attacks.Attack):
    """Goes the wrong way."""

    name = "nudge"

    def run(self, victim: nn.Module, x: torch.Tensor, y: torch.Tensor, goal: attacks.Goal) -> torch.Tensor:
        moved = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(goal.assess(victim, moved, y)[1].sum(), moved)
        return x - 1e-3 * gradient.sign()


def fired(model: nn.Module, attack: attacks.Attack, goal: attacks.Goal | None = None) -> set[str]:
    with torch.no_grad():
        y = model(X).argmax(1)
    return {sign.name for sign in attacks.check(model, X, y, attack(model, X, y, goal), goal)}


PGD = attacks.load("pgd", "own", eps=0.05, steps=5)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (Stepped(), "loss-gradient-zero"),
        (Probabilities(), "probabilities"),
        (Noisy(), "random-outputs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_fires(model: nn.Module, name: str) -> None:
    assert name in fired(model, PGD)


def test_fires_on_a_gradient_that_is_not_finite() -> None:
    outcome = attacks.Outcome(X, Sound()(X).argmax(1), torch.zeros(40).bool(), torch.zeros(40))
    signs = attacks.check(Singular(), X, Sound()(X).argmax(1), outcome)
    assert "loss-gradient-not-finite" in {sign.name for sign in signs}


def test_fires_on_a_detached_score() -> None:
    goal = attacks.Misclassified() & attacks.Undetected(8.0)
    assert "score-gradient-zero" in fired(Detached(), attacks.load("selective", eps=0.05, steps=5), goal)


def test_fires_on_a_loss_that_did_not_rise() -> None:
    assert "loss-not-risen" in fired(Sound(), Nudge(eps=0.1))


def test_fires_on_an_attack_that_does_nothing() -> None:
    class Idle(attacks.Attack):
        name = "idle"

        def run(self, victim: nn.Module, x: torch.Tensor, y: torch.Tensor, goal: attacks.Goal) -> torch.Tensor:
            return x

    assert "loss-not-risen" in fired(Sound(), Idle(eps=0.1))


def test_fires_on_successes_that_the_bookkeeping_missed() -> None:
    model = Sound()
    y = model(X).argmax(1)
    outcome = attacks.load("pgd", "own", eps=0.9)(model, X, y)
    assert outcome.success.any()
    forgot = attacks.Outcome(outcome.x, outcome.label, torch.zeros(40).bool(), outcome.distance)
    assert "success-miscounted" in {sign.name for sign in attacks.check(model, X, y, forgot)}


def test_is_silent_on_a_sound_model_and_a_sound_attack(defended: DefendedClassifier, digits: Dataset) -> None:
    assert fired(Sound(), PGD) == set()
    part = digits.test.head(60)
    outcome = attacks.load("pgd", eps=0.1)(defended, part.x, part.y)
    assert attacks.check(defended, part.x, part.y, outcome) == []


def test_leaves_the_model_as_it_was() -> None:
    model = Sound().train()
    fired(model, PGD)
    assert model.training
    assert model.w.requires_grad
    assert model.w.grad is None
