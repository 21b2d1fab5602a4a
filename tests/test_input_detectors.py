"""Detectors that look at changed inputs: each against what its paper says, and its gradient against an attack."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from scipy.ndimage import median_filter
from scipy.spatial.distance import jensenshannon
from torch import nn

from robustrecon import DefendedClassifier
from robustrecon.data import Dataset
from robustrecon.detectors import Evidence
from robustrecon.detectors.consistent_prediction import Ascent, ConsistentPrediction, perturbed
from robustrecon.detectors.feature_squeezing import FeatureSqueezing, disagreement, median_smoothed, reduced
from robustrecon.detectors.largest import largest
from robustrecon.detectors.magnet import LAYERS, MagNet, autoencoded, jensen_shannon, trained
from robustrecon.detectors.odds import LEAST, Odds, logit_shifts

LOGITS = torch.tensor([[4.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
OTHERS = torch.tensor([[1.0, 3.0, 0.0], [0.0, 2.0, 1.5]])


def images(n: int, channels: int = 1, side: int = 8) -> torch.Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def small(channels: int = 1, side: int = 8, classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, 16), nn.ReLU(), nn.Linear(16, classes))


class TestFeatureSqueezing:
    def test_the_median_is_that_of_scipy(self) -> None:
        x = images(3, channels=2)
        expected = torch.from_numpy(median_filter(x.numpy(), size=(1, 1, 2, 2), mode="reflect"))
        assert torch.equal(median_smoothed(x), expected)

    def test_bit_depth(self) -> None:
        x = torch.tensor([0.0, 0.2, 0.49, 0.51, 1.0], requires_grad=True)
        assert reduced(x, 1).tolist() == [0, 0, 0, 1, 1]
        torch.testing.assert_close(reduced(x, 2), torch.tensor([0, 1 / 3, 1 / 3, 2 / 3, 1]))
        assert torch.autograd.grad(reduced(x, 1).sum(), x)[0].tolist() == [1] * 5

    def test_ranks_as_the_l1_distance_does_and_has_a_gradient_where_both_are_sure(self) -> None:
        distance = (LOGITS.softmax(1) - OTHERS.softmax(1)).abs().sum(1)
        torch.testing.assert_close(disagreement(LOGITS, OTHERS), (distance / (2 - distance)).log())
        first = torch.tensor([[60.0, 0.0, 0.0]])
        found = []
        for gap in (0.0, 20.0, 80.0):
            second = torch.tensor([[60.0 - gap, gap, 0.0]], requires_grad=True)
            found.append(disagreement(first, second))
            if gap > 0:
                (gradient,) = torch.autograd.grad(found[-1].sum(), second)
                assert gradient[0, 1] > 0 or gap == 20
                assert torch.isfinite(gradient).all()
        assert found[0] < found[1] < found[2]
        assert math.isfinite(found[0].item())

    def test_is_the_largest_over_the_squeezers_of_the_number_of_channels(self) -> None:
        for channels, bits in ((1, 1), (3, 5)):
            model, x = small(channels), images(6, channels)
            scores = [disagreement(model(x), model(part)) for part in (reduced(x, bits), median_smoothed(x))]
            assert torch.equal(FeatureSqueezing().score(Evidence(model, x)), torch.maximum(*scores))


class TestMagNet:
    def test_divergence_is_that_of_scipy(self) -> None:
        expected = [jensenshannon(p, q) ** 2 for p, q in zip(LOGITS.softmax(1), OTHERS.softmax(1), strict=True)]
        assert jensen_shannon(LOGITS, OTHERS).tolist() == pytest.approx(expected, rel=1e-5)

    def test_the_auto_encoders_take_noise_out(self, digits: Dataset) -> None:
        weights = trained(digits.train.x[:400], torch.device("cpu"))
        x = digits.test.x[:50]
        noisy = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
        assert sum(tensor.numel() for tensor in weights.values()) == 30 + 84 * 3 + 28 + 30 + 84 + 28
        for name in LAYERS:
            error = (autoencoded(noisy, weights, name) - x).square().mean()
            assert error < 0.5 * x.var(), name
        assert autoencoded(images(2, side=9), weights, "pooled").shape == (2, 1, 9, 9)

    def test_fitting_is_deterministic_and_leaves_the_random_state(self, digits: Dataset) -> None:
        model, few = small(side=28), digits.train.head(64)
        torch.manual_seed(5)
        expected = torch.rand(1)
        torch.manual_seed(5)
        first = MagNet().fit(model, few.x, few.y).state_dict()
        assert torch.equal(torch.rand(1), expected)
        again = MagNet().fit(model, few.x, few.y).state_dict()
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert first["units"].shape == (4,)


class TestOdds:
    def test_statistics_are_those_of_the_training_images_of_a_class(self) -> None:
        model, x = small(), images(60)
        y = torch.arange(60) % 3
        detector = Odds().fit(model, x, y)
        shifts = logit_shifts(Evidence(model, x[y == 1]))
        change = shifts[:, :, 2] - shifts[:, :, 1]
        torch.testing.assert_close(detector.mean[:, 1, 2], change.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(detector.std[:, 1, 2], change.std(0).clamp_min(LEAST), rtol=1e-3, atol=1e-6)

    def test_the_score_is_the_largest_z_score(self, digits: Dataset) -> None:
        model = small(side=28, classes=10)
        detector = Odds().fit(model, digits.train.x[:200], digits.train.y[:200])
        evidence = Evidence(model, digits.test.x[:5])
        shifts = logit_shifts(evidence)
        for row, (p, score) in enumerate(zip(evidence.predicted.tolist(), detector.score(evidence), strict=True)):
            z = [
                (shifts[row, level, k] - shifts[row, level, p] - detector.mean[level, p, k]) / detector.std[level, p, k]
                for level in range(shifts.shape[1])
                for k in range(10)
                if k != p
            ]
            torch.testing.assert_close(score, torch.stack(z).max(), rtol=1e-4, atol=1e-4)

    def test_a_class_without_images_has_the_statistics_of_all(self) -> None:
        detector = Odds().fit(small(), images(20), torch.arange(20) % 2)
        assert torch.isfinite(detector.mean).all()
        assert (detector.std >= LEAST).all()


class TestConsistentPrediction:
    def test_the_ascent_stays_near_and_makes_the_label_less_likely(self) -> None:
        model, x = small(), images(10)
        labels = model(x).argmax(1)
        attacked = perturbed(model, x, labels, Ascent(0.1, 0.01, 20))
        assert (attacked - x).abs().max() <= 0.1 + 1e-6
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        before, after = (model(images).log_softmax(1).gather(1, labels[:, None]) for images in (x, attacked))
        assert (after < before).all()

    def test_the_score_is_positive_where_the_prediction_changes(self) -> None:
        model, x = small(), images(200)
        scores = ConsistentPrediction().score(Evidence(model, x))
        labels = model(x).argmax(1)
        changed = model(perturbed(model, x, labels, Ascent(0.1, 0.01, 20))).argmax(1) != labels
        assert torch.equal(scores > 0, changed)
        assert 0 < changed.sum() < 200

    def test_a_very_sure_model_is_attacked_all_the_same(self) -> None:
        class Sure(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.stack([200 + x.sum((1, 2, 3)), -x.sum((1, 2, 3))], 1)

        x = images(3)
        attacked = perturbed(Sure(), x, torch.zeros(3).long(), Ascent(0.1, 0.01, 20))
        torch.testing.assert_close(attacked, (x - 0.1).clamp_min(0))


@pytest.mark.parametrize("name", ["feature_squeezing", "magnet", "odds"])
def test_the_model_runs_on_changed_images_once_for_all_labels(name: str, digits: Dataset) -> None:
    model = small(side=28, classes=10)
    few = digits.train.head(40)
    defended = DefendedClassifier(model, name).fit(few.x, few.y)
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    x = digits.test.x[:4]
    defended.logits_and_score(x)
    passes = len(calls)
    _, scores = defended.logits_and_label_scores(x)
    assert len(calls) == 2 * passes
    for label in (0, 7):
        torch.testing.assert_close(scores[:, label], defended.logits_and_score(x, torch.full((4,), label))[1])


@pytest.mark.parametrize("name", ["magnet", "odds"])
def test_what_was_fitted_is_saved(name: str, digits: Dataset, tmp_path: Path) -> None:
    model, few = small(side=28, classes=10), digits.train.head(64)
    defended = DefendedClassifier(model, name).fit(few.x, few.y).calibrate(digits.calibration.x)
    again = DefendedClassifier.load(defended.save(tmp_path / "d.safetensors"), small(side=28, classes=10))
    assert torch.equal(again.inspect(digits.test.x[:20]).score, defended.inspect(digits.test.x[:20]).score)


def test_the_largest_score_is_exact_and_its_gradient_has_a_part_in_all() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.5], [0.5, 0.5, -4.0]], requires_grad=True)
    found = largest(scores, 2.0)
    assert found.tolist() == [3.0, 0.5]
    (gradient,) = torch.autograd.grad(found.sum(), scores)
    torch.testing.assert_close(gradient, (2 * scores.detach()).softmax(1))
