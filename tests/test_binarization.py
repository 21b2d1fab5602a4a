"""The binarization test: sound attacks find what was planted; weak ones, and masked models, fail it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import attacks
from attacks.readout import Binary, Inverted, feature_layer, readout
from robustrecon import DefendedClassifier, StyleMemoryNet, load
from robustrecon.cli import main
from robustrecon.data import Dataset

N = 8


class Stepped(nn.Module):
    """A model whose gradient is masked by rounding."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model((x * 50).round() / 50)
        return logits


class WrongSign(attacks.PGD):
    """Follows the loss of the other label of the two."""

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: attacks.Goal) -> Tensor:
        return super().perturb(victim, x, 1 - y, goal)


class Blind(attacks.PGD):
    """Says that it knows the detector, but attacks the classifier alone."""

    knows_detector = True

    def perturb(self, victim: nn.Module, x: Tensor, y: Tensor, goal: attacks.Goal) -> Tensor:
        return super().perturb(victim, x, y, attacks.Misclassified())


class Tilted(nn.Module):
    """A model whose detector's score is linear in the pixels; `sigma` is about its spread over a ball's corners."""

    def __init__(self, model: nn.Module, image: Tensor, eps: float) -> None:
        super().__init__()
        self.model = model
        generator = torch.Generator().manual_seed(0)
        self.pattern = torch.randn(image.shape, generator=generator).sign()
        self.threshold = self.score(image).item() + eps / 2 * image.numel() ** 0.5 * 2  # two standard deviations

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def score(self, x: Tensor) -> Tensor:
        return (self.pattern * x).sum((1, 2, 3))


def test_a_sound_attack_passes_and_weak_ones_fail(model: StyleMemoryNet, digits: Dataset) -> None:
    x = digits.test.x[:N]
    sound = attacks.binarization_test(model, x, attacks.PGD(eps=0.1, steps=20, restarts=3))
    assert sound.passed
    assert sound.planted + sound.left_out == N
    assert sound.planted >= N - 2
    assert sound.random_rate <= 0.2
    for weak in (
        attacks.PGD(eps=0.1, steps=1, alpha=0.01, random_start=False),
        attacks.PGD(eps=0.1, steps=20, alpha=1e-4, random_start=False),
        WrongSign(eps=0.1, steps=20, random_start=False),
    ):
        found = attacks.binarization_test(model, x, weak)
        assert not found.passed
        assert found.success_rate <= 0.2
        assert f"FAILED: pgd finds {found.success_rate:.0%} of the planted" in str(found)


def test_an_attack_on_a_masked_gradient_fails(model: StyleMemoryNet, digits: Dataset) -> None:
    masked = attacks.binarization_test(Stepped(model), digits.test.x[:N], attacks.PGD(eps=0.1, steps=20))
    assert masked.success_rate <= 0.3


def test_with_a_detector_the_planted_points_are_accepted(defended: DefendedClassifier, digits: Dataset) -> None:
    x = digits.test.x[:30]
    x = x[~defended.inspect(x).rejected][:5]
    sound = attacks.binarization_test(defended, x, attacks.SelectivePGD(eps=0.1, steps=30, restarts=3, early_exit=True))
    assert sound.passed
    assert sound.planted >= 4
    weak = attacks.binarization_test(defended, x, attacks.SelectivePGD(eps=0.1, steps=1, alpha=0.01))
    assert not weak.passed


