"""Each check fires on a model or attack that fails its test, and none on sound ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

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


class Blurred(Sound):
    """Has no gradient in bfloat16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        return logits.detach() + 0 * x.sum() if torch.is_autocast_enabled("cpu") else logits


class Singular(Sound):
    """A square root whose gradient at 0 is infinite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + (x - x.detach()).flatten(1).sum(1, keepdim=True).sqrt()


class Detached(Sound):
    """A detector whose score is cut off from the image."""

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach().flatten(1).sum(1)


class SingularScore(Sound):
    """A detector whose score has an infinite gradient."""

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x.detach()).flatten(1).sum(1).sqrt()


class Step(attacks.Attack):
    """One small step, up the loss or down it."""

    name = "step"
    size = 1e-3

    def perturb(self, victim: nn.Module, x: torch.Tensor, y: torch.Tensor, goal: attacks.Goal) -> torch.Tensor:
        moved = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(goal.assess(victim, moved, y)[1].sum(), moved)
        return x + self.size * gradient.sign()


class WrongWay(Step):
    size = -1e-3


class Idle(attacks.Attack):
    name = "idle"

    def perturb(self, victim: nn.Module, x: torch.Tensor, y: torch.Tensor, goal: attacks.Goal) -> torch.Tensor:
        return x


def signs(model: nn.Module, attack: attacks.Attack, goal: attacks.Goal | None = None) -> dict[str, str]:
    with torch.no_grad():
        y = model(X).argmax(1)
    found = attacks.check(model, X, y, attack(model, X, y, goal), goal, attack)
    return {sign.name: sign.message for sign in found}


def signs_of(model: nn.Module, outcome: attacks.Outcome, goal: attacks.Goal | None = None) -> dict[str, str]:
    return {sign.name: sign.message for sign in attacks.check(model, X, Sound()(X).argmax(1), outcome, goal)}


def nothing_moved() -> attacks.Outcome:
    return attacks.Outcome(X, Sound()(X).argmax(1), torch.zeros(40).bool(), torch.zeros(40))


def forgotten() -> attacks.Outcome:
    """An outcome that says that nothing was broken, though images were."""
    outcome = attacks.load("pgd", "own", eps=0.9)(Sound(), X, Sound()(X).argmax(1))
    assert outcome.success.any()
    return replace(outcome, success=torch.zeros(40).bool())


PGD = attacks.load("pgd", "own", eps=0.05, steps=5)
FROM_X = attacks.load("pgd", "own", eps=0.2, steps=5, random_start=False)
ACCEPTED = attacks.Misclassified() & attacks.Undetected(8.0)

CASES: dict[str, Callable[[], dict[str, str]]] = {
    "random-outputs": lambda: signs(Noisy(), PGD),
    "probabilities": lambda: signs(Probabilities(), PGD),
    "loss-gradient-not-finite": lambda: signs_of(Singular(), nothing_moved()),
    "loss-gradient-zero": lambda: signs(Stepped(), PGD),
    "score-gradient-not-finite": lambda: signs_of(SingularScore(), nothing_moved(), ACCEPTED),
    "score-gradient-zero": lambda: signs_of(Detached(), nothing_moved(), ACCEPTED),
    "loss-not-risen": lambda: signs(Sound(), WrongWay(eps=0.1)),
    "success-miscounted": lambda: signs_of(Sound(), forgotten()),
    "accuracy-not-zero": lambda: signs(Stepped(), FROM_X),
    "black-box-beats-white-box": lambda: signs(Stepped(), FROM_X),
    "bfloat16-missed": lambda: signs(Blurred(), attacks.PGD(eps=0.1, random_start=False, precision="bfloat16")),
    "stopped-early": lambda: signs(Sound(), Step(eps=0.2)),
}


def test_every_check_has_a_case_here() -> None:
    assert set(CASES) == set(attacks.CHECKS)


@pytest.mark.parametrize("name", attacks.CHECKS)
def test_the_check_fires(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks.precision, "bfloat16_unit", lambda device: "TEST")
    assert name in CASES[name]()


def test_a_check_needs_a_listed_name() -> None:
    with pytest.raises(KeyError, match="not listed"):
        attacks.Check("bad-luck", "")
    assert all(explanation and "\n" not in explanation for explanation in attacks.CHECKS.values())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_attack_that_does_nothing_trips_four_checks(norm: str) -> None:
    found = signs(Sound(), Idle(eps=0.3 if norm == "linf" else 1.0, norm=norm))
    assert {"loss-not-risen", "accuracy-not-zero", "stopped-early", "black-box-beats-white-box"} <= set(found)


def test_the_message_counts_the_images_that_a_random_search_breaks() -> None:
    """At most the eight images that are attacked again."""
    message = signs(Stepped(), FROM_X)["black-box-beats-white-box"]
    broken, among = map(int, re.findall(r"(\d+) of (\d+)", message)[0])
    assert 1 <= broken <= among <= 8


def test_no_image_is_attacked_again_when_the_attack_is_not_given() -> None:
    names = set(signs_of(Sound(), nothing_moved()))
    assert names == {"loss-not-risen"}


def test_no_check_of_zero_accuracy_when_eps_is_zero() -> None:
    assert "accuracy-not-zero" not in signs(Sound(), attacks.load("pgd", "own", eps=0.0, steps=5))


def test_the_checks_do_not_change_the_attack() -> None:
    before = repr(FROM_X)
    signs(Stepped(), FROM_X)
    assert repr(FROM_X) == before


def test_an_attack_that_raises_with_the_whole_space_as_its_budget_trips_a_check() -> None:
    class Raises(Idle):
        def perturb(self, victim: nn.Module, x: torch.Tensor, y: torch.Tensor, goal: attacks.Goal) -> torch.Tensor:
            if self.threat.eps == 1:
                raise attacks.NonFiniteLoss("the loss is not finite")
            return x

    assert (
        "stopped with an error: the loss is not finite" in signs(Sound(), Raises(eps=0.1))["loss-gradient-not-finite"]
    )


def test_the_checks_are_deterministic_and_do_not_change_the_random_state() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = signs(Stepped(), FROM_X)
    assert torch.equal(torch.rand(1), expected)
    assert signs(Stepped(), FROM_X) == first


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_check_fires_on_a_sound_model_and_a_sound_attack(norm: str) -> None:
    eps = 0.05 if norm == "linf" else 0.2
    assert signs(Sound(), attacks.load("pgd", "own", norm=norm, eps=eps, steps=20)) == {}


@pytest.mark.parametrize(("name", "eps"), [("pgd", 0.1), ("pgd", 0.3), ("selective", 0.3)])
def test_no_check_fires_on_a_trained_model(
    name: str, eps: float, defended: DefendedClassifier, digits: Dataset
) -> None:
    part = digits.test.head(40)
    attack = attacks.load(name, "own", eps=eps, steps=20)
    goal: attacks.Goal = attacks.Misclassified()
    if attack.knows_detector:
        goal = goal & attacks.Undetected(defended.threshold)
    outcome = attack(defended, part.x, part.y, goal)
    assert attacks.check(defended, part.x, part.y, outcome, goal, attack) == []


def test_the_checks_do_not_change_the_model() -> None:
    model = Sound().train()
    signs(model, PGD)
    assert model.training
    assert model.w.requires_grad
    assert model.w.grad is None


class Jittery(nn.Module):
    """Outputs that differ from pass to pass by as much as the order of additions on a GPU may make them."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size, self.passes = size, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return x.flatten(1)[:, :3] * (1 + self.size * (self.passes % 2))


@pytest.mark.parametrize(("size", "random"), [(1e-6, False), (1e-3, True)])
def test_rounding_is_not_randomness(size: float, random: bool) -> None:
    x, y = torch.rand(8, 1, 2, 2), torch.zeros(8, dtype=torch.long)
    outcome = attacks.Outcome(x, y, torch.zeros(8, dtype=torch.bool), torch.zeros(8))
    fired = {sign.name for sign in attacks.check(Jittery(size), x, y, outcome)}
    assert ("random-outputs" in fired) == random
