"""Defended classifiers and their detectors as ART's, under ART's own attacks; ART's classifiers here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from art.attacks.evasion import (
    AutoProjectedGradientDescent,
    CarliniL2Method,
    FastGradientMethod,
    HopSkipJump,
    ProjectedGradientDescentPyTorch,
)
from art.defences.detector.evasion import EvasionDetector
from art.defences.postprocessor import ReverseSigmoid
from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustrecon import DefendedClassifier, InputError, benchmark, from_art, load_defended
from robustrecon.bench import CellResult
from robustrecon.data import Dataset
from robustrecon.defence import RejectClass
from robustrecon.detectors import Calibration, Detector, Evidence
from robustrecon.interop.art import ReconstructionDetector

SIX = slice(0, 6)


class Table(nn.Module):
    """Its logits are the first three pixels, on a scale that has room for anything."""

    image_shape = (1, 2, 2)

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Buffer(torch.tensor(0.0))
        self.logits: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        given = x.flatten(1)[:, :3] if self.logits is None else self.logits
        return given + self.values


class Given(Detector):
    """A score that is given."""

    name = "given"
    value: Tensor | None = None

    def score(self, evidence: Evidence) -> Tensor:
        return evidence.x.flatten(1)[:, 3] if self.value is None else self.value


ANY = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(
    logits=st.lists(st.lists(ANY, min_size=3, max_size=3), min_size=1, max_size=4),
    scores=st.lists(ANY, min_size=4, max_size=4),
    near=st.lists(st.sampled_from([None, -1, 0, 1]), min_size=4, max_size=4),
    scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e30]),
)
@settings(max_examples=300, deadline=None)
def test_the_argmax_of_the_reject_class_is_what_predict_says(
    logits: list[list[float]], scores: list[float], near: list[int | None], scale: float
) -> None:
    """Of any logits and scores: huge, tied, not numbers, and a hair's breadth from the threshold."""
    defended = DefendedClassifier(Table(), Given())
    defended.set_calibration(Calibration(scale * torch.arange(1.0, 41.0)[:, None], 0.1), (1, 2, 2))
    threshold = np.float32(defended.threshold)
    beside = {-1: np.nextafter(threshold, -np.inf), 0: threshold, 1: np.nextafter(threshold, np.inf)}
    found = [score if place is None else beside[place] for score, place in zip(scores, near, strict=True)]
    defended.model.logits = torch.tensor(logits, dtype=torch.float32)
    defended.detector.value = torch.tensor(found[: len(logits)], dtype=torch.float32)
    x = torch.zeros(len(logits), 1, 2, 2)
    view = RejectClass(defended)(x)
    expected = defended.predict(x)
    assert torch.equal(view.argmax(1), expected.where(expected != -1, 3))
    np.testing.assert_array_equal(view.numpy().argmax(1), view.argmax(1))
    assert not view.isnan().any()


@pytest.mark.parametrize("detector", ["label_margin", "msp", "any_of(label_margin,max_logit)"])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_so_on_images_of_all_kinds(
    detector: str, seed: int, defended: DefendedClassifier, digits: Dataset
) -> None:
    calibration = digits.calibration.x[:120]
    judged = DefendedClassifier(defended.model, detector).calibrate(calibration, alpha=0.1)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(40, 1, 28, 28, generator=generator)
    share = torch.rand(40, 1, 1, 1, generator=generator)
    mixed = share * noise + (1 - share) * digits.test.x[:40]
    x = torch.cat([digits.test.x[:40], noise, mixed, torch.zeros(1, 1, 28, 28), calibration])
    estimator = judged.to_art(reject_class=True)
    assert estimator.nb_classes == 11
    found = torch.from_numpy(estimator.predict(x.numpy(), batch_size=len(x)).argmax(1))
    expected = judged.predict(x)
    assert torch.equal(found, expected.where(expected != -1, 10))
    assert 0 < (found == 10).double().mean() < 1


