"""TRADES on logits and energies."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.nn.functional import cross_entropy

from robustrecon import StyleMemoryNet
from robustrecon.training.objectives import trades
from robustrecon.training.objectives.trades import TradesObjective

CLASSES = 5


@pytest.fixture(params=["shared", "separate"])
def net(request: pytest.FixtureRequest) -> StyleMemoryNet:
    torch.manual_seed(0)
    return StyleMemoryNet(CLASSES, 3, (1, 12, 8), style_encoder=request.param)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(12, 1, 12, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def y() -> Tensor:
    return torch.arange(12) % CLASSES


def test_loss_is_that_of_clean_images_and_the_divergence_of_adversarial_ones(
    net: StyleMemoryNet, x: Tensor, y: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    x_adv = (x + 0.1).clamp(0, 1)
    monkeypatch.setattr(trades, "pgd_for_training", lambda *_: x_adv)
    options = TradesObjective.Options(noise=0.0, eps=0.1, beta=3.0, wrong_labels=CLASSES - 1)
    with torch.no_grad():
        found = TradesObjective(net, options)(x, y, 1.0)
        for name, outputs in (("cross_entropy", net), ("contrast", lambda images: -net.class_energies(images))):
            clean, adversarial = Categorical(logits=outputs(x)), Categorical(logits=outputs(x_adv))
            expected = -clean.log_prob(y).mean() + 3 * kl_divergence(clean, adversarial).mean()
            assert found[name].item() == pytest.approx(expected.item(), rel=1e-3), name
        norms = [(net.reconstruct(images, y) - x).flatten(1).norm(dim=1) for images in (x, x_adv)]
        assert found["reconstruction"].item() == pytest.approx(torch.cat(norms).mean().item(), rel=1e-4)


def test_without_a_radius_only_clean_images_are_trained_on(net: StyleMemoryNet, x: Tensor, y: Tensor) -> None:
    """As at the start of the ramp."""
    objective = TradesObjective(net, TradesObjective.Options(noise=0.0, eps=0.1, wrong_labels=CLASSES - 1))
    with torch.no_grad():
        found = objective(x, y, 0.0)
        assert found["cross_entropy"].item() == pytest.approx(cross_entropy(net(x), y).item(), rel=1e-5)
        assert found["contrast"].item() == pytest.approx(cross_entropy(-net.class_energies(x), y).item(), rel=1e-4)
