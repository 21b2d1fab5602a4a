"""Confidence-calibrated adversarial training: its adversary, its targets, and what the confidence is worth after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from robustrecon import DefendedClassifier, InputError, StyleMemoryNet, attacks, load, train
from robustrecon.data import Dataset
from robustrecon.training import RECIPES
from robustrecon.training.adversary import pgd_on_confidence
from robustrecon.training.objectives import ccat
from robustrecon.training.objectives.ccat import CCATObjective, transition

CLASSES = 5


@pytest.fixture
def net() -> StyleMemoryNet:
    torch.manual_seed(0)
    return StyleMemoryNet(CLASSES, 3, (1, 12, 8))


@pytest.fixture
def x() -> Tensor:
    return torch.rand(12, 1, 12, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def y() -> Tensor:
    return torch.arange(12) % CLASSES


def wrong_confidence(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).softmax(1).scatter(1, y[:, None], 0).amax(1)


@pytest.mark.parametrize(("eps", "steps"), [(0.01, 1), (0.3, 4), (1.0, 4)])
def test_the_adversary_stays_in_the_ball_and_among_images(
    net: StyleMemoryNet, x: Tensor, y: Tensor, eps: float, steps: int
) -> None:
    x_adv = pgd_on_confidence(net, x.round(decimals=1), y, eps, steps)
    assert (x_adv - x.round(decimals=1)).abs().max() <= eps + 1e-6
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert not x_adv.requires_grad
    assert all(weight.grad is None and weight.requires_grad for weight in net.parameters())


def test_more_steps_make_a_wrong_label_more_probable_on_every_image(net: StyleMemoryNet, x: Tensor, y: Tensor) -> None:
    found = []
    for steps in (1, 2, 10):
        torch.manual_seed(2)
        x_adv = pgd_on_confidence(net, x, y, 0.1, steps)
        found.append(wrong_confidence(net, x_adv, y))
    torch.manual_seed(2)
    assert found[2].mean() > wrong_confidence(net, x, y).mean()
    assert found[2].mean() > found[0].mean()


def test_a_step_that_does_not_raise_the_loss_is_not_taken(x: Tensor, y: Tensor) -> None:
    class Even(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :CLASSES] * 0

    torch.manual_seed(0)
    one = pgd_on_confidence(Even(), x, y, 0.1, 1)
    torch.manual_seed(0)
    assert torch.equal(one, pgd_on_confidence(Even(), x, y, 0.1, 7))
    assert not torch.equal(one, x)


def test_starts_are_at_all_distances(x: Tensor, y: Tensor) -> None:
    class Even(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2] * 0

    middle = torch.full((400, 1, 12, 8), 0.5)
    start = pgd_on_confidence(Even(), middle, torch.zeros(400).long(), 0.2, 1)
    distance = (start - middle).flatten(1).abs().amax(1) / 0.2
    assert distance.mean().item() == pytest.approx(0.5, abs=0.06)
    assert distance.std().item() == pytest.approx(12**-0.5, abs=0.04)


def test_the_target_fades_from_the_label_to_uniform() -> None:
    delta = torch.tensor([0.0, 0.1, -0.15, 0.3, 0.5])[:, None, None, None] * torch.ones(5, 1, 2, 2)
    delta[:, 0, 0, 0] = 0.0
    expected = [1.0, (2 / 3) ** 10, 0.5**10, 0.0, 0.0]
    assert transition(delta, 0.3, 10.0).tolist() == pytest.approx(expected, abs=1e-6)


def test_loss_is_that_of_half_a_batch_clean_and_half_faded(
    net: StyleMemoryNet, x: Tensor, y: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_adv = (x[6:] + 0.1).clamp(0, 1)
    monkeypatch.setattr(ccat, "pgd_on_confidence", lambda *_: x_adv)
    options = CCATObjective.Options(eps=0.3, rho=2.0)
    with torch.no_grad():
        found = CCATObjective(net, options)(x, y, 0.0)
        clean = -Categorical(logits=net(x[:6])).log_prob(y[:6])
        share = transition(x_adv - x[6:], 0.3, 2.0)[:, None]
        target = share * torch.eye(CLASSES)[y[6:]] + (1 - share) / CLASSES
        adversarial = -(target * net(x_adv).log_softmax(1)).sum(1)
        drawn = (net.reconstruct(x[:6], y[:6]) - x[:6]).flatten(1).norm(dim=1).mean()
    assert found["cross_entropy"].item() == pytest.approx(clean.mean().item(), rel=1e-5)
    assert found["adversarial_cross_entropy"].item() == pytest.approx(adversarial.mean().item(), rel=1e-5)
    expected = (clean.sum() + adversarial.sum()) / 12 + 0.05 * drawn
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("option", "value"), [("eps", 0.0), ("eps", 1.5), ("rho", -1.0), ("attack_steps", 0)])
def test_bad_options(option: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{option}: got {value!r}, must"):
        replace(RECIPES["ccat"], objective_options={option: value})


@pytest.mark.slow
def test_its_confidence_rejects_pgd_at_a_larger_radius_than_it_was_trained_at(
    digits: Dataset, model_dir: Path, tmp_path: Path
) -> None:
    """More often than that of a plain network, and clean images no more often."""
    options = {"attack_steps": 5}
    brief = replace(RECIPES["ccat"], epochs=1, least_steps=300, batch_size=64, objective_options=options)
    x, y = digits.test.x[:100], digits.test.y[:100]
    rejected = {}
    for name, model in (("ccat", train(digits, tmp_path / "m", brief, progress=False)), ("plain", load(model_dir))):
        defended = DefendedClassifier(model, "msp").calibrate(digits.calibration.x, alpha=0.05)
        clean = defended.inspect(x)
        assert (clean.label == y).float().mean() > 0.9
        assert clean.rejected.float().mean() < 0.12
        outcome = attacks.load("pgd", eps=0.4, steps=20)(model, x, y)
        wrong = outcome.label != y
        assert wrong.float().mean() > 0.9
        rejected[name] = defended.inspect(outcome.x).rejected[wrong].float().mean().item()
    assert rejected["ccat"] > rejected["plain"] + 0.5
