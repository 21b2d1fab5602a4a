"""Detectors of the Adversarial Robustness Toolbox: ART's own scores, gradients, attacks, files, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.defences.detector.evasion import (
    BeyondDetectorPyTorch,
    BinaryActivationDetector,
    BinaryInputDetector,
    SubsetScanningDetector,
)
from art.defences.postprocessor import ReverseSigmoid
from art.defences.preprocessor import SpatialSmoothing
from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier
from torch import nn

import attacks
from robustrecon import DefendedClassifier, InputError, benchmark, from_art
from robustrecon.attacks import Misclassified, Undetected
from robustrecon.bench import CellResult
from robustrecon.data import Dataset
from robustrecon.detectors import Detector, Evidence
from robustrecon.runtime import seeded

ROWS = slice(0, 12)


def network(outputs: int, seed: int = 0) -> nn.Sequential:
    """The second layer writes into the output of the first."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(144, 16),
        nn.Linear(16, outputs),
    )


def estimator(model: nn.Module, shape: tuple[int, ...] = (1, 28, 28), outputs: int = 10, **options: Any) -> Any:
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    return PyTorchClassifier(model, nn.CrossEntropyLoss(), shape, outputs, optimizer, clip_values=(0, 1), **options)


class SelfSupervised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = network(12, seed=3)
        self.classifier, self.projector = nn.Linear(12, 10), nn.Linear(12, 6)


def augmented(x: torch.Tensor) -> torch.Tensor:
    return (x + 0.1 * torch.randn(x.shape)).roll(int(torch.randint(3, ())), 3)


def binary_input(digits: Dataset, model: nn.Module, **options: Any) -> Any:
    return BinaryInputDetector(estimator(network(2, seed=1), outputs=2, **options))


def binary_activation(digits: Dataset, model: nn.Module, layer: str = "0", **options: Any) -> Any:
    torch.manual_seed(2)
    own = nn.Sequential(nn.Flatten(), nn.Linear(144, 2))
    return BinaryActivationDetector(
        estimator(model, preprocessing=(0.1, 0.3), **options), estimator(own, (4, 6, 6), 2), layer
    )


def beyond(digits: Dataset, model: nn.Module) -> Any:
    torch.manual_seed(0)
    detector = BeyondDetectorPyTorch(estimator(model), estimator(SelfSupervised()), augmented, aug_num=6, var_K=3)
    detector.fit(digits.train.x[:20].numpy(), digits.train.y[:20].numpy())
    return detector


def subset_scanning(digits: Dataset, model: nn.Module) -> Any:
    return SubsetScanningDetector(estimator(model), digits.train.x[:80].numpy(), "4", verbose=False)


def without_gradient(digits: Dataset, model: nn.Module) -> Any:
    return binary_activation(digits, model, postprocessing_defences=ReverseSigmoid())


MAKERS: dict[str, Callable[..., Any]] = {
    "art_binary_input": binary_input,
    "art_binary_activation": binary_activation,
    "art_beyond": beyond,
    "art_subset_scanning": subset_scanning,
}
DIFFERENTIABLE = ("art_binary_input", "art_binary_activation", "art_beyond")


def own_report(detector: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The scores in what ART's `detect` says, and whether they rank as its decisions do."""
    if isinstance(detector, BeyondDetectorPyTorch):
        found = []
        for image in x:
            with seeded(0):
                found.append(-detector.detect(image[None])[0])
        return np.concatenate(found)
    report, rejected = detector.detect(x)
    if "scores" in report:
        return np.asarray(report["scores"])
    scores = report["predictions"][:, 1] - report["predictions"][:, 0]
    np.testing.assert_array_equal(scores > 0, rejected)
    return np.asarray(scores)


@pytest.mark.parametrize("name", MAKERS)
def test_scores_are_those_of_arts_detect(name: str, digits: Dataset) -> None:
    model, x = network(10).eval(), digits.test.x[ROWS]
    detector = MAKERS[name](digits, model)
    adapted = from_art(detector)
    assert (adapted.name, adapted.differentiable) == (name, name in DIFFERENTIABLE)
    scores = DefendedClassifier(model, adapted).eval().score(x)
    expected = own_report(detector, x.numpy())
    assert expected.std() > 0.001
    np.testing.assert_allclose(scores.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"preprocessing_defences": SpatialSmoothing(3)}], ids=["net", "art"])
