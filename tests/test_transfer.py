"""Images made on a surrogate and tried on another model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustrecon import InputError
from robustrecon.attacks import PGD, Misclassified, MultiTarget, Transfer, Undetected


def linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    x = torch.rand(12, 1, 4, 4)
    return x, linear(0)(x).argmax(1)


def test_the_images_are_those_of_the_surrogate(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    victim, surrogate = linear(0), linear(5)
    made_by = PGD(steps=5, alpha=0.1, random_start=False)
    transferred = Transfer(surrogate=surrogate, made_by=made_by, eps=0.15, norm="l2")(victim, x, y)
    # The step size that was given keeps its share of the radius.
    same = PGD(steps=5, alpha=0.05, random_start=False, eps=0.15, norm="l2")
    alone = same.perturb(surrogate, x, y, Misclassified())
    torch.testing.assert_close(transferred.x, same.threat.project(alone, x))
    assert transferred.distance.min() > 0.1  # also of images that the surrogate misclassifies when clean
    assert torch.equal(transferred.label, victim(transferred.x).argmax(1))  # the victim decides
    assert torch.equal(transferred.success, transferred.label != y)


def test_from_the_model_itself_it_is_the_attack(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    model = linear(0)
    found = Transfer(surrogate=model, made_by=PGD(steps=10), eps=0.3)(model, x, y).success
    assert found.any()
    assert torch.equal(found, PGD(steps=10, eps=0.3, seed=4)(model, x, y).success)


def test_restarts_begin_elsewhere() -> None:
    class Recording(PGD):
        def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: object) -> Tensor:
            starts.append(x + self.threat.random(x))
            return x

    starts: list[Tensor] = []
    x = torch.rand(2, 1, 4, 4)
    y = linear(0)(x).argmax(1)
    Transfer(surrogate=linear(0), made_by=Recording(), restarts=2)(linear(0), x, y)
    assert len(starts) == 2
    assert not torch.equal(*starts)


def test_a_surrogate_with_a_detector(images: tuple[Tensor, Tensor]) -> None:
    """An attack that knows the detector works on the surrogate's."""
    seen = []

    class Recording(MultiTarget):
        def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: object) -> Tensor:
            seen.append((victim, goal))
            return x

    x, y = images
    victim = linear(0)
    surrogate = victim.requires_grad_(False)
    surrogate.threshold = torch.tensor(0.5)
    Transfer(surrogate=surrogate, made_by=Recording())(victim, x, y)
    assert seen == [(surrogate, Misclassified() & Undetected(surrogate.threshold))]


def test_what_is_no_surrogate_is_refused() -> None:
    with pytest.raises(InputError, match=r"surrogate: got str, must be a torch.nn.Module"):
        Transfer(surrogate="mlp", made_by=PGD())  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"made_by: got str, must be an attacks.Attack"):
        Transfer(surrogate=linear(0), made_by="pgd")  # type: ignore[arg-type]
