"""Random models, judged by averaged decisions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

import attacks
from attacks import Averaged, draws_needed
from robustrecon import DefendedClassifier, StyleMemoryNet
from robustrecon.data import Dataset

X = torch.rand(200, 1, 6, 6, generator=torch.Generator().manual_seed(0))


class Dropout(nn.Module):
    """A linear classifier that drops a tenth of the pixels, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(36, 3, generator=torch.Generator().manual_seed(1)))

    def mean(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x.flatten(1), 0.1, training=True) @ self.w

    def score(self, x: Tensor) -> Tensor:
        return dropout(x.flatten(1), 0.1, training=True).mean(1)


class Alternating(nn.Module):
    """Each pass takes back what the one before said."""

    sign = 1.0

    def forward(self, x: Tensor) -> Tensor:
        self.sign = -self.sign
        return self.sign * x.flatten(1)[:, :2]


def test_decisions_repeat_and_gradients_draw_anew() -> None:
    averaged = Averaged(Dropout(), 300)
    with torch.no_grad():
        expected = torch.rand(1, generator=torch.Generator().manual_seed(5))
        torch.manual_seed(5)
        first = averaged(X)
        assert torch.equal(torch.rand(1), expected), "the caller's random state moved"
        assert torch.equal(first, averaged(X))
        assert torch.equal(averaged.score(X), averaged.score(X))
        assert not torch.equal(first, Averaged(Dropout(), 300, seed=300)(X))
    torch.testing.assert_close(first, Dropout().mean(X), atol=0.5, rtol=0)
    leaf = X.clone().requires_grad_()
    gradients = [torch.autograd.grad(averaged(leaf)[:, 0].sum(), leaf)[0] for _ in range(2)]
    assert not torch.equal(*gradients)
    wanted = Dropout().w[:, 0].detach().view(1, 1, 6, 6).expand_as(X)
    torch.testing.assert_close(gradients[0], wanted, atol=0.3, rtol=0)
    with pytest.raises(AttributeError):
        _ = averaged.threshold
    with pytest.raises(attacks.InputError, match="draws: got 0"):
        Averaged(Dropout(), 0)


def test_the_estimated_draws_are_enough_and_not_far_too_many() -> None:
    torch.manual_seed(0)
    victim = Dropout()
    draws = draws_needed(victim, X)
    assert draws is not None

    def changed(draws: int) -> float:
        with torch.no_grad():
            labels = Averaged(victim, draws, seed=7)(X).argmax(1)
        return (labels != victim.mean(X).argmax(1)).double().mean().item()

    assert draws > 100
    assert changed(draws) <= 0.03
    assert changed(max(1, draws // 100)) > 0.03
    assert draws_needed(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), X) == 1
    assert draws_needed(Alternating(), X) is None
    threshold = X.flatten(1).mean(1).median().item()
    assert (draws_needed(victim, X, threshold) or 0) > draws
    with pytest.raises(attacks.InputError, match=r"Sequential has no score"):
        draws_needed(nn.Sequential(nn.Flatten()), X, 0.0)


def test_success_on_an_average_is_success_on_the_expectation_where_one_draw_is_luck() -> None:
    """Random search and gradient steps alike; unaveraged, most of what an attack breaks is not broken."""
    victim = Dropout()
    x = X[:40]
    y = victim.mean(x).argmax(1)
    agreed = {}
    for kind, model in (("one", victim), ("averaged", Averaged(victim, 500))):
        for name, more in (("pgd", {"engine": "own", "steps": 10}), ("square", {"queries": 30})):
            outcome = attacks.load(name, eps=0.05, **more)(model, x, y)
            broken = victim.mean(outcome.x).argmax(1) != y
            agreed[kind, name] = (outcome.success == broken).double().mean().item()
    assert min(agreed["averaged", name] for name in ("pgd", "square")) >= 0.85, agreed
    assert max(agreed["one", name] for name in ("pgd", "square")) < 0.7, agreed


def test_the_check_names_the_draws_that_are_needed_and_is_silent_on_an_average() -> None:
    victim = Dropout()
    x = X[:40]
    y = victim.mean(x).argmax(1)
    for model, fires in ((victim, True), (Averaged(victim, 1500), False)):
        attack = attacks.load("pgd", "own", eps=0.02, steps=5, batch_size=16)
        fired = {each.name: each.message for each in attacks.check(model, x, y, attack(model, x, y))}
        assert ("random-outputs" in fired) == fires
        assert "success-miscounted" not in fired or fires
    torch.manual_seed(0)
    fired = {each.name: each.message for each in attacks.check(victim, x, y, attack(victim, x, y))}
    assert "attacks.Averaged(model, draws=" in fired["random-outputs"]


class NoisyInput(nn.Module):
    """A network behind noise; passes its energies on."""

    def __init__(self, net: StyleMemoryNet) -> None:
        super().__init__()
        self.net = net
        self.image_shape, self.n_classes = net.image_shape, net.n_classes

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self._noisy(x))
        return logits

    def class_energies(self, x: Tensor) -> Tensor:
        return self.net.class_energies(self._noisy(x))

    def logits_and_energies(self, x: Tensor, labels: object = None) -> tuple[Tensor, Tensor]:
        return self.net.logits_and_energies(self._noisy(x), labels)  # type: ignore[arg-type]

    def _noisy(self, x: Tensor) -> Tensor:
        return x + 0.2 * torch.randn_like(x)


def test_a_random_model_is_defended_by_its_average(model: StyleMemoryNet, digits: Dataset) -> None:
    averaged = Averaged(NoisyInput(model), 3)
    assert averaged.n_classes == 10
    defended = DefendedClassifier(averaged, "label_margin").calibrate(digits.calibration.x, alpha=0.1)
    part = digits.test.head(12)
    first, second = defended.inspect(part.x), defended.inspect(part.x)
    assert torch.equal(first.score, second.score)
    torch.testing.assert_close(defended.score(part.x.requires_grad_()), first.score, atol=30.0, rtol=0.5)
    outcome = attacks.load("selective", eps=0.3, steps=8)(defended, part.x.detach(), part.y)
    verdict = defended.inspect(outcome.x)
    assert torch.equal(outcome.success, (verdict.label != part.y) & ~verdict.rejected)
    assert outcome.success.any()