@pytest.mark.parametrize("detector", ["label_margin", "any_of(label_margin,max_logit)"])
def test_the_reject_class_has_the_gradient_of_the_score(
    detector: str, defended: DefendedClassifier, digits: Dataset
) -> None:
    judged = DefendedClassifier(defended.model, detector).calibrate(digits.calibration.x[:120], alpha=0.1).double()
    judged.set_calibration(judged.calibrate(digits.calibration.x[:120], alpha=0.1).checked_calibration())
    view = RejectClass(judged)
    x = digits.test.x[SIX].double().requires_grad_()
    logits = view(x)
    (grad,) = torch.autograd.grad((logits[:, -1] - logits[:, :-1].amax(1)).sum(), x)
    (expected,) = torch.autograd.grad(judged.score(x).sum() / view.unit, x)
    torch.testing.assert_close(grad, expected)
    assert (grad.flatten(1).norm(dim=1) > 0).all()


def test_without_the_class_it_is_the_classifier(defended: DefendedClassifier, digits: Dataset) -> None:
    estimator = defended.to_art()
    assert isinstance(estimator, PyTorchClassifier)
    x = digits.test.x[SIX]
    np.testing.assert_allclose(estimator.predict(x.numpy()), defended(x).detach(), rtol=1e-4, atol=1e-4)
    assert (estimator.nb_classes, estimator.input_shape, estimator.clip_values[1]) == (10, (1, 28, 28), 1)


def attacked(estimator: Any, x: Tensor, y: Tensor, targets: np.ndarray | None = None, eps: float = 0.15) -> Tensor:
    attack = ProjectedGradientDescentPyTorch(
        estimator, norm=np.inf, eps=eps, eps_step=eps / 8, max_iter=25, targeted=targets is not None, verbose=False
    )
    wanted = np.eye(estimator.nb_classes, dtype=np.float32)[y.numpy() if targets is None else targets]
    return torch.from_numpy(attack.generate(x.numpy(), wanted))


def test_art_s_gradient_attack_on_the_view_gets_past_the_detector(
    defended: DefendedClassifier, digits: Dataset
) -> None:
    """Blind to the detector, it is caught; on the view it finds wrong labels that are accepted."""
    judged = DefendedClassifier(defended.model, "label_margin").calibrate(digits.calibration.x[:150], alpha=0.1)
    clean = judged.predict(digits.test.x[:40]) == digits.test.y[:40]
    x, y = digits.test.x[:40][clean][:16], digits.test.y[:40][clean][:16]
    targets = judged(x).topk(2).indices[:, 1].numpy()
    accepted = []
    for reject_class in (False, True):
        x_adv = attacked(judged.to_art(reject_class), x, y, targets)
        assert (x_adv - x).abs().max() <= 0.15 + 1e-6
        accepted.append(int((judged.predict(x_adv) == torch.from_numpy(targets)).sum()))
    assert accepted[1] >= accepted[0] + 4


@pytest.mark.parametrize(
    "make",
    [
        lambda estimator: FastGradientMethod(estimator, eps=0.2),
        lambda estimator: AutoProjectedGradientDescent(estimator, eps=0.2, max_iter=3, nb_random_init=1, verbose=False),
        lambda estimator: CarliniL2Method(
            estimator, max_iter=8, binary_search_steps=2, initial_const=10, learning_rate=0.2, verbose=False
        ),
        lambda estimator: HopSkipJump(estimator, max_iter=2, max_eval=40, init_eval=10, verbose=False),
    ],
    ids=["fgm", "apgd", "cw", "hop-skip-jump"],
)
def test_other_attacks_of_art_take_the_view(make: Any, defended: DefendedClassifier, digits: Dataset) -> None:
    x = digits.test.x[:3]
    x_adv = make(defended.to_art(reject_class=True)).generate(x.numpy())
    assert x_adv.shape == x.shape
    assert not np.array_equal(x_adv, x)


