"""One contract for everything in the catalogues: shapes, dtypes, gradients, determinism, save and load, repr."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import attacks
from robustrecon import DefendedClassifier, checkpoint, models
from robustrecon.data import Dataset
from robustrecon.detectors import DETECTORS, magnet, parts
from robustrecon.types import Verdict


@pytest.fixture(autouse=True)
def brief_auto_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """MagNet's auto-encoders learn for a moment: nothing here asks what they are worth."""
    monkeypatch.setattr(magnet, "MOST_STEPS", 60)


SHAPES = [(1, 28, 28), (3, 32, 32), (2, 9, 14)]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in models.MODELS),
    ("style-memory", {"style_encoder": "separate"}),
    ("style-memory", {"front_end": 20.0, "front_end_energies": True}),
]
EPS = {"linf": 0.2, "l2": 2.0, "l1": 20.0}
ENGINES = [(name, engine) for name, entry in attacks.CATALOGUE.items() for engine in entry.engines]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("name", "options"), VARIANTS, ids=["-".join((name, *map(str, options.values()))) for name, options in VARIANTS]
)
class TestModel:
    @pytest.fixture
    def net(self, name: str, options: dict[str, Any], shape: tuple[int, int, int]) -> models.EnergyModel:
        torch.manual_seed(0)
        return models.MODELS[name](n_classes=4, image_shape=shape, **options).eval()

    @pytest.fixture
    def x(self, shape: tuple[int, int, int]) -> torch.Tensor:
        return torch.rand(5, *shape, generator=torch.Generator().manual_seed(1))

    def test_shapes_dtypes_and_finite_energies(self, net: models.EnergyModel, x: torch.Tensor) -> None:
        logits, energies = net(x), net.class_energies(x)
        assert logits.shape == energies.shape == (5, 4)
        assert logits.dtype == energies.dtype == torch.float32
        assert torch.isfinite(energies).all()

    def test_every_energy_has_a_gradient(self, net: models.EnergyModel, x: torch.Tensor) -> None:
        energies = net.class_energies(x.requires_grad_())
        for label in range(4):
            (gradient,) = torch.autograd.grad(energies[:, label].sum(), x, retain_graph=True)
            assert (gradient.flatten(1).norm(dim=1) > 0).all()

    def test_logits_and_energies_of_some_labels(self, net: models.EnergyModel, x: torch.Tensor) -> None:
        """Whether a model shares the work or leaves it to the base class."""
        labels = torch.tensor([[2, 0], [1, 1], [3, 2], [0, 3], [2, 1]])
        expected, of_all = net(x), net.class_energies(x)
        for found in (net.logits_and_energies, partial(models.EnergyModel.logits_and_energies, net)):
            logits, energies = found(x)
            torch.testing.assert_close(logits, expected)
            torch.testing.assert_close(energies, of_all)
            same, some = found(x, labels)
            torch.testing.assert_close(same, logits)
            torch.testing.assert_close(some, energies.gather(1, labels), rtol=1e-4, atol=1e-4)

    def test_is_deterministic_and_the_same_image_by_image(self, net: models.EnergyModel, x: torch.Tensor) -> None:
        together = net.class_energies(x)
        assert torch.equal(together, net.class_energies(x))
        alone = torch.cat([net.class_energies(image[None]) for image in x])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)

    def test_save_and_load(self, net: models.EnergyModel, x: torch.Tensor, tmp_path: Path) -> None:
        tensors = {models.WEIGHTS + key: value for key, value in net.state_dict().items()}
        path = checkpoint.save(tmp_path / "m.safetensors", tensors, {"architecture": models.architecture(net)})
        again = models.load(path)
        assert not again.training
        assert torch.equal(net.class_energies(x), again.class_energies(x))
        assert repr(again) == repr(net)


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize(("name", "engine"), ENGINES, ids=lambda value: str(value))
class TestAttack:
    @pytest.fixture
    def attack(self, name: str, engine: str, norm: str) -> attacks.Attack:
        try:
            dear = (name, engine) == ("apgd-t-rejecting", "own")  # all labels' scores, towards nine labels
            few: dict[str, Any] = {
                "steps": 2 if dear else 5,
                "queries": 60,
                "samples": 2,
                "attacks": ("pgd", "selective"),
            }
            few = {argument: n for argument, n in few.items() if attacks.has_parameter(name, argument, engine)}
            return attacks.load(name, engine, norm=norm, eps=EPS[norm], **few)
        except attacks.InputError as error:
            if "norm" in str(error):
                pytest.skip(str(error))
            raise

    def test_outcome(self, attack: attacks.Attack, defended: DefendedClassifier, digits: Dataset) -> None:
        part = digits.test.head(20)
        before = part.x.clone()
        outcome = attack(defended, part.x, part.y)
        assert outcome.x.shape == part.x.shape
        assert outcome.x.dtype == torch.float32
        assert not outcome.x.requires_grad
        assert outcome.x.min() >= 0
        assert outcome.x.max() <= 1
        assert (outcome.distance <= attack.threat.eps * (1 + 1e-5)).all()
        torch.testing.assert_close(attack.threat.distance(outcome.x - part.x), outcome.distance)
        assert torch.equal(part.x, before), "the clean images were written to"
        verdict = defended.inspect(outcome.x)
        met, met_when_clean = (self.met(attack, defended.inspect(x), part.y) for x in (outcome.x, part.x))
        assert torch.equal(outcome.label, verdict.label)
        assert torch.equal(outcome.success, met)
        assert (outcome.distance[met_when_clean] == 0).all(), "an image that met the goal when clean was attacked"
        assert outcome.success.sum() > met_when_clean.sum(), "nothing fell"

    def met(self, attack: attacks.Attack, verdict: Verdict, y: torch.Tensor) -> torch.Tensor:
        """The goal that the attack has where the caller names none."""
        if isinstance(attack, attacks.ForceReject):
            return verdict.rejected
        return (verdict.label != y) & (~verdict.rejected | (not attack.knows_detector))

    def test_is_deterministic_and_leaves_the_random_state(
        self, attack: attacks.Attack, defended: DefendedClassifier, digits: Dataset
    ) -> None:
        part = digits.test.head(10)
        torch.manual_seed(3)
        expected = torch.rand(1)
        torch.manual_seed(3)
        first = attack(defended, part.x, part.y)
        assert torch.equal(torch.rand(1), expected)
        assert torch.equal(first.x, attack(defended, part.x, part.y).x)

    def test_leaves_the_model_as_it_was(
        self, attack: attacks.Attack, defended: DefendedClassifier, digits: Dataset
    ) -> None:
        victim = Mixed(defended)
        flags = [part.training for part in victim.modules()]
        part = digits.test.head(8)
        attack(victim, part.x, part.y)
        assert [part.training for part in victim.modules()] == flags
        assert all(weight.grad is None for weight in victim.parameters()), "computed gradients for the weights"
        assert [weight.requires_grad for weight in victim.parameters()][:2] == [False, True]

    def test_repr_names_its_settings(self, attack: attacks.Attack) -> None:
        assert f"eps={attack.threat.eps}" in repr(attack)
        assert f"norm='{attack.threat.norm}'" in repr(attack)