def test_the_inverted_test_finds_out_an_attack_that_ignores_the_detector(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attacks.binarization.POINTS", 300)
    model = load("robust/digits")
    aware = attacks.SelectivePGD(eps=0.1, steps=30, restarts=2, early_exit=True)
    blind = Blind(eps=0.1, steps=40, alpha=0.004, random_start=False, early_exit=True)  # stops where the label changes
    found = {(attack.name, inverted): 0 for attack in (aware, blind) for inverted in (False, True)}
    for image in digits.test.x[:4].split(1):
        tilted = Tilted(model, image, eps=0.1)
        for (name, inverted), so_far in found.items():
            attack = aware if name == aware.name else blind
            test = attacks.binarization_test(tilted, image, attack, inverted=inverted)
            found[name, inverted] = so_far + test.found
    assert found["selective", False] == found["selective", True] == 4
    assert found["pgd", False] >= 3, "most points are accepted"
    assert found["pgd", True] <= 1


def test_an_inverted_detector_accepts_what_was_rejected(digits: Dataset) -> None:
    tilted = Tilted(nn.Flatten(), digits.test.x[:1], eps=0.1)
    inverted = Inverted(tilted, tilted.threshold)
    x = torch.rand(100, *digits.image_shape, generator=torch.Generator().manual_seed(0))
    x = torch.cat([x, digits.test.x[:20]])
    accepted = tilted.score(x) <= tilted.threshold
    assert 0 < accepted.sum() < len(x)
    assert torch.equal(inverted.score(x) <= inverted.threshold, ~accepted)
    at_threshold = -torch.tensor([tilted.threshold])  # which the model accepts
    assert not at_threshold <= inverted.threshold


@pytest.mark.parametrize("attack", [attacks.PGD(eps=0.1, steps=20), attacks.SelectivePGD(eps=0.1, steps=20)])
def test_where_nothing_is_planted_nothing_is_found(attack: attacks.Attack, digits: Dataset) -> None:
    """The features are the pixels, so that what the ball holds is known."""
    x, y = digits.test.x[:1], torch.zeros(1, dtype=torch.long)
    weight = torch.randn(x.numel(), generator=torch.Generator().manual_seed(1))
    highest = (
        torch.where(weight > 0, (x.flatten() + 0.1).clamp(max=1), (x.flatten() - 0.1).clamp(min=0)) @ weight
    ).item()
    middle = (x.flatten() @ weight).item()
    tilted = Tilted(nn.Flatten(), x, eps=0.1)
    for boundary, there in ((highest + 0.01, False), (middle + 0.6 * (highest - middle), True)):
        binary = Binary(tilted, nn.Flatten(), weight, -boundary, tilted.threshold)
        assert bool(attack(binary, x, y).success) is there


def test_the_same_seed_plants_the_same(model: StyleMemoryNet, digits: Dataset) -> None:
    attack = attacks.PGD(eps=0.1, steps=2)
    first, again = (attacks.binarization_test(model, digits.test.x[:2], attack) for _ in range(2))
    assert first == again


def test_a_readout_tells_the_planted_point_by_hand() -> None:
    inner = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    weight, bias = readout(inner, torch.tensor([[3.0, 0.0]]), margin=0.5, confidence=4.0)
    logit = inner @ weight + bias
    assert logit[0].item() == pytest.approx(-4.0)  # as sure as the model is
    assert (weight * torch.tensor([2.0, 0.0])).sum().item() + bias == pytest.approx(
        0.0, abs=1e-5
    )  # halfway from 1 to 3
    assert readout(inner, torch.tensor([[0.5, 0.0]]), 0.5, 4.0) is None  # not further out than those inside
    assert readout(torch.zeros(5, 2), torch.ones(1, 2), 0.5, 4.0) is None  # features that nothing changes


def test_features_are_the_input_of_the_last_linear_layer(model: StyleMemoryNet, digits: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 7), nn.ReLU(), nn.Linear(7, 3))
    x = digits.test.x[:2]
    torch.testing.assert_close(feature_layer(net, x, None)(x), net[:3](x))
    torch.testing.assert_close(feature_layer(net, x, "1")(x), net[:2](x))
    with pytest.raises(attacks.InputError, match="layer: unknown name 'conv'"):
        feature_layer(net, x, "conv")
    with pytest.raises(attacks.InputError, match="calls no linear layer"):
        feature_layer(nn.Flatten(), x, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"margin": 1.0}, "margin: got 1.0, must be above 0 and below 1"), ({"eps": 0.0}, "eps: got 0, must be above 0")],
)
def test_wrong_arguments_are_named(
    model: StyleMemoryNet, digits: Dataset, changes: dict[str, float], message: str
) -> None:
    attack = attacks.PGD(eps=changes.get("eps", 0.1))
    with pytest.raises(attacks.InputError, match=message):
        attacks.binarization_test(model, digits.test.x[:2], attack, margin=changes.get("margin", 0.5))


def test_the_inverted_test_wants_an_attack_that_knows_the_detector(
    defended: DefendedClassifier, digits: Dataset
) -> None:
    with pytest.raises(attacks.InputError, match="inverted: got True, must be False for pgd"):
        attacks.binarization_test(defended, digits.test.x[:2], attacks.PGD(eps=0.1), inverted=True)


def test_a_model_that_nothing_changes_is_an_error(digits: Dataset) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    still = nn.Sequential(Zero(), net)
    with pytest.raises(attacks.InputError, match="no adversarial example could be planted in 2 images"):
        attacks.binarization_test(still, digits.test.x[:2], attacks.PGD(eps=0.1))


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0 * x


def test_the_command_prints_it_with_the_checks(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(attacks.binarization, "POINTS", 300)
    words = f"bench --model {model_dir} --n 3 --eps 0.1 --steps 5 --attack pgd --attack selective --precision float32"
    words += f" --detector label_margin --check-attack --out {tmp_path}"
    assert run(monkeypatch, words) == 0
    said = capsys.readouterr().out
    assert "- linf 0.1: binarization test" in said
    assert "- linf 0.1, label_margin: binarization test" in said
    assert said.count("; inverted test ") == 1, "the attack on the classifier alone has none"
    assert run(monkeypatch, f"{words} --json") == 0
    tests = json.loads(capsys.readouterr().out)["binarization_tests"]
    assert [test["attack"] for test in tests] == ["pgd", "selective"]
    assert all(test["found"] <= test["planted"] for test in tests)
    assert ["inverted" in test for test in tests] == [False, True]
    assert run(monkeypatch, f"{words} --format csv") == 2


def run(monkeypatch: pytest.MonkeyPatch, words: str) -> int:
    monkeypatch.setattr("sys.argv", ["robustrecon", *words.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    return code if isinstance(code, int) else 0
