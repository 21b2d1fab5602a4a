"""The binarization test: sound attacks find what was planted; weak ones, and masked models, fail it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import attacks
from attacks.readout import feature_layer, readout
from robustrecon import DefendedClassifier, StyleMemoryNet
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
    assert run(monkeypatch, f"{words} --json") == 0
    tests = json.loads(capsys.readouterr().out)["binarization_tests"]
    assert [test["attack"] for test in tests] == ["pgd", "selective"]
    assert all(test["found"] <= test["planted"] for test in tests)
    assert run(monkeypatch, f"{words} --format csv") == 2


def run(monkeypatch: pytest.MonkeyPatch, words: str) -> int:
    monkeypatch.setattr("sys.argv", ["robustrecon", *words.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    return code if isinstance(code, int) else 0
