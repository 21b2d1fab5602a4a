"""The scores that look further than the energies of two labels, and several scores as one detector."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robustrecon import DefendedClassifier, InputError, StyleMemoryNet
from robustrecon.bench import BenchmarkPlan, CellResult, run
from robustrecon.bench.model import load_benchmark_model
from robustrecon.data import Dataset
from robustrecon.detectors import (
    JointCalibration,
    any_of,
    calibrate_jointly,
    images_needed,
    load_score,
)
from robustrecon.detectors.scores import cycle, global_error, label_margin, marginal

ANY = "any_of(label_margin,cycle)"
ANY_FOLDER = "any_of-label_margin-cycle"
LEVELS = torch.tensor([[1.0, 5.0, 9.0]])


@pytest.mark.parametrize("score", [label_margin, global_error])
def test_is_higher_for_a_wrong_label_than_for_the_right_one(score: object) -> None:
    assert callable(score)
    right, wrong = (score(LEVELS, torch.eye(3)[[label]]) for label in (0, 1))
    assert wrong.item() > right.item()


class TestMarginal:
    def test_is_the_free_energy(self) -> None:
        energies = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
        expected = -np.log(np.exp(-1.0) + np.exp(-2.0) + np.exp(-3.0))
        assert marginal(energies, energies).item() == pytest.approx(expected, rel=1e-12)

    def test_neither_large_nor_infinite_energies_upset_it(self) -> None:
        energies = torch.tensor([[4000.0, 4001.0, torch.inf], [1e-3, 1e4, torch.inf]], requires_grad=True)
        score = marginal(energies, energies)
        expected = torch.tensor([4000.0 - np.log(1 + np.exp(-1.0)), 1e-3], dtype=score.dtype)
        torch.testing.assert_close(score, expected)
        score.sum().backward()
        assert energies.grad is not None
        assert torch.isfinite(energies.grad).all()
        assert (energies.grad[:, 2] == 0).all()
        torch.testing.assert_close(energies.grad.sum(1), torch.ones(2), rtol=0, atol=1e-4)


class TestCycle:
    def test_is_zero_for_agreement_and_goes_on_rising_with_disagreement(self) -> None:
        logits = torch.tensor([[12.0, 0.0, 0.0]])
        rows = [torch.tensor([[12.0 - gap, gap, 0.0]]) for gap in (0.0, 4.0, 8.0, 16.0, 32.0, 64.0)]
        scores = [cycle(LEVELS, logits, redrawn).item() for redrawn in rows]
        assert scores[0] == pytest.approx(0, abs=1e-6)
        assert all(later > earlier for earlier, later in itertools.pairwise(scores))
        assert scores[-1] > 1.8 * scores[-2], "levels off, and its gradient with it"

    def test_has_a_gradient_in_both_even_for_a_very_sure_classifier(self) -> None:
        for drawn in ([[30.0, 0.0, 0.0]], [[0.0, 30.0, 0.0]]):
            logits = torch.tensor([[31.0, 1.0, 0.0]], requires_grad=True)
            redrawn = torch.tensor(drawn, requires_grad=True)
            for gradient in torch.autograd.grad(cycle(LEVELS, logits, redrawn).sum(), (logits, redrawn)):
                assert gradient.norm() > 1e-6

    def test_compares_with_the_drawing_under_the_label_asked_for(self, model: StyleMemoryNet, digits: Dataset) -> None:
        defended = DefendedClassifier(model.eval(), "cycle")
        x = digits.test.x[:6]
        logits = model(x)
        labels = (logits.argmax(1) + 1) % 10
        for given, drawn_as in ((None, logits.argmax(1)), (labels, labels)):
            found, score = defended.logits_and_score(x, given)
            assert torch.equal(found, logits)
            torch.testing.assert_close(score, cycle(LEVELS, logits, model(model.reconstruct(x, drawn_as))))
        assert (defended.logits_and_score(x, labels)[1] > defended.score(x)).double().mean() > 0.8

    def test_the_gradient_flows_through_the_drawing(self, model: StyleMemoryNet, digits: Dataset) -> None:
        def of_drawing(energies: torch.Tensor, logits: torch.Tensor, redrawn: torch.Tensor) -> torch.Tensor:
            return cycle(energies, logits.detach(), redrawn)

        x = digits.test.x[:6].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(DefendedClassifier(model, of_drawing).score(x).sum(), x)
        assert (gradient.flatten(1).norm(dim=1) > 0).all()

    def test_a_model_that_cannot_draw(self) -> None:
        plain = nn.Flatten()
        plain.class_energies = plain.forward  # type: ignore[assignment]
        DefendedClassifier(plain, "marginal")
        for detector in ("cycle", ANY):
            with pytest.raises(InputError, match=r"detector: got .*cycle.* Flatten: it has no reconstruct"):
                DefendedClassifier(plain, detector)


@pytest.mark.parametrize("detector", ["label_margin", "marginal", "cycle", ANY])
def test_scores_under_every_label_are_those_under_each(detector: str, model: StyleMemoryNet, digits: Dataset) -> None:
    defended = DefendedClassifier(model.eval(), detector).calibrate(digits.calibration.x)
    x = digits.test.x[:4]
    logits, scores = defended.logits_and_label_scores(x)
    for label in range(10):
        expected = defended.logits_and_score(x, torch.full((4,), label))[1]
        torch.testing.assert_close(scores[:, label], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores.gather(1, logits.argmax(1, keepdim=True)).squeeze(1), defended.score(x))


def draw(rng: np.random.Generator, kind: str, n: int, m: int = 3) -> torch.Tensor:
    """Scores (n, m): independent, one a function of the other, or with many ties; on scales that have nothing alike."""
    values: np.ndarray = rng.gamma(2.0, size=(n, m))
    if kind == "dependent":
        values = values[:, :1] ** np.arange(1, m + 1)
    elif kind == "tied":
        values = rng.integers(0, 30, size=(n, m)) * 1.0
    return torch.from_numpy((values * 10.0 ** np.arange(-4, 2 * m - 4, 2)).astype(np.float32))


KINDS = ["independent", "dependent", "tied"]


class TestAnyOf:
    @pytest.mark.parametrize("alpha", [0.03, 0.1, 0.3])
    @pytest.mark.parametrize("kind", KINDS)
    def test_false_alarm_rate_is_at_most_alpha_over_many_splits(self, kind: str, alpha: float) -> None:
        rng = np.random.default_rng(0)
        n, splits = 119, 600
        rates = np.empty(splits)
        for index in range(splits):
            each = draw(rng, kind, n + 50)
            joint = calibrate_jointly(each[:n], alpha)
            rates[index] = (joint.score(each[n:]) > joint.threshold).float().mean()
        error = rates.std() / np.sqrt(splits)
        assert rates.mean() <= alpha + 4 * error
        if kind == "independent":  # the bound is nearly used up: 1 − (1 − alpha/3)³, with alpha/3 met to 1/(n+1)
            assert rates.mean() >= 1 - (1 - alpha / 3 + 1 / (n + 1)) ** 3 - 4 * error

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(("n", "alpha"), [(99, 0.03), (59, 0.05), (500, 0.1), (119, 0.3)])
    def test_rejects_exactly_where_some_score_is_above_its_own_threshold(self, kind: str, n: int, alpha: float) -> None:
        rng = np.random.default_rng(n)
        each = draw(rng, kind, n)
        joint = calibrate_jointly(each, alpha)
        up, down = (torch.nextafter(each, torch.tensor(end)) for end in (torch.inf, -torch.inf))
        new = torch.cat([each, up, down, draw(rng, kind, 500)])
        above = torch.stack([new[:, i] > part.threshold for i, part in enumerate(joint.parts)], 1).any(1)
        assert above.any()
        assert torch.equal(joint.score(new) > joint.threshold, above)
        assert torch.equal(joint.p_value(new) <= alpha, above)

    @pytest.mark.parametrize("kind", KINDS)
    def test_rises_everywhere_with_the_score_that_decides(self, kind: str) -> None:
        each = draw(np.random.default_rng(1), kind, 119, 2)
        joint = calibrate_jointly(each, 0.1)
        low, high = each.amin(0), each.amax(0)
        span = torch.linspace(-3, 4, 2001, dtype=torch.float64)[:, None]
        new = (low + span * (high - low)).double().requires_grad_()
        score = joint.score(new)
        assert (score.diff() > 0).all()
        (gradient,) = torch.autograd.grad(score.sum(), new)
        assert torch.isfinite(gradient).all()
        assert (gradient.amax(1) > 0).all()
        assert (gradient >= 0).all()

    def test_is_ordered_like_the_smallest_p_value(self) -> None:
        rng = np.random.default_rng(2)
        joint = calibrate_jointly(draw(rng, "independent", 119), 0.1)
        new = draw(rng, "independent", 400)
        p = torch.stack([part.p_value(new[:, i]) for i, part in enumerate(joint.parts)], 1).amin(1)
        assert torch.equal(joint.p_value(new), p)
        order = joint.score(new).argsort()
        assert (p[order].diff() <= 0).all()

    def test_calibration_scores_that_are_all_the_same(self) -> None:
        joint = calibrate_jointly(torch.ones(50, 2), 0.1)
        new = torch.tensor([[1.0, 1.0], [1.0, 1.5], [0.0, 0.5]])
        assert joint.score(new).sign().tolist() == [0, 1, -1]

    def test_not_a_number_is_not_accepted(self) -> None:
        joint = calibrate_jointly(draw(np.random.default_rng(3), "independent", 99, 2), 0.1)
        new = torch.tensor([[0.0, torch.nan], [torch.inf, 0.0], [-torch.inf, 0.0]])
        assert (~(joint.score(new) <= joint.threshold)).tolist() == [True, True, False]
        assert joint.p_value(new)[0] == pytest.approx(2 / 100)

    def test_needs_as_many_images_more_as_there_are_scores(self, model: StyleMemoryNet, digits: Dataset) -> None:
        assert [images_needed(0.05, m) for m in (1, 2, 3)] == [19, 39, 59]
        calibrate_jointly(torch.rand(59, 3), 0.05)
        with pytest.raises(InputError, match="scores: of 58 images, must be of at least 59 for 3 scores"):
            calibrate_jointly(torch.rand(58, 3), 0.05)
        with pytest.raises(InputError, match="x: 38 images, must be at least 39"):
            DefendedClassifier(model, ANY).calibrate(digits.calibration.x[:38])
        with pytest.raises(InputError, match=r"scores: shape is \(40,\)"):
            calibrate_jointly(torch.rand(40), 0.1)

    def test_names(self) -> None:
        assert load_score(" any_of(label_margin, cycle) ") == any_of("label_margin", cycle) == load_score(ANY)
        assert load_score(ANY).__name__ == ANY
        for name, message in (
            ("any_of(label_margin,cycel)", "detector: unknown name 'cycel'; did you mean 'cycle'?"),
            ("any_of(label_margin", "detector: unknown name 'any_of(label_margin'; did you mean"),
            ("any_of(cycle)", "detector: got any_of(cycle), must be any_of at least two scores, all different"),
            ("any_of(cycle,cycle)", "all different"),
            ("any_of()", "detector: unknown name ''"),
        ):
            with pytest.raises(InputError) as raised:
                load_score(name)
            assert message in str(raised.value)

    def test_in_a_defended_classifier(self, model: StyleMemoryNet, digits: Dataset, tmp_path: Path) -> None:
        defended = DefendedClassifier(model, any_of("label_margin", "cycle", "marginal"))
        assert defended.detector == "any_of(label_margin,cycle,marginal)"
        for use in (defended.score, defended.logits_and_label_scores, defended.inspect):
            with pytest.raises(InputError, match="not calibrated; call calibrate"):
                use(digits.test.x[:2])
        defended.calibrate(digits.calibration.x, alpha=0.1)
        assert isinstance(defended.calibration, JointCalibration)
        verdict = defended.inspect(digits.test.x)
        alone = [
            DefendedClassifier(model, name).calibrate(digits.calibration.x, 0.1)
            for name in ("label_margin", "cycle", "marginal")
        ]
        p = torch.stack([single.inspect(digits.test.x).p_value for single in alone], 1).amin(1)
        torch.testing.assert_close(verdict.p_value, (3 * p).clamp_max(1))
        assert torch.equal(verdict.rejected, verdict.p_value <= 0.1)
        assert 0 < verdict.rejected.double().mean() < 0.15

        own = DefendedClassifier(model, any_of(label_margin, lambda energies, logits: energies.amin(1)))
        with pytest.raises(InputError, match="detector: unknown name '<lambda>'"):
            own.calibrate(digits.calibration.x).save(tmp_path / "d.safetensors")


def test_an_attack_and_a_benchmark_take_several_scores_as_one(model_dir: Path, tmp_path: Path) -> None:
    plan = BenchmarkPlan(["selective"], eps=[0.3], steps=10, n=40, detectors=[ANY, "label_margin"])
    joint, alone = run(load_benchmark_model(model_dir), plan, tmp_path, progress=False)
    assert isinstance(joint, CellResult)
    assert isinstance(alone, CellResult)
    assert joint.metrics.threshold == 0
    assert joint.key.detector == ANY
    assert joint.metrics.success_rate > 0.5
    assert joint.metrics.undetected_success <= alone.metrics.undetected_success + 0.1
    assert not [check for check in joint.checks if "gradient" in check.name]
    assert any(ANY_FOLDER in str(path) for path in tmp_path.rglob("*.json"))
