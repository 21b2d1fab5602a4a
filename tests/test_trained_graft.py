"""A drawer that is trained for a classifier, in pixels or on a layer, and energies of the top labels alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_grafted import SHAPE, Linear, Prototypes
from test_resume import assert_same_run, stopped_in_the_second_epoch
from torch import Tensor, nn

import robustrecon
from robustrecon import DefendedClassifier, InputError, models
from robustrecon.data import Dataset
from robustrecon.models.grafted import Grafted
from robustrecon.runtime import seeded
from robustrecon.training import Recipe
from robustrecon.training.grafting import drawer_recipe
from robustrecon.training.objectives import build
from robustrecon.training.recipes import load_recipe

TINY = Recipe(
    "tiny",
    epochs=2,
    batch_size=32,
    learning_rate=1e-3,
    schedule="one-cycle",
    objective_options={"eps": 0.1, "attack_steps": 1, "ramp": 0.0},
)


class Convolutional(nn.Sequential):
    """With dropout, whose training mode would show."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 2, 3, 4, 1), nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(98, 10))


@pytest.fixture
def few(digits: Dataset) -> Dataset:
    return replace(digits, train=digits.train.head(64), test=digits.test.head(20))


@pytest.fixture
def classifier() -> nn.Module:
    torch.manual_seed(0)
    return Convolutional().eval()


@pytest.mark.parametrize(
    ("target", "style_from"),
    [
        ("pixels", None),
        ("layer:1", "layer:1"),
        ("pixels", "layer:1"),
        ("layer:1", "pixels"),
    ],
)
def test_the_drawer_is_trained_and_the_classifier_is_not(
    few: Dataset, tmp_path: Path, classifier: nn.Module, target: str, style_from: str | None
) -> None:
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    logits = classifier(few.test.x)
    options = {"target": target, "style_from": style_from, "drawer_options": {"width": 4}}
    elsewhere = style_from not in (None, target)
    options["top_labels"] = 3 if elsewhere else 0
    pair = robustrecon.graft(classifier, few, recipe=TINY, out=tmp_path, progress=False, **options)  # type: ignore[arg-type]
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert torch.equal(pair(few.test.x), logits)
    with seeded(0):
        untrained = models.ClassConditionedAutoencoder(**pair.drawer.config).state_dict()
    assert not any(torch.equal(value, untrained[name]) for name, value in pair.drawer.named_parameters())
    loaded, card = models.load_with_card(tmp_path, classifier)
    assert ("style_shape" in card["architecture"]["drawer"]) == elsewhere
    assert ("minimum_missed" in card) == elsewhere
    if elsewhere:
        x = few.calibration.x[:500]
        assert card["minimum_missed"] == {"calibration": pair.minimum_missed(x), "n": len(x)}
    torch.testing.assert_close(loaded.class_energies(few.test.x), pair.class_energies(few.test.x))
    assert DefendedClassifier(pair).calibrate(few.calibration.x, alpha=0.1).predict(few.test.x).shape == (20,)


def test_a_stopped_training_goes_on_to_the_same_result(few: Dataset, tmp_path: Path, classifier: nn.Module) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    robustrecon.graft(classifier, few, recipe=TINY, out=whole, target="layer:1", progress=False)
    with stopped_in_the_second_epoch():
        robustrecon.graft(classifier, few, recipe=TINY, out=broken, target="layer:1", progress=False)
    robustrecon.graft(classifier, few, recipe=TINY, out=broken, target="layer:1", progress=False, resume=True)
    assert_same_run(broken, whole)


