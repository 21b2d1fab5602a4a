"""Models that draw by an input gradient: energies, drawings and gradients of a network whose gradients are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustrecon import InputError
from robustrecon.models import gradient_drawings
from robustrecon.models.base import Labels
from robustrecon.models.gradient_drawings import GradientDrawings, chosen, with_input_gradients

SHAPE = (1, 2, 3)


class Quadratic(GradientDrawings):
    """f_k(x) = x'A_k x / 2 with symmetric A_k, whose input gradient is A_k x."""

    def __init__(self, energy: str = "reconstruction") -> None:
        super().__init__(3, SHAPE, energy)
        square = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(0)).double()
        self.matrices = torch.nn.Parameter(square + square.mT)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return torch.einsum("bi,kij,bj->bk", flat, self.matrices, flat) / 2

    def logits_and_drawings(self, x: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        def outputs(x: Tensor) -> tuple[Tensor, Tensor]:
            logits = self(x)
            return logits, logits.gather(1, chosen(labels, logits))

        return with_input_gradients(outputs, x)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(1)).double()


def known(net: Quadratic, x: Tensor) -> Tensor:
    """(B, K, 1, 2, 3) the drawings in closed form."""
    return torch.einsum("kij,bj->bki", net.matrices, x.flatten(1)).unflatten(2, SHAPE)


@pytest.mark.parametrize("images_at_a_time", [2, 100])
def test_energies_and_drawings_are_those_of_the_known_gradient(
    x: Tensor, images_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_drawings, "PAIRS", 3 * images_at_a_time)
    net, labels = Quadratic(), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    drawings = known(net, x)
    expected = (x[:, None] - drawings).square().flatten(2).sum(2)
    with torch.no_grad():
        torch.testing.assert_close(net.class_energies(x), expected)
        torch.testing.assert_close(net.reconstruct(x, labels), drawings[torch.arange(7), labels])
        torch.testing.assert_close(net.reconstruct(x), drawings[torch.arange(7), net(x).argmax(1)])
        likeliest = net.logits_and_energies(x, lambda logits: logits.topk(2, dim=1).indices)[1]
    torch.testing.assert_close(likeliest, expected.gather(1, net(x).topk(2, dim=1).indices))
    assert not net.class_energies(x).isnan().any()


def test_energies_can_be_differentiated_in_the_image_and_in_the_weights(x: Tensor) -> None:
    net = Quadratic()
    assert torch.autograd.gradcheck(net.class_energies, x[:2].requires_grad_())
    loss = net.class_energies(x.detach()).sum()
    expected = (x.detach()[:, None] - known(net, x.detach())).square().sum()
    for found, known_gradient in zip(
        torch.autograd.grad(loss, net.parameters()), torch.autograd.grad(expected, net.parameters()), strict=True
    ):
        torch.testing.assert_close((found + found.mT) / 2, (known_gradient + known_gradient.mT) / 2)


def test_without_gradients_nothing_is_kept_for_later(x: Tensor) -> None:
    with torch.no_grad():
        logits, drawings = Quadratic().logits_and_drawings(x, torch.zeros(7, 1, dtype=torch.long))
    assert not logits.requires_grad
    assert not drawings.requires_grad


def test_joint_energies_are_the_negative_outputs(x: Tensor) -> None:
    net, labels = Quadratic("joint"), torch.tensor([[1, 2]] * 7)
    torch.testing.assert_close(net.class_energies(x), -net(x))
    torch.testing.assert_close(net.logits_and_energies(x, labels)[1], -net(x)[:, 1:])
    with pytest.raises(InputError, match="energy: unknown name 'jont'; did you mean 'joint'"):
        Quadratic("jont")