class Ranks(Detector):
    name, differentiable = "ranks", False

    def score(self, evidence: Evidence) -> Tensor:
        return (evidence.x.detach() > 0.5).flatten(1).double().mean(1)


def test_a_gradient_of_a_score_without_one_is_refused(defended: DefendedClassifier, digits: Dataset) -> None:
    judged = DefendedClassifier(defended.model, Ranks()).calibrate(digits.calibration.x[:60], alpha=0.2)
    estimator, x = judged.to_art(reject_class=True), digits.test.x[:2].numpy()
    with pytest.raises(InputError, match="the score of ranks has no gradient, which the attack follows"):
        FastGradientMethod(estimator, eps=0.1).generate(x)
    assert HopSkipJump(estimator, max_iter=1, max_eval=20, init_eval=5, verbose=False).generate(x).shape == x.shape


def test_what_has_no_calibration_has_no_view(defended: DefendedClassifier, digits: Dataset) -> None:
    bare = DefendedClassifier(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), "msp")
    with pytest.raises(InputError, match="model: has no image_shape"):
        bare.to_art()
    with pytest.raises(InputError, match="not calibrated"):
        DefendedClassifier(defended.model).to_art(reject_class=True)
    estimator = bare.calibrate(digits.calibration.x[:60]).to_art(reject_class=True)
    with torch.no_grad():
        bare.model[1].weight.mul_(2)
    with pytest.raises(InputError, match="weights have changed"):
        estimator.predict(digits.test.x[:2].numpy())


def art_classifier(digits: Dataset, **options: Any) -> PyTorchClassifier:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    estimator = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), (1, 28, 28), 10, optimizer, **{"clip_values": (0, 1), **options}
    )
    estimator.fit(digits.train.x[:600].numpy(), digits.train.y[:600].numpy(), batch_size=64, nb_epochs=8)
    return estimator


def test_the_detector_speaks_art_s_language(digits: Dataset) -> None:
    estimator = art_classifier(digits, preprocessing=(0.2, 0.5))
    detector = ReconstructionDetector(estimator, "msp", alpha=0.1)
    assert isinstance(detector, EvasionDetector)
    with pytest.raises(InputError, match="not calibrated"):
        detector.detect(digits.test.x[:3].numpy())
    assert detector.fit(digits.calibration.x[:150].numpy(), None) is None
    x, y = digits.test.x[:100].numpy(), digits.test.y[:100].numpy()
    report, is_adversarial = detector.detect(x, batch_size=30)
    assert set(report) == {"scores", "predictions", "threshold"}
    np.testing.assert_array_equal(report["predictions"], estimator.predict(x).argmax(1))
    np.testing.assert_array_equal(is_adversarial, report["scores"] > report["threshold"])
    assert (is_adversarial.dtype, is_adversarial.shape) == (bool, (100,))
    assert is_adversarial.mean() < 0.25
    x_adv = FastGradientMethod(estimator, eps=0.04).generate(x, y)
    assert detector.detect(x_adv)[1].mean() > is_adversarial.mean() + 0.1


