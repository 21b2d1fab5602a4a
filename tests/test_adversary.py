"""The PGD that networks are trained against."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, softplus

from robustrecon import EnergyModel, StyleMemoryNet
from robustrecon.training.adversary import pgd_for_training

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


class Prototypes(EnergyModel):
    """A model with energies and nothing else."""

    name = "prototypes"

    def __init__(self) -> None:
        super().__init__(CLASSES, (1, 12, 8))
        self.prototypes = nn.Parameter(torch.rand(CLASSES, 1, 12, 8, generator=torch.Generator().manual_seed(2)))

    def forward(self, x: Tensor) -> Tensor:
        return -self.class_energies(x)

    def class_energies(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(1) - self.prototypes).flatten(2).square().sum(2)


@pytest.mark.parametrize("eps", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 4])
def test_images_stay_in_the_ball_and_among_images(
    net: StyleMemoryNet, x: Tensor, y: Tensor, eps: float, steps: int
) -> None:
    x = x.round(decimals=1)  # with pixels at 0 and 1
    x_adv = pgd_for_training(net, x, y, eps, steps)
    assert (x_adv - x).abs().max() <= eps + 1e-6
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert not x_adv.requires_grad


@pytest.mark.parametrize("mixture", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["style-memory", "prototypes"])
def test_the_loss_of_each_image_rises(
    kind: str, net: EnergyModel, x: Tensor, y: Tensor, mixture: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the classifier, of the energies and of both, more than a random start does, for any model with energies."""
    if kind == "prototypes":
        net = Prototypes()
    monkeypatch.setattr("torch.rand", lambda size, device: torch.full((size,), mixture, device=device))

    @torch.no_grad()
    def loss(images: Tensor) -> Tensor:
        logits, energies = net.logits_and_energies(images)
        wrong = logits.masked_fill(one_hot(y, CLASSES).bool(), -torch.inf).argmax(1)
        margin = energies.gather(1, y[:, None]) - energies.gather(1, wrong[:, None])
        return mixture * cross_entropy(logits, y, reduction="none") + (1 - mixture) * softplus(margin[:, 0])

    anywhere = (x + torch.empty_like(x).uniform_(-0.1, 0.1)).clamp(0, 1)
    x_adv = pgd_for_training(net, x, y, 0.1, steps=10)
    assert (loss(x_adv) > loss(x)).all()
    assert (loss(x_adv) > loss(anywhere)).all()


class Broken(StyleMemoryNet):
    """A network whose energies fail."""

    def energies(self, x: Tensor, style: Tensor, labels: Tensor | None = None) -> Tensor:
        raise ZeroDivisionError


@pytest.mark.parametrize("kind", [StyleMemoryNet, Broken])
def test_the_weights_stay_as_they_were(kind: type[StyleMemoryNet], x: Tensor, y: Tensor) -> None:
    """Frozen ones stay frozen and the others learn, even when the attack fails; none gets a gradient."""
    model = kind(CLASSES, 3, (1, 12, 8))
    model.conv2.requires_grad_(False)
    flags = {name: weight.requires_grad for name, weight in model.named_parameters()}
    if kind is Broken:
        with pytest.raises(ZeroDivisionError):
            pgd_for_training(model, x, y, 0.1, 2)
    else:
        pgd_for_training(model, x, y, 0.1, 2)
    assert {name: weight.requires_grad for name, weight in model.named_parameters()} == flags
    assert set(flags.values()) == {True, False}
    assert all(weight.grad is None for weight in model.parameters())
