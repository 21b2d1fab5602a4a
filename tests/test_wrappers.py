"""Modules around models that normalise outside of themselves, or that return more than logits."""

from __future__ import annotations

import copy
from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustrecon import DefendedClassifier, InputError, LogitsOf, Normalized
from robustrecon.attacks import PGD
from robustrecon.models.base import Reconstructs

X = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
MEAN, STD = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
Output = namedtuple("Output", "features scores")


class Linear(nn.Module):
    """Logits, energies and drawings of normalised images."""

    image_shape = (3, 4, 4)
    n_classes = 5

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(48, 5)

    def forward(self, z: Tensor) -> Tensor:
        return self.layer(z.flatten(1))

    def class_energies(self, z: Tensor) -> Tensor:
        return self(z).square() + z.flatten(1).sum(1, keepdim=True)

    def reconstruct(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return z


class Returning(nn.Module):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.inner, self.make = Linear(), make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.inner(x))


def normalized(x: Tensor) -> Tensor:
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def test_normalized_gives_what_the_model_gives_of_normalised_images() -> None:
    model = Linear()
    wrapped = Normalized(model, MEAN, STD)
    torch.testing.assert_close(wrapped(X), model(normalized(X)))
    torch.testing.assert_close(wrapped.class_energies(X), model.class_energies(normalized(X)))
    torch.testing.assert_close(wrapped.reconstruct(X, None), X)
    assert wrapped.image_shape == (3, 4, 4)
    assert isinstance(wrapped, Reconstructs)
    x = X.clone().requires_grad_()
    wrapped.class_energies(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_what_the_model_does_not_have_its_wrapper_does_not_have() -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    for wrapped in (Normalized(plain, 0.5, 0.25), LogitsOf(plain, lambda output: output)):
        for name in ("class_energies", "reconstruct", "image_shape", "logits_and_energies"):
            assert not hasattr(wrapped, name)
        assert DefendedClassifier(wrapped, "msp")(X).shape == (6, 5)


def test_a_wrapped_model_is_copied_and_its_weights_are_saved_plainly() -> None:
    wrapped = Normalized(Linear(), MEAN, STD)
    other = Normalized(Linear(), 0.5, 0.5)
    assert set(wrapped.state_dict()) == {"mean", "std", "model.layer.weight", "model.layer.bias"}
    assert not torch.equal(copy.deepcopy(wrapped)(X), other(X))
    torch.testing.assert_close(copy.deepcopy(wrapped)(X), wrapped(X))


@pytest.mark.parametrize(
    ("make", "pick"),
    [
        (lambda logits: {"logits": logits, "loss": 0}, "logits"),
        (lambda logits: (None, logits), 1),
        (lambda logits: [logits, None], -2),
        (lambda logits: Output(None, logits), "scores"),
        (lambda logits: logits * 2, lambda output: output / 2),
    ],
)
def test_logits_are_picked(make: Any, pick: Any) -> None:
    model = Returning(make)
    wrapped = LogitsOf(model, pick)
    assert torch.equal(wrapped(X), model.inner(X))
    y = wrapped(X).argmax(1)
    assert PGD(eps=1, steps=3)(Normalized(wrapped, MEAN, STD), X, y).x.shape == X.shape


@pytest.mark.parametrize(
    ("make", "pick", "message"),
    [
        (lambda logits: {"out": logits, "aux": 0}, "logits", "pick: got 'logits', must be one of 'out', 'aux'"),
        (lambda logits: (logits,), 1, r"pick: got 1, must be in \[0, 0\]"),
        (lambda logits: (logits,), "logits", "a tuple without names"),
        (lambda logits: Output(0, logits), "logits", "a Output with features, scores"),
        (lambda logits: logits, 0, "must be of a tuple or list; the model returns a Tensor"),
        (lambda logits: {"logits": 1}, "logits", "gave a int, must give logits"),
    ],
)
def test_an_output_without_the_logits_is_said_to_be(make: Any, pick: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LogitsOf(Returning(make), pick)(X)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((123.7, 116.3, 103.5), STD, r"mean: got \[123.*divide by 255 what is of"),
        (MEAN, (58.4, 57.1, 57.4), "std: got .*divide"),
        (MEAN, (0.1, 0, 0.2), "std: got .*, must be above 0"),
        ((0.1, 0.2), (0.1, 0.2), "mean: got 2 values, must be 3"),
        (0.5, STD, "std: got 3 values, must be 1"),
        ("half", STD, "mean: got 'half', must be a number a channel"),
        ((), STD, "mean: got"),
        (float("nan"), 0.5, "must be a finite number"),
    ],
)
def test_a_wrong_mean_or_std_is_said_to_be(mean: Any, std: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Normalized(Linear(), mean, std)


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match=r"model: got function, must be a torch\.nn\.Module"):
        Normalized(lambda x: x, 0.5, 0.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="pick: got None"):
        LogitsOf(Linear(), None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="x: got 3 channels, must be 2"):
        Normalized(nn.Flatten(), (0.5, 0.5), (0.5, 0.5))(X)