class Mixed(nn.Module):
    """A model whose parts are partly in training mode and partly frozen."""

    def __init__(self, defended: DefendedClassifier) -> None:
        super().__init__()
        self.defended = defended
        self.train()
        self.defended.model.conv1.eval()  # type: ignore[union-attr, operator]
        next(self.parameters()).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.defended(x)

    def score(self, x: torch.Tensor) -> torch.Tensor:
        return self.defended.score(x)

    @property
    def threshold(self) -> float:
        return self.defended.threshold


def fitted(model: nn.Module, name: str, digits: Dataset) -> DefendedClassifier:
    return DefendedClassifier(model, name).fit(digits.train.x, digits.train.y)


@pytest.mark.parametrize("name", [*DETECTORS, "any_of(label_margin,cycle)", "any_of(label_margin,knn)"])
class TestDetector:
    def test_shape_and_gradient(self, name: str, model: models.StyleMemoryNet, digits: Dataset) -> None:
        """A detached score would make attacks that know the detector fail in silence, unless it says that it is."""
        defended = fitted(model, name, digits).calibrate(digits.calibration.x)
        x = digits.test.head(16).x.clone().requires_grad_()
        score = defended.score(x)
        assert score.shape == (16,)
        assert score.requires_grad == all(part.differentiable for part in parts(defended.detector))
        if score.requires_grad:
            (gradient,) = torch.autograd.grad(score.sum(), x)
            assert (gradient.flatten(1).norm(dim=1) > 0).all()

    def test_save_and_load(self, name: str, model: models.StyleMemoryNet, digits: Dataset, tmp_path: Path) -> None:
        defended = fitted(model, name, digits).calibrate(digits.calibration.x, alpha=0.1)
        defended.save(tmp_path / "d.safetensors")
        again = DefendedClassifier.load(tmp_path / "d.safetensors")
        assert repr(again) == repr(defended)
        first, second = defended.inspect(digits.test.x), again.inspect(digits.test.x)
        for field in ("label", "score", "p_value", "rejected"):
            assert torch.equal(getattr(first, field), getattr(second, field))

    def test_restores_training_mode(self, name: str, model: models.StyleMemoryNet, digits: Dataset) -> None:
        defended = fitted(model, name, digits).train()
        model.conv2.eval()
        flags = [part.training for part in defended.modules()]
        defended.calibrate(digits.calibration.x).predict(digits.test.head(3).x)
        assert [part.training for part in defended.modules()] == flags
