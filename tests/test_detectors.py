"""What detectors compute, what they may ask of a model, and several of them as one."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robustrecon import DefendedClassifier, InputError, StyleMemoryNet
from robustrecon.data import Dataset
from robustrecon.detectors import (
    DETECTORS,
    Detector,
    Evidence,
    FittedDetector,
    any_of,
    calibrate,
    gathered,
    images_needed,
    load_detector,
    parts,
)
from robustrecon.detectors.reconstruction import Cycle, FreeEnergy

ANY = "any_of(label_margin,cycle)"
LEVELS = torch.tensor([[1.0, 5.0, 9.0]])


class Known(nn.Module):
    """A model whose logits, energies and drawings are told, and which counts how often each is asked for."""

    def __init__(self, logits: torch.Tensor, energies: torch.Tensor, redrawn: torch.Tensor | None = None) -> None:
        super().__init__()
        self.logits, self.energies, self.redrawn = logits, energies, redrawn
        self.asked: list[str] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.asked.append("logits")
        return self.logits if self.redrawn is None or not x.isnan().any() else self.redrawn

    def class_energies(self, x: torch.Tensor) -> torch.Tensor:
        self.asked.append("energies")
        return self.energies

    def reconstruct(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.asked.append("reconstruction")
        return torch.full_like(x, torch.nan)  # tells `forward` that this is the drawing


def score_of(
    name: str, logits: torch.Tensor, energies: torch.Tensor, redrawn: torch.Tensor | None = None
) -> torch.Tensor:
    x = torch.zeros(len(logits), 1, 2, 2, dtype=logits.dtype)
    detector = load_detector(name)
    assert isinstance(detector, Detector)
    return detector.score(Evidence(Known(logits, energies, redrawn), x))


@pytest.mark.parametrize("name", ["label_margin", "global_error"])
def test_the_score_is_higher_for_a_wrong_label_than_for_the_right_one(name: str) -> None:
    right, wrong = (score_of(name, torch.eye(3)[[label]], LEVELS) for label in (0, 1))
    assert wrong.item() > right.item()


class TestConfidence:
    LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.0, 9.0, 8.0]])

    def test_each_is_what_its_paper_says(self) -> None:
        probability = self.LOGITS.softmax(1).amax(1)
        expected = {
            "msp": ((1 - probability) / probability).log(),
            "max_logit": torch.tensor([-2.0, -9.0]),
            "logit_margin": torch.tensor([-1.5, -1.0]),
            "energy": -self.LOGITS.exp().sum(1).log(),
        }
        for name, scores in expected.items():
            torch.testing.assert_close(score_of(name, self.LOGITS, LEVELS), scores)

    def test_a_very_sure_classifier_still_has_a_gradient(self) -> None:
        for name in ("msp", "max_logit", "logit_margin", "energy"):
            logits = torch.tensor([[90.0, 0.0, 1.0]], requires_grad=True)
            (gradient,) = torch.autograd.grad(score_of(name, logits, LEVELS).sum(), logits)
            assert gradient.norm() > 0.5

    def test_they_defend_a_classifier_that_has_nothing_but_logits(self, digits: Dataset) -> None:
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        for name in ("msp", "max_logit", "logit_margin", "energy"):
            defended = DefendedClassifier(plain, name).calibrate(digits.calibration.x, 0.1)
            assert 0 < defended.inspect(digits.test.x).rejected.double().mean() < 0.2


class TestEvidence:
    X = torch.zeros(2, 1, 2, 2)

    def test_each_part_is_computed_when_asked_for_and_once(self) -> None:
        model = Known(torch.eye(3)[:2], LEVELS.expand(2, 3))
        seen = Evidence(model, self.X)
        assert model.asked == []
        for _ in range(2):
            assert seen.logits.shape == seen.energies.shape == (2, 3)
        assert model.asked == ["logits", "energies"]
        other = seen.under(torch.tensor([2, 2]))
        assert other.predicted.tolist() == [2, 2]
        assert other.energies is seen.energies
        assert model.asked == ["logits", "energies"]
        assert other.reconstruction.shape == seen.reconstruction.shape
        assert model.asked[2:] == ["reconstruction", "reconstruction"]

    def test_one_pass_gives_logits_and_energies_where_the_model_shares_the_work(self, model: StyleMemoryNet) -> None:
        passes = []
        model.register_forward_pre_hook(lambda *_: passes.append("forward"))
        for with_energies in (True, False):
            seen = Evidence(model, torch.rand(3, 1, 28, 28), with_energies=with_energies)
            first, second = (seen.logits, seen.energies) if with_energies else (seen.energies, seen.logits)
            assert first.shape == second.shape == (3, 10)
        assert passes == [], "the classifier was run by itself"

    def test_features_are_what_the_last_layer_reads_or_what_a_layer_gives(self, model: StyleMemoryNet) -> None:
        x = torch.rand(3, 1, 28, 28, requires_grad=True)
        seen = Evidence(model, x)
        torch.testing.assert_close(model.head(seen.features())[:, :10], model(x))
        assert seen.features("conv1").shape == (3, 32 * 14 * 14)
        assert torch.autograd.grad(seen.features().sum(), x)[0].any()
        with pytest.raises(InputError, match="layer: unknown name 'cnov1'; did you mean 'conv1'"):
            seen.features("cnov1")
        with pytest.raises(InputError, match="does not call the layer unhead, must be one that it calls"):
            seen.features("unhead")
        with pytest.raises(InputError, match="Flatten does not call a linear layer"):
            Evidence(nn.Flatten(), x).features()
        assert not any(part._forward_hooks for part in model.modules())

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            (
                (torch.zeros(2, 3),),
                "model: Known gave a tuple, must give logits .* wrap it in a module that picks",
            ),
            ({"logits": torch.zeros(2, 3)}, "model: Known gave a dict"),
            (torch.zeros(2), r"gave torch.float32 of shape \(2,\), must give floating-point logits \(2, K\)"),
            (torch.zeros(3, 3), r"of shape \(3, 3\), must give"),
            (torch.zeros(2, 3).long(), "gave torch.int64"),
        ],
        ids=["tuple", "dict", "vector", "other batch", "integers"],
    )
    def test_outputs_that_are_no_logits_are_one_clear_line(self, output: object, message: str) -> None:
        defended = DefendedClassifier(Known(output, LEVELS), "msp")  # type: ignore[arg-type]
        with pytest.raises(InputError, match=message):
            defended(self.X)


class ClassMeans(FittedDetector):
    """Distance of the features to the mean of the predicted class."""

    name = "class_means"
    means: torch.Tensor

    def statistics(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        features = gathered(model, x, lambda seen: seen.features())
        return {"means": torch.stack([features[y == k].mean(0) for k in range(int(y.max()) + 1)])}

    def score(self, evidence: Evidence) -> torch.Tensor:
        return (evidence.features() - self.means[evidence.predicted]).square().sum(1)


class TestFittedDetector:
    def test_is_fitted_before_it_is_calibrated_and_saved_with_the_classifier(
        self, model: StyleMemoryNet, digits: Dataset, tmp_path: Path
    ) -> None:
        defended = DefendedClassifier(model, ClassMeans())
        with pytest.raises(InputError, match=r"detector: class_means is not fitted; call fit\(x_train, y_train\)"):
            defended.calibrate(digits.calibration.x)
        defended.fit(digits.train.x, digits.train.y).calibrate(digits.calibration.x)
        assert 0 < defended.inspect(digits.test.x).rejected.double().mean() < 0.15
        path = defended.save(tmp_path / "d.safetensors")
        with pytest.raises(InputError, match="was saved with a detector that this version does not know; pass an inst"):
            DefendedClassifier.load(path)
        with pytest.raises(InputError, match="detector: got msp, must be class_means for"):
            DefendedClassifier.load(path, detector=DETECTORS["msp"]())
        again = DefendedClassifier.load(path, detector=ClassMeans())
        assert torch.equal(again.inspect(digits.test.x).score, defended.inspect(digits.test.x).score)

    def test_fitting_anew_asks_for_a_new_calibration(self, model: StyleMemoryNet, digits: Dataset) -> None:
        defended = DefendedClassifier(model, any_of(ClassMeans(), "msp")).fit(digits.train.x, digits.train.y)
        defended.calibrate(digits.calibration.x).predict(digits.test.x[:2])
        defended.fit(digits.train.x.numpy(), digits.train.y)
        with pytest.raises(InputError, match="not calibrated"):
            defended.predict(digits.test.x[:2])

    def test_its_statistics_are_part_of_the_state_dict(self, model: StyleMemoryNet, digits: Dataset) -> None:
        defended = DefendedClassifier(model, ClassMeans()).fit(digits.train.x, digits.train.y)
        defended.calibrate(digits.calibration.x)
        again = DefendedClassifier(StyleMemoryNet(), ClassMeans())
        again.load_state_dict(defended.state_dict())
        assert torch.equal(again.inspect(digits.test.x).score, defended.inspect(digits.test.x).score)

    @pytest.mark.parametrize("y", [torch.zeros(3).long(), torch.zeros(4), torch.arange(4) + 7])
    def test_labels_that_do_not_fit_are_refused(self, model: StyleMemoryNet, y: torch.Tensor) -> None:
        with pytest.raises(InputError, match=r"y: got .* must be 4 labels|y: labels span \[7, 10\], must be"):
            DefendedClassifier(model, ClassMeans()).fit(torch.rand(4, 1, 28, 28), y)


class TestFreeEnergy:
    def test_is_the_negative_log_of_the_sum_of_exponentials(self) -> None:
        energies = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
        expected = -np.log(np.exp(-1.0) + np.exp(-2.0) + np.exp(-3.0))
        assert score_of("free_energy", energies, energies).item() == pytest.approx(expected, rel=1e-12)

    def test_neither_large_nor_infinite_energies_upset_it(self) -> None:
        energies = torch.tensor([[4000.0, 4001.0, torch.inf], [1e-3, 1e4, torch.inf]], requires_grad=True)
        score = score_of("free_energy", energies, energies)
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
        scores = [score_of("cycle", logits, LEVELS, redrawn).item() for redrawn in rows]
        assert scores[0] == pytest.approx(0, abs=1e-6)
        assert all(later > earlier for earlier, later in itertools.pairwise(scores))
        assert scores[-1] > 1.8 * scores[-2], "levels off, and its gradient with it"

    def test_has_a_gradient_in_both_even_for_a_very_sure_classifier(self) -> None:
        for drawn in ([[30.0, 0.0, 0.0]], [[0.0, 30.0, 0.0]]):
            logits = torch.tensor([[31.0, 1.0, 0.0]], requires_grad=True)
            redrawn = torch.tensor(drawn, requires_grad=True)
            for gradient in torch.autograd.grad(score_of("cycle", logits, LEVELS, redrawn).sum(), (logits, redrawn)):
                assert gradient.norm() > 1e-6

    def test_compares_with_the_drawing_under_the_label_asked_for(self, model: StyleMemoryNet, digits: Dataset) -> None:
        defended = DefendedClassifier(model.eval(), "cycle")
        x = digits.test.x[:6]
        logits = model(x)
        labels = (logits.argmax(1) + 1) % 10
        for given, drawn_as in ((None, logits.argmax(1)), (labels, labels)):
            found, score = defended.logits_and_score(x, given)
            assert torch.equal(found, logits)
            torch.testing.assert_close(score, score_of("cycle", logits, LEVELS, model(model.reconstruct(x, drawn_as))))
        assert (defended.logits_and_score(x, labels)[1] > defended.score(x)).double().mean() > 0.8

    def test_the_gradient_flows_through_the_drawing(self, model: StyleMemoryNet, digits: Dataset) -> None:
        class OfTheDrawing(Cycle):
            def score(self, evidence: Evidence) -> torch.Tensor:
                evidence.__dict__["logits"] = evidence.logits.detach()
                return super().score(evidence)

        x = digits.test.x[:6].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(DefendedClassifier(model, OfTheDrawing()).score(x).sum(), x)
        assert (gradient.flatten(1).norm(dim=1) > 0).all()

    def test_a_model_that_cannot_draw(self) -> None:
        plain = nn.Flatten()
        plain.class_energies = plain.forward  # type: ignore[assignment]
        DefendedClassifier(plain, "free_energy")
        for detector in ("cycle", ANY):
            with pytest.raises(InputError, match=r"detector: got cycle, .* Flatten: it has no reconstruct"):
                DefendedClassifier(plain, detector)


@pytest.mark.parametrize("detector", ["label_margin", "free_energy", "cycle", "msp", "energy", ANY])
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
            joint = calibrate(each[:n], alpha)
            rates[index] = (joint.combined(each[n:]) > joint.threshold).float().mean()
        error = rates.std() / np.sqrt(splits)
        assert rates.mean() <= alpha + 4 * error
        if kind == "independent":  # the bound is nearly used up: 1 − (1 − alpha/3)³, with alpha/3 met to 1/(n+1)
            assert rates.mean() >= 1 - (1 - alpha / 3 + 1 / (n + 1)) ** 3 - 4 * error

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(("n", "alpha"), [(99, 0.03), (59, 0.05), (500, 0.1), (119, 0.3)])
    def test_rejects_exactly_where_some_score_is_above_its_own_threshold(self, kind: str, n: int, alpha: float) -> None:
        rng = np.random.default_rng(n)
        each = draw(rng, kind, n)
        joint = calibrate(each, alpha)
        up, down = (torch.nextafter(each, torch.tensor(end)) for end in (torch.inf, -torch.inf))
        new = torch.cat([each, up, down, draw(rng, kind, 500)])
        above = torch.stack([new[:, i] > each for i, each in enumerate(joint.thresholds)], 1).any(1)
        assert above.any()
        assert torch.equal(joint.combined(new) > joint.threshold, above)
        assert torch.equal(joint.p_value(new) <= alpha, above)

    @pytest.mark.parametrize("kind", KINDS)
    def test_rises_everywhere_with_the_score_that_decides(self, kind: str) -> None:
        each = draw(np.random.default_rng(1), kind, 119, 2)
        joint = calibrate(each, 0.1)
        low, high = each.amin(0), each.amax(0)
        span = torch.linspace(-3, 4, 2001, dtype=torch.float64)[:, None]
        new = (low + span * (high - low)).double().requires_grad_()
        score = joint.combined(new)
        assert (score.diff() > 0).all()
        (gradient,) = torch.autograd.grad(score.sum(), new)
        assert torch.isfinite(gradient).all()
        assert (gradient.amax(1) > 0).all()
        assert (gradient >= 0).all()

    def test_is_ordered_like_the_smallest_p_value(self) -> None:
        rng = np.random.default_rng(2)
        joint = calibrate(draw(rng, "independent", 119), 0.1)
        new = draw(rng, "independent", 400)
        p = joint.p_value(new)
        each_alone = [calibrate(joint.scores[:, i : i + 1], 0.1).p_value(new[:, i : i + 1]) for i in range(3)]
        torch.testing.assert_close(p, (3 * torch.stack(each_alone, 1).amin(1)).clamp_max(1))
        order = joint.combined(new).argsort()
        assert (p[order].diff() <= 0).all()

    def test_calibration_scores_that_are_all_the_same(self) -> None:
        joint = calibrate(torch.ones(50, 2), 0.1)
        new = torch.tensor([[1.0, 1.0], [1.0, 1.5], [0.0, 0.5]])
        assert joint.combined(new).sign().tolist() == [0, 1, -1]

    def test_not_a_number_is_not_accepted(self) -> None:
        joint = calibrate(draw(np.random.default_rng(3), "independent", 99, 2), 0.1)
        new = torch.tensor([[0.0, torch.nan], [torch.inf, 0.0], [-torch.inf, 0.0]])
        assert (~(joint.combined(new) <= joint.threshold)).tolist() == [True, True, False]
        assert joint.p_value(new)[0] == pytest.approx(2 / 100)

    def test_needs_as_many_images_more_as_there_are_scores(self, model: StyleMemoryNet, digits: Dataset) -> None:
        assert [images_needed(0.05, (1,) * m) for m in (1, 2, 3)] == [19, 39, 59]
        calibrate(torch.rand(59, 3), 0.05)
        with pytest.raises(InputError, match="scores: of 58 images, must be of at least 59 for 3 scores"):
            calibrate(torch.rand(58, 3), 0.05).combined(torch.rand(2, 3))
        with pytest.raises(InputError, match="x: 38 images, must be at least 39"):
            DefendedClassifier(model, ANY).calibrate(digits.calibration.x[:38])
        with pytest.raises(InputError, match=r"scores: shape is \(40,\)"):
            calibrate(torch.rand(40), 0.1)

    def test_shares_of_the_false_alarm_rate(self, model: StyleMemoryNet, digits: Dataset, tmp_path: Path) -> None:
        """Each is held to its own, and what was saved is held to it too."""
        scores = draw(np.random.default_rng(4), "independent", 199, 2)
        joint = calibrate(scores, 0.05, (9, 1))
        alone = [calibrate(scores[:, i : i + 1], alpha) for i, alpha in enumerate((0.045, 0.005))]
        assert joint.thresholds == tuple(each.threshold for each in alone)
        assert joint.expected_false_alarm_rate == pytest.approx(10 / 200)
        new = draw(np.random.default_rng(5), "independent", 5000, 2)
        rejected = joint.combined(new) > joint.threshold
        assert torch.equal(rejected, torch.stack([new[:, i] > each.threshold for i, each in enumerate(alone)]).any(0))
        assert torch.equal(rejected, joint.p_value(new) <= 0.05)
        assert images_needed(0.05, (9, 1)) == 199
        with pytest.raises(InputError, match="scores: of 198 images, must be of at least 199 for 2 scores"):
            calibrate(scores[:198], 0.05, (9, 1)).combined(new)
        least = calibrate(scores, 0.05, (1, 0))
        alone = [calibrate(scores[:, i : i + 1], alpha) for i, alpha in enumerate((0.045, 0.005))]
        assert least.thresholds == tuple(each.threshold for each in alone) == (alone[0].threshold, scores[:, 1].max())
        assert torch.equal(least.combined(new) > 0, least.p_value(new) <= 0.05)
        assert images_needed(0.05, (1, 0)) == 39
        assert images_needed(0.05, (1, 0, 2, 0)) == 99
        defended = DefendedClassifier(model, "any_of(3*label_margin, msp)").calibrate(digits.calibration.x[:100], 0.2)
        assert defended.detector.name == "any_of(3*label_margin,msp)"
        again = DefendedClassifier.load(defended.save(tmp_path / "d.safetensors"))
        assert again.checked_calibration().thresholds == defended.checked_calibration().thresholds
        assert again.checked_calibration().shares == (3, 1)

    def test_names(self) -> None:
        assert load_detector("any_of(2*label_margin,1*msp)").name == "any_of(2*label_margin,msp)"
        assert any_of("2*any_of(3*msp,cycle)", "energy").name == "any_of(6*msp,2*cycle,energy)"
        for name, message in (
            ("0*msp,0*energy,0*", "a share of 0 for each"),
            ("x*msp", "unknown name 'x*msp'"),
            ("2*mps", "did you mean 'msp'"),
        ):
            with pytest.raises(InputError, match=re.escape(message)):
                load_detector(f"any_of({name}cycle)" if name.endswith("*") else f"any_of({name},cycle)")
        assert load_detector(" any_of(label_margin, cycle) ").name == any_of("label_margin", Cycle()).name == ANY
        assert [part.name for part in parts(any_of(ANY, FreeEnergy()))] == ["label_margin", "cycle", "free_energy"]
        for name, message in (
            ("any_of(label_margin,cycel)", "detector: unknown name 'cycel'; did you mean 'cycle'?"),
            ("any_of(label_margin", "detector: unknown name 'any_of(label_margin'; did you mean"),
            ("any_of(cycle)", "detector: got any_of(cycle), must be any_of at least two detectors, all different"),
            ("any_of(cycle,cycle)", "all different"),
            ("any_of()", "detector: unknown name ''"),
        ):
            with pytest.raises(InputError) as raised:
                load_detector(name)
            assert message in str(raised.value)

    def test_in_a_defended_classifier(self, model: StyleMemoryNet, digits: Dataset, tmp_path: Path) -> None:
        defended = DefendedClassifier(model, any_of("label_margin", "cycle", "free_energy"))
        assert defended.detector.name == "any_of(label_margin,cycle,free_energy)"
        for use in (defended.score, defended.logits_and_label_scores, defended.inspect):
            with pytest.raises(InputError, match="not calibrated; call calibrate"):
                use(digits.test.x[:2])
        defended.calibrate(digits.calibration.x, alpha=0.1)
        verdict = defended.inspect(digits.test.x)
        alone = [
            DefendedClassifier(model, name).calibrate(digits.calibration.x, 0.1)
            for name in ("label_margin", "cycle", "free_energy")
        ]
        p = torch.stack([single.inspect(digits.test.x).p_value for single in alone], 1).amin(1)
        torch.testing.assert_close(verdict.p_value, (3 * p).clamp_max(1))
        assert torch.equal(verdict.rejected, verdict.p_value <= 0.1)
        assert 0 < verdict.rejected.double().mean() < 0.15

        own = DefendedClassifier(model, any_of("label_margin", lambda seen: seen.energies.amin(1)))
        with pytest.raises(InputError, match="detector: '<lambda>' is a function"):
            own.calibrate(digits.calibration.x).save(tmp_path / "d.safetensors")