def test_a_drawer_that_is_there_is_gone_on_from(few: Dataset, tmp_path: Path, classifier: nn.Module) -> None:
    begun = models.load("robust/digits")
    slow = replace(TINY, epochs=1, learning_rate=1e-6)
    pair = robustrecon.graft(classifier, few, recipe=slow, start="robust/digits", out=tmp_path, progress=False)
    torch.testing.assert_close(
        pair.drawer.class_energies(few.test.x), begun.class_energies(few.test.x), rtol=0.02, atol=0.02
    )
    changed = [not torch.equal(a, b) for a, b in zip(pair.drawer.parameters(), begun.parameters(), strict=True)]
    assert any(changed)
    loaded, card = models.load_with_card(tmp_path, classifier)
    assert torch.equal(loaded.class_energies(few.test.x), pair.class_energies(few.test.x))
    assert card["start"]["recipe"] == models.read("robust/digits").card["recipe"]["name"]
    for wrong, message in (
        ({"drawer_options": {"width": 4}}, "drawer_options: got width, must be left out"),
        ({"target": "layer:0"}, r"start: draws 10 classes of \(1, 28, 28\), must draw 10 of \(2, 7, 7\)"),
    ):
        with pytest.raises(InputError, match=message):
            robustrecon.graft(classifier, few, recipe=slow, start="robust/digits", out=tmp_path / "w", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "w").exists()


def test_a_layer_is_standardised_and_has_a_gradient_through_the_classifier(few: Dataset, classifier: nn.Module) -> None:
    drawer = models.ClassConditionedAutoencoder(10, image_shape=(2, 7, 7), width=4, output="linear")
    pair = Grafted(classifier, drawer, range(10), (1, 28, 28), (2, 7, 7), layer="1")
    pair.standardise(few.train.x)
    seen = pair.for_drawer(few.train.x)
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.std((0, 2, 3)), torch.ones(2), atol=1e-3, rtol=0)
    x = few.test.x.requires_grad_()
    logits, energies = pair.logits_and_energies(x)
    torch.testing.assert_close(logits, classifier(x))
    torch.testing.assert_close(energies, pair.class_energies(x))
    assert torch.autograd.grad(energies.sum(), x)[0].flatten(1).norm(dim=1).min() > 0
    assert not hasattr(pair, "reconstruct")  # what it draws is no image


@pytest.mark.parametrize(("target", "style"), [("pixels", "layer:1"), ("layer:1", "pixels"), ("layer:1", "layer:0")])
def test_the_style_is_found_elsewhere_than_in_what_is_explained(
    few: Dataset, classifier: nn.Module, target: str, style: str
) -> None:
    x, shapes = few.test.x, {"pixels": (1, 28, 28), "layer:0": (2, 7, 7), "layer:1": (2, 7, 7)}
    output = "sigmoid" if target == "pixels" else "linear"
    drawer = models.ClassConditionedAutoencoder(
        10, image_shape=shapes[target], width=4, output=output, style_shape=shapes[style]
    )
    layer = None if target == "pixels" else "1"
    pair = Grafted(classifier, drawer, range(10), (1, 28, 28), shapes[target], layer, style_from=style)
    pair.standardise(few.train.x)
    convolved = classifier[0](x)  # type: ignore[index]
    features = convolved if style == "layer:0" else convolved.tanh()
    seen = few.test.x if style == "pixels" else (features - pair.style_mean) / pair.style_std
    explained = x if layer is None else (convolved.tanh() - pair.mean) / pair.std
    logits, code = drawer.encode(torch.cat([torch.zeros_like(explained).flatten(1), seen.flatten(1)], 1))
    drawn = drawer.decode(torch.eye(10)[3].expand(20, -1), code)
    expected = (drawn - explained).square().flatten(1).sum(1)
    torch.testing.assert_close(pair.class_energies(x)[:, 3], expected)
    torch.testing.assert_close(drawer(pair.for_drawer(x)), logits)
    for found in (pair.class_energies(x.requires_grad_()), drawer(pair.for_drawer(x))):  # an attack goes through both
        assert torch.autograd.grad(found.sum(), x)[0].flatten(1).norm(dim=1).min() > 0
    assert hasattr(pair, "reconstruct") == (target == "pixels")
    with pytest.raises(InputError, match="style_from: got None, must be given"):
        Grafted(classifier, drawer, range(10), (1, 28, 28), shapes[target], layer)
    with pytest.raises(InputError, match=r"x: shape is \(20, 1, 28, 28\), must be \(B, "):
        drawer(x)