def test_colours_are_standardised_as_art_does(options: dict[str, Any]) -> None:
    """With the gradient that this library takes, and without it where ART has to smooth the images."""
    own = nn.Sequential(nn.Conv2d(3, 2, 5), nn.Flatten(), nn.Linear(32, 2)).eval()
    by_channel = (np.array([0.2, 0.4, 0.6]), np.array([0.5, 0.25, 0.1]))
    detector = BinaryInputDetector(estimator(own, (3, 8, 8), 2, preprocessing=by_channel, **options))
    x = torch.rand(5, 3, 8, 8)
    adapted = from_art(detector)
    assert adapted.differentiable is (not options)
    scores = adapted.score(Evidence(nn.Flatten(), x)).detach()
    np.testing.assert_allclose(scores.numpy(), own_report(detector, x.numpy()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_the_gradient_is_that_of_the_score(name: str, digits: Dataset) -> None:
    model = network(10).double().eval()
    defended = DefendedClassifier(model, from_art(MAKERS[name](digits, network(10)))).double().eval()
    x = digits.test.x[:3].double().clamp(0.01, 0.99).requires_grad_()
    (grad,) = torch.autograd.grad(defended.score(x).sum(), x)
    assert (grad.flatten(1).abs().amax(1) > 1e-4).all()
    step = 1e-5 * torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    change = defended.score(x + step) - defended.score(x - step)
    torch.testing.assert_close(change, 2 * (grad * step).sum((1, 2, 3)), rtol=1e-2, atol=1e-9)


def test_it_is_fitted_by_art_calibrated_and_attacked(digits: Dataset) -> None:
    """A detector that tells PGD's images from clean ones is fooled by an attack that knows it."""
    train = digits.train.head(600)
    classifier = estimator(network(10))
    classifier.fit(train.x.numpy(), train.y.numpy(), batch_size=64, nb_epochs=12)
    model = classifier.model
    pgd = attacks.load("pgd", "own", eps=0.2, steps=10)
    adversarial = pgd(model, train.x, train.y, Misclassified()).x
    detector = BinaryInputDetector(estimator(network(2, seed=1), outputs=2))
    both, truth = torch.cat([train.x, adversarial]), torch.arange(2).repeat_interleave(600)
    detector.fit(both.numpy(), truth.numpy(), batch_size=64, nb_epochs=6)
    data = (digits.test.x[:30], digits.test.y[:30], digits.calibration.x[:150])
    cells = benchmark(model, data, ["pgd", "selective"], 0.2, from_art(detector), 30, steps=20, progress=False).cells
    caught, followed = (cell for cell in cells if isinstance(cell, CellResult))
    assert caught.key.detector == "art_binary_input"
    assert caught.metrics.clean_rejection_rate < 0.2
    assert caught.metrics.auroc_success > 0.9
    assert followed.metrics.robust_risk > caught.metrics.robust_risk + 0.4


@pytest.mark.parametrize("make", [subset_scanning, without_gradient])
def test_attacks_that_follow_a_score_without_gradient_refuse_it(make: Callable[..., Any], digits: Dataset) -> None:
    model, part = network(10).eval(), digits.test.head(8)
    defended = DefendedClassifier(model, from_art(make(digits, model))).calibrate(digits.calibration.x[:60])
    assert not defended.detector.differentiable
    goal = Misclassified() & Undetected(defended.threshold)
    with pytest.raises(InputError, match="score of .* no gradient .* which selective follows; attack it with square-"):
        attacks.load("selective", eps=0.2, steps=2)(defended, part.x, part.y, goal)
    attacked = attacks.load("square-rejecting", eps=0.2, queries=3)(defended, part.x, part.y, goal)
    assert attacked.x.shape == part.x.shape


@pytest.mark.parametrize("name", MAKERS)
def test_calibrates_inspects_and_is_saved(name: str, digits: Dataset, tmp_path: Path) -> None:
    model, x = network(10), digits.test.x[ROWS]
    defended = DefendedClassifier(model, from_art(MAKERS[name](digits, model)))
    verdict = defended.calibrate(digits.calibration.x[:60], alpha=0.2).inspect(x)
    assert torch.equal(verdict.rejected, verdict.score > defended.threshold)
    path = defended.save(tmp_path / "defended.safetensors")

    other = network(10, seed=8)
    torch.manual_seed(9)
    blank = from_art(MAKERS[name](digits, other))
    scrambled(blank)
    again = DefendedClassifier.load(path, other, blank)
    torch.testing.assert_close(again.inspect(x).score, verdict.score)
    assert again.threshold == defended.threshold
    with pytest.raises(InputError, match="pass an instance of it"):
        DefendedClassifier.load(path, other)


def scrambled(detector: Detector) -> None:
    with torch.no_grad():
        for tensor in [*detector.parameters(), *detector.buffers()]:
            tensor.add_(0.1)


def test_weights_of_another_network_are_refused(digits: Dataset, tmp_path: Path) -> None:
    model = network(10)
    defended = DefendedClassifier(model, from_art(binary_input(digits, model))).calibrate(digits.calibration.x[:60])
    path = defended.save(tmp_path / "defended.safetensors")
    small = BinaryInputDetector(estimator(nn.Sequential(nn.Flatten(), nn.Linear(784, 2)), outputs=2))
    with pytest.raises(InputError, match=r"detector: the weights in .* do not fit art_binary_input"):
        DefendedClassifier.load(path, model, from_art(small))


def test_a_detector_that_is_fitted_again_must_be_calibrated_again(digits: Dataset) -> None:
    model = network(10)
    detector = binary_input(digits, model)
    defended = DefendedClassifier(model, from_art(detector)).calibrate(digits.calibration.x[:60])
    detector.fit(digits.train.x[:32].numpy(), np.arange(32) % 2, nb_epochs=1)
    with pytest.raises(InputError, match="weights have changed"):
        defended.inspect(digits.test.x[:2])


def test_what_art_runs_stays_in_its_precision(digits: Dataset) -> None:
    model = network(10).eval()
    adapted = from_art(subset_scanning(digits, network(10)))
    x = digits.test.x[ROWS]
    expected = DefendedClassifier(model, adapted).eval().score(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(adapted.score(Evidence(model, x)), expected)
    torch.testing.assert_close(DefendedClassifier(model, adapted).double().score(x.double()), expected.double())


def black_box() -> Any:
    return BlackBoxClassifier(lambda x: np.zeros((len(x), 2)), (1, 28, 28), 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: network(2),
            "art: got Sequential, must be ART's PyTorchClassifier, BinaryInputDetector, BinaryActivation",
        ),
        (
            lambda: BinaryInputDetector(black_box()),
            "BinaryInputDetector is over a BlackBoxClassifier, must be over",
        ),
    ],
)
def test_other_objects_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_art(make())


def test_a_network_with_another_number_of_outputs_is_refused(digits: Dataset) -> None:
    adapted = from_art(BinaryInputDetector(estimator(network(3), outputs=3)))
    with pytest.raises(InputError, match=r"art_binary_input gave outputs of shape \(60, 3\), must be \(60, 2\)"):
        DefendedClassifier(network(10), adapted).calibrate(digits.calibration.x[:60])