def test_parameters_are_read_and_set(defended: DefendedClassifier, digits: Dataset) -> None:
    detector = ReconstructionDetector(defended)
    assert detector.get_params() == {"classifier": defended, "detector": None, "alpha": None}
    x = digits.test.x[:20].numpy()
    np.testing.assert_array_equal(detector.detect(x)[1], defended.inspect(digits.test.x[:20]).rejected)
    detector.set_params(alpha=0.3)
    assert detector.get_params()["alpha"] == 0.3
    moved = DefendedClassifier(defended.model).calibrate(digits.calibration.x, alpha=0.3)
    assert detector.detect(x)[0]["threshold"] == moved.threshold < defended.threshold
    assert defended.calibration is not None
    assert defended.calibration.alpha == 0.05
    for wrong, message in [
        ({"alpha": 2}, "alpha: got 2, must be in"),
        ({"alpha": 1e-5}, "alpha: got 1e-05, which needs 99999 calibration images"),
        ({"detector": "mpr"}, "detector: unknown name 'mpr'"),
        ({"alhpa": 0.2}, "set_params: unknown name 'alhpa'; did you mean 'alpha'"),
    ]:
        with pytest.raises(InputError, match=message):
            detector.set_params(**wrong)
        assert detector.get_params()["alpha"] == 0.3
        assert detector.detect(x)[0]["threshold"] == moved.threshold
    detector.set_params(detector="msp")
    with pytest.raises(InputError, match="not calibrated"):
        detector.detect(x)
    detector.fit(digits.calibration.x.numpy())
    assert detector.defended.detector.name == "msp"
    assert detector.defended.checked_calibration().alpha == 0.3


def test_a_detector_that_learns_takes_labels_as_art_writes_them(digits: Dataset) -> None:
    detector = ReconstructionDetector(art_classifier(digits), "mahalanobis", alpha=0.2)
    x, y = digits.calibration.x[:200].numpy(), digits.calibration.y[:200].numpy()
    with pytest.raises(InputError, match="y: got None, must be the class labels"):
        detector.fit(x)
    detector.fit(x, np.eye(10)[y])
    assert len(detector.defended.checked_calibration().scores) == 100
    assert detector.detect(digits.test.x[:100].numpy())[1].mean() < 0.4


@pytest.mark.parametrize("reject_class", [False, True])
def test_art_s_detector_and_classifier_work_together(reject_class: bool, digits: Dataset) -> None:
    """The shipped robust network: a blind attack's wrong labels are rejected."""
    defended = load_defended("robust/digits")
    detector = ReconstructionDetector(defended)
    x, y = digits.test.x[:12], digits.test.y[:12]
    x_adv = attacked(defended.to_art(reject_class), x, y, eps=0.05)
    report, is_adversarial = detector.detect(x_adv.numpy())
    wrong = (report["predictions"] != y.numpy()) & ~is_adversarial
    assert wrong.mean() <= 0.25


def test_a_classifier_of_art_is_attacked_here(digits: Dataset) -> None:
    estimator = art_classifier(digits, preprocessing=(0.2, 0.5))
    model = from_art(estimator)
    assert (model.n_classes, model.image_shape, model.training) == (10, (1, 28, 28), False)
    x = digits.test.x[:30]
    np.testing.assert_allclose(model(x).detach(), estimator.predict(x.numpy()), atol=1e-4)
    data = (x, digits.test.y[:30], digits.calibration.x[:60])
    (cell,) = benchmark(model, data, "pgd", 0.1, "msp", n=30, steps=5, progress=False).cells
    assert isinstance(cell, CellResult)
    assert cell.metrics.robust_risk > 0.5 > cell.metrics.clean_rejection_rate


BAD: dict[str, Any] = {
    "has a postprocessing, or a preprocessing that is no mean": lambda digits: art_classifier(
        digits, postprocessing_defences=ReverseSigmoid()
    ),
    r"has the clip_values .*255.*, must be of images in \[0, 1\]": lambda digits: art_classifier(
        digits, clip_values=(0, 255)
    ),
    r"takes inputs of shape \(784,\), must take images": lambda digits: PyTorchClassifier(
        nn.Linear(784, 10), nn.CrossEntropyLoss(), (784,), 10
    ),
    "art: got BlackBoxClassifier, must be ART's PyTorchClassifier": lambda digits: BlackBoxClassifier(
        lambda x: np.zeros((len(x), 2)), (1, 28, 28), 2
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_classifiers_that_do_more_are_refused(message: str, digits: Dataset) -> None:
    with pytest.raises(InputError, match=message):
        from_art(BAD[message](digits))
