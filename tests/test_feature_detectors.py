"""Detectors on features: their scores, what they learn from, and that they work wherever a name does."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attacks
from robustrecon import DefendedClassifier, InputError, StyleMemoryNet, benchmark
from robustrecon.bench import BenchmarkModel, BenchmarkPlan
from robustrecon.bench.runner import prepared
from robustrecon.cli import main
from robustrecon.data import Dataset
from robustrecon.defence import fit_to, fitting, load_defended
from robustrecon.detectors import (
    DETECTORS,
    FittedDetector,
    any_of,
    as_detector,
    check_methods,
    describe,
    listing,
    magnet,
)
from robustrecon.detectors.features import FeatureDetector, nearest, whitening
from robustrecon.detectors.intrinsic_dimension import local_dimension
from robustrecon.detectors.virtual_logit import n_principal


@pytest.fixture(autouse=True)
def brief_auto_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """MagNet's auto-encoders learn for a moment: nothing here asks what they are worth."""
    monkeypatch.setattr(magnet, "MOST_STEPS", 60)


FITTED = [name for name, detector in DETECTORS.items() if issubclass(detector, FittedDetector)]
ON_FEATURES = [name for name in FITTED if issubclass(DETECTORS[name], FeatureDetector)]
WEIGHTS, BIAS = torch.randn(4, 12, generator=torch.Generator().manual_seed(5)), torch.tensor([0.5, -1, 0, 2])


def sample(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features of 4 classes, which vary differently in 12 directions, their logits and labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 4
    features = torch.randn(n, 12, generator=generator) * torch.linspace(0.2, 3, 12) + 2 * WEIGHTS[y] + 1
    return features, features @ WEIGHTS.T + BIAS, y


def fitted(name: str, features: Tensor, logits: Tensor, y: Tensor) -> FeatureDetector:
    detector = DETECTORS[name]()
    assert isinstance(detector, FeatureDetector)
    detector.set_statistics(detector.learned(features, logits, y))
    return detector


@pytest.fixture
def small(digits: Dataset) -> Dataset:
    return replace(digits, train=digits.train.head(400))


@pytest.fixture
def peers() -> Any:
    """The detectors of pytorch-ood; it imports torchvision, which has one door."""
    from robustrecon.data import _torchvision  # noqa: F401

    return pytest.importorskip("pytorch_ood.detector")


class TestScores:
    """What pytorch-ood computes without gradient; it does not divide a covariance by the number of images."""

    N = 3000

    def scores(self, name: str, peer: Any) -> tuple[Tensor, Tensor]:
        features, logits, y = sample(self.N, 0)
        peer.fit_features(features, y)
        others, *_ = sample(50, 1)
        others[::5] += 4
        detector = fitted(name, features, logits, y)
        return detector.judged(others, others @ WEIGHTS.T + BIAS), peer.predict_features(others).float()

    def test_mahalanobis(self, peers: Any) -> None:
        own, expected = self.scores("mahalanobis", peers.Mahalanobis(None))
        torch.testing.assert_close(own, 2 * self.N * expected, rtol=1e-3, atol=1e-3)

    def test_relative_mahalanobis(self, peers: Any) -> None:
        own, expected = self.scores("relative_mahalanobis", peers.RMD(None))
        torch.testing.assert_close(own, self.N * expected, rtol=1e-3, atol=2e-3)

    def test_knn(self, peers: Any) -> None:
        own, expected = self.scores("knn", peers.KNN(None, k=3))
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-6)

    def test_vim(self, peers: Any) -> None:
        own, expected = self.scores("vim", peers.ViM(None, d=6, w=WEIGHTS, b=BIAS))
        torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("dimension", [2, 8])
    def test_lid_is_the_dimension_of_the_data(self, dimension: int) -> None:
        points = torch.randn(20_000, dimension, generator=torch.Generator().manual_seed(0))
        found = local_dimension(torch.cdist(points[:300] / 4, points)).mean()
        assert found == pytest.approx(dimension * 20 / 18, rel=0.1)  # the estimate is biased

    def test_lid_of_a_layer_that_says_the_same_of_every_image_is_finite(self) -> None:
        assert local_dimension(torch.zeros(2, 30)).isfinite().all()

    def test_the_widths_of_the_paper(self) -> None:
        assert [n_principal(width) for width in (10, 512, 768, 2048)] == [5, 256, 512, 1000]

    def test_directions_that_do_not_vary_are_left_out(self) -> None:
        centred = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.0])
        centred = centred - centred.mean(0)
        within = whitening(centred)
        assert within.shape == (3, 2)
        torch.testing.assert_close((centred @ within).T @ (centred @ within) / 500, torch.eye(2), rtol=1e-4, atol=1e-4)
        with pytest.raises(InputError, match="layer: gives 9000 values for an image, must be at most 8192"):
            whitening(torch.zeros(2, 9000))

    def test_the_kth_neighbour(self) -> None:
        found = nearest(torch.tensor([[0.0], [10.0]]), torch.tensor([[1.0], [3.0], [9.0]]), 2)
        assert found.tolist() == [1, 1]


