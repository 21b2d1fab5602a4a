"""The class-conditioned autoencoder: conditioning at every stage, many labels, and the logistic front end."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustrecon import InputError
from robustrecon.models import ClassConditionedAutoencoder, class_conditioned


def net(n_classes: int = 3, side: int = 8, **options: float) -> ClassConditionedAutoencoder:
    torch.manual_seed(0)
    return ClassConditionedAutoencoder(n_classes, image_shape=(1, side, side), width=4, **options).eval()  # type: ignore[arg-type]


def images(n: int = 4, side: int = 8) -> Tensor:
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(1))


def test_an_energy_is_the_squared_distance_from_the_drawing() -> None:
    model, x = net(), images()
    for label in range(3):
        drawn = model.reconstruct(x, torch.full((4,), label))
        torch.testing.assert_close(model.class_energies(x)[:, label], (drawn - x).square().flatten(1).sum(1))


def test_every_stage_of_the_decoder_is_told_the_label() -> None:
    model, x = net(side=40), images(side=40)
    assert len(model.films) == len(model.ups) + 2  # after each layer of the decoder but the last
    for film in model.films:
        before = model.class_energies(x)
        with torch.no_grad():
            film.shift[1] += 0.5  # type: ignore[operator,union-attr]
        changed = (model.class_energies(x) - before).abs().amax(0) > 1e-6
        assert changed.tolist() == [False, True, False]


@pytest.mark.parametrize("cache", [1.0, 3e3])
def test_energies_do_not_depend_on_how_many_are_made_at_a_time(cache: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = net(n_classes=40), images().requires_grad_()
    whole = model.class_energies(x)
    (of_whole,) = torch.autograd.grad(whole.sum(), x)
    monkeypatch.setattr(class_conditioned, "CACHE", cache)
    monkeypatch.setattr(class_conditioned, "RECOMPUTED_FROM", 2)
    parts = model.class_energies(x)
    (of_parts,) = torch.autograd.grad(parts.sum(), x)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(of_parts, of_whole)


def test_many_labels_keep_no_activations_for_the_backward_pass() -> None:
    model, x = net(n_classes=class_conditioned.RECOMPUTED_FROM), images().requires_grad_()
    kept = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        style = model.encode(x)[1]
        kept.clear()
        model.energies(x, style)
    assert max(kept) <= max(x.numel(), 4 * model.n_classes)


def test_the_front_end_hides_small_changes_of_black_and_white_images_and_is_undone_in_the_drawing() -> None:
    model, x = net(steepness=20.0), (images() > 0.5).float()
    changed = x + 0.2 * (1 - 2 * x)
    assert (model.class_energies(changed) - model.class_energies(x)).abs().max() < 0.1 * model.class_energies(x).min()
    torch.testing.assert_close(model._steep(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([0.0, 0.5, 1.0]))
    drawn = model.reconstruct(images())
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    inner = model.last.join(model._draw(model.encode(images())[1], model(images()).softmax(1)))
    decoded = model.decode(model(images()).softmax(1), model.encode(images())[1])
    inside = (decoded > 0) & (decoded < 1)
    torch.testing.assert_close(torch.sigmoid(20 * (decoded - 0.5))[inside], torch.sigmoid(inner)[inside])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style_dim": 0}, "style_dim: got 0"),
        ({"width": 0}, "width: got 0"),
        ({"steepness": -1.0}, "steepness: got -1"),
        ({"output": "tanh"}, "output: got 'tanh'"),
        ({"output": "linear", "steepness": 5.0}, "steepness: got 5.0, must be 0"),
        ({"image_shape": (1, 3, 8)}, "height and width"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClassConditionedAutoencoder(3, **options)  # type: ignore[arg-type]