def test_adversarial_images_of_the_pair_mislead_the_classifier(few: Dataset) -> None:
    torch.manual_seed(0)
    linear = Linear(10, (1, 28, 28))
    with torch.no_grad():
        for label in range(10):
            linear.dense.weight[label] = (
                few.train.x[few.train.y == label].mean(0).flatten() - few.train.x.mean(0).flatten()
            )
    drawer = models.ClassConditionedAutoencoder(10, width=4)
    pair = Grafted(linear.requires_grad_(False), drawer, range(10), (1, 28, 28), (1, 28, 28))
    x, y = few.train.x, few.train.y

    def error(share: float) -> float:
        options = {"eps": 0.2, "pair_share": share, "attack_steps": 3}
        objective = build("pair", pair, options)
        torch.manual_seed(1)
        return (linear(objective._adversarial(x, y, 0.2)).argmax(1) != y).float().mean().item()  # type: ignore[operator]

    assert error(1.0) > error(0.0) + 0.2


class TestTopLabels:
    def pair(self, top_labels: int) -> Grafted:
        torch.manual_seed(0)
        return robustrecon.graft(Linear(6).eval(), Prototypes(6), top_labels=top_labels)

    def test_the_predicted_label_and_the_drawers_likeliest_are_compared(self) -> None:
        x = torch.rand(30, *SHAPE)
        all_labels, some = self.pair(0), self.pair(2)
        energies, found = all_labels.class_energies(x), some.class_energies(x)
        predicted = some(x).argmax(1)
        compared = torch.isclose(found, energies)
        assert compared.gather(1, predicted[:, None]).all()
        assert compared.gather(1, energies.topk(2, largest=False).indices).all()  # its logits are −energies
        assert (found >= energies - 1e-6).sum(1).min() >= 3
        assert torch.equal(found.argmin(1), energies.argmin(1))
        assert some.minimum_missed(x) == 0

    def test_a_minimum_that_the_drawers_logits_do_not_point_to_is_reported(self) -> None:
        class Wrong(Prototypes):
            def forward(self, x: Tensor) -> Tensor:
                return self.class_energies(x)  # the highest logit for the worst label

        pair = robustrecon.graft(Linear(6).eval(), Wrong(6), top_labels=1, logit_weight=0)
        assert pair.minimum_missed(torch.rand(30, *SHAPE)) > 0.5

    @pytest.mark.parametrize("top_labels", [-1, 6])
    def test_out_of_range(self, top_labels: int) -> None:
        with pytest.raises(InputError, match=rf"top_labels: got {top_labels}, must be in \[0, 5\]"):
            self.pair(top_labels)


def test_fast_draws_under_the_true_label_alone() -> None:
    assert drawer_recipe(load_recipe("fast")).objective_options["energy_weight"] == 0
    assert (
        drawer_recipe(load_recipe("robust")).objective_options["eps"] == load_recipe("robust").objective_options["eps"]
    )


def test_what_is_wrong_is_said_before_anything_is_written(few: Dataset, tmp_path: Path, classifier: nn.Module) -> None:
    out = tmp_path / "out"
    for arguments, message in (
        ({"target": "layer:9"}, "layer"),
        ({"target": "layer:4"}, r"target: the layer 4 gives \(10,\), must give"),
        ({"style_from": "layer:9"}, "layer"),
        ({"style_from": "layer:4"}, r"style_from: the layer 4 gives \(10,\), must give"),
        ({"style_from": "features"}, "style_from: got 'features', must be 'pixels' or 'layer:NAME'"),
        ({"target": "features"}, "target: got 'features', must be 'pixels' or 'layer:NAME'"),
        ({"labels": [0, 1]}, "labels, image_shape, allow_loss, x: must be left out"),
        ({"drawer_options": {"width": 0}}, "width: got 0"),
        ({"recipe": "robst"}, "robust"),
    ):
        with pytest.raises(InputError, match=message):
            robustrecon.graft(classifier, few, out=out, **arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="classifier: gave 3 logits, must give 10"):
        robustrecon.graft(Linear(3, (1, 28, 28)).eval(), few, out=out)
    with pytest.raises(InputError, match="style_from: is for training a drawer"):
        robustrecon.graft(classifier, "robust/digits", style_from="pixels")
    with pytest.raises(InputError, match="recipe: is for training a drawer"):
        robustrecon.graft(classifier, "robust/digits", recipe="robust")
    assert not out.exists()