@pytest.mark.parametrize("name", FITTED)
class TestFitted:
    def test_adversarial_images_have_a_gradient(self, name: str, model: StyleMemoryNet, digits: Dataset) -> None:
        """A score that levels off far from the data would hide what a detector's attack could reach."""
        defended = DefendedClassifier(model, name).fit(digits.train.x, digits.train.y)
        part = digits.test.head(32)
        x = attacks.load("pgd", eps=0.3, steps=10)(model, part.x, part.y).x.requires_grad_()
        (gradient,) = torch.autograd.grad(defended.score(x).sum(), x)
        assert (gradient.flatten(1).norm(dim=1) > 0).all()
        assert defended.score(x).detach().unique().numel() > 30

    def test_is_the_same_each_time(self, name: str, model: StyleMemoryNet, small: Dataset) -> None:
        first, again = (DefendedClassifier(model, name) for _ in range(2))
        fit_to(first, small)
        fit_to(again, small)
        assert torch.equal(first.score(small.test.x[:20]), again.score(small.test.x[:20]))
        assert first.detector.fit_seconds > 0  # type: ignore[operator]

    def test_scores_are_in_float32_where_the_network_is_in_bfloat16(
        self, name: str, model: StyleMemoryNet, small: Dataset
    ) -> None:
        defended, x = DefendedClassifier(model, name), small.test.x[:100]
        fit_to(defended, small)
        assert all(value.dtype == torch.float32 for value in defended.detector.state_dict().values())
        scores = defended.score(x)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = defended.score(x)
        assert rounded.dtype == torch.float32
        if name != "odds":  # which is of small differences between logits, those of rounding among them
            assert (scores - rounded).abs().median() < 0.1 * scores.std()

    def test_statistics_follow_the_model(self, name: str, model: StyleMemoryNet, small: Dataset) -> None:
        defended = DefendedClassifier(model, name)
        fit_to(defended, small)
        elsewhere = DefendedClassifier(StyleMemoryNet().to("meta"), defended.detector)
        assert {value.device.type for value in elsewhere.detector.state_dict().values()} == {"meta"}

    def test_data_without_training_images(self, name: str, model: StyleMemoryNet, digits: Dataset) -> None:
        own = digits.test.x[:40], digits.test.y[:40], digits.calibration.x
        with pytest.raises(
            InputError, match=rf"detector: got {name}, which learns from training images, and own-data h"
        ):
            benchmark(model, own, detectors=[name], progress=False)

    def test_description(self, name: str) -> None:
        assert describe(name)["needs"] == ["training images"]
        assert "needs training images; its score has a gradient" in listing()


class TestWhereverANameWorks:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fitting, "FITTED_ON", 400)

    def test_bench(self, model: StyleMemoryNet, digits: Dataset) -> None:
        names = ["mahalanobis", "any_of(label_margin,knn)"]
        plan = BenchmarkPlan(["pgd", "selective"], eps=[0.2], steps=3, detectors=names, n=20)
        bench = prepared(BenchmarkModel(model, "m", digits), plan, None, False)
        cells = bench.run(plan.attacks)
        assert [cell.key.detector for cell in cells] == names * 2
        assert all(hasattr(cell, "metrics") for cell in cells)

    def test_a_result_that_is_stored_needs_no_fit(self, model: StyleMemoryNet, digits: Dataset, tmp_path: Path) -> None:
        plan = BenchmarkPlan(["pgd"], eps=[0.2], steps=3, detectors=["knn"], n=20)
        prepared(BenchmarkModel(model, "m", digits), plan, tmp_path, False).run(plan.attacks)
        bench = prepared(BenchmarkModel(model, "m", digits), plan, tmp_path, False)
        (cell,) = bench.run(plan.attacks)
        assert hasattr(cell, "metrics")
        assert not bench.defences["knn"].detector.is_fitted  # type: ignore[operator]

    def test_benchmark_of_a_classifier_that_is_fitted_already(self, model: StyleMemoryNet, digits: Dataset) -> None:
        defended = DefendedClassifier(model, "vim").fit(digits.train.x, digits.train.y)
        own = digits.test.x[:40], digits.test.y[:40], digits.calibration.x
        result = benchmark(defended, own, attacks="selective", eps=0.2, steps=3, n=20, progress=False)
        assert [cell.key.detector for cell in result.cells] == ["vim"]

    def test_command_line(
        self, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = str(tmp_path / "d.safetensors")
        command = ["robustrecon", "calibrate", "--model", str(model_dir), "--detector", "knn", "--out", out, "--json"]
        monkeypatch.setattr("sys.argv", command)
        with contextlib.suppress(SystemExit):
            main()
        assert json.loads(capsys.readouterr().out)["detector"] == "knn"
        again, anew = load_defended(out), load_defended(model_dir, "knn")
        x = torch.rand(4, 1, 28, 28)
        assert torch.equal(again.inspect(x).score, anew.inspect(x).score)

    def test_several_of_which_one_is_fitted_already(self, model: StyleMemoryNet, digits: Dataset) -> None:
        own = as_detector("mahalanobis")
        DefendedClassifier(model, own).fit(digits.train.x, digits.train.y)
        before = {key: value.clone() for key, value in own.state_dict().items()}
        defended = DefendedClassifier(model, any_of(own, "lid"))  # type: ignore[arg-type]
        fit_to(defended, digits)
        assert all(torch.equal(value, before[key]) for key, value in own.state_dict().items())
        defended.calibrate(digits.calibration.x).inspect(digits.test.x[:5])


class TestLayers:
    def test_another_layer_is_part_of_the_name(self, model: StyleMemoryNet, small: Dataset, tmp_path: Path) -> None:
        layer = DETECTORS["knn"]("dense1")  # type: ignore[call-arg]
        defended = DefendedClassifier(model, layer)
        fit_to(defended, small)
        assert layer.name == "knn(dense1)"
        assert layer.state_dict()["neighbours"].shape == (400, 256)
        path = defended.calibrate(small.calibration.x).save(tmp_path / "d.safetensors")
        again = DefendedClassifier.load(path)
        assert torch.equal(again.score(small.test.x[:9]), defended.score(small.test.x[:9]))

    def test_a_wrong_layer(self, model: StyleMemoryNet, small: Dataset) -> None:
        with pytest.raises(InputError, match="layer: unknown name 'dense3'; did you mean 'dense2'"):
            DefendedClassifier(model, DETECTORS["vim"]("dense3"))  # type: ignore[call-arg]


class Flat(nn.Module):
    """Logits of a linear layer, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.layer, self.factor = nn.Linear(64, 3), factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.layer(x.flatten(1))


class TestWhatCannotBeLearnedFrom:
    X = torch.rand(250, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    Y = torch.arange(250) % 3

    @pytest.mark.parametrize("name", ON_FEATURES)
    def test_values_that_are_not_finite(self, name: str) -> None:
        with pytest.raises(InputError, match=f"model: gave features or logits that are not finite, which {name}"):
            DefendedClassifier(Flat(torch.inf), name).fit(self.X, self.Y)

    def test_too_few_images_for_lid(self) -> None:
        with pytest.raises(InputError, match="x: got 99 training images, must be at least 200 for lid"):
            DefendedClassifier(Flat(1), "lid").fit(self.X[:99], self.Y[:99])

    def test_a_label_that_no_step_changes(self) -> None:
        with pytest.raises(InputError, match="model: a step along the gradient changes the label of 0 of 150 training"):
            DefendedClassifier(Flat(0), "lid").fit(self.X, self.Y)

    def test_a_model_without_energies_is_told_of_the_simple_ones(self) -> None:
        with pytest.raises(InputError, match="msp, max_logit, logit_margin, energy, .* need logits alone"):
            check_methods(DETECTORS["label_margin"](), Flat(1))
