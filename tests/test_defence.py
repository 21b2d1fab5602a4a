"""The defended classifier: what it says, what it accepts, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robustrecon import DefendedClassifier, InputError, StyleMemoryNet, Verdict
from robustrecon.data import Dataset
from robustrecon.types import check_images


class OwnModel(nn.Module):
    """A user's model with the least that can be defended; it knows no shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(12, 3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.dense(x.flatten(1)))

    def class_energies(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(x.flatten(1)).exp()


def test_verdict_and_predict_agree(defended: DefendedClassifier, digits: Dataset) -> None:
    x = digits.test.x
    verdict = defended.inspect(x)
    assert isinstance(verdict, Verdict)
    assert len(verdict) == len(x)
    assert verdict.label.dtype == torch.int64
    assert verdict.rejected.dtype == torch.bool
    assert torch.equal(verdict.rejected, verdict.score > defended.threshold)
    assert torch.equal(verdict.rejected, verdict.p_value <= 0.05)
    expected = torch.where(verdict.rejected, -1, verdict.label)
    assert torch.equal(defended.predict(x), expected)
    with torch.no_grad():
        assert torch.equal(defended(x).argmax(1), verdict.label)


def test_noise_is_rejected_and_digits_are_not(model: StyleMemoryNet, digits: Dataset) -> None:
    defended = DefendedClassifier(model, "global_error").calibrate(digits.calibration.x, alpha=0.05)
    noise = torch.rand(100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    assert defended.inspect(noise).rejected.all()
    assert defended.inspect(digits.test.x).rejected.double().mean() < 0.1


def test_logits_and_score_are_those_of_the_two_calls_for_any_model(model: StyleMemoryNet, digits: Dataset) -> None:
    """Also of one's own, which cannot share the work: there the labels to compare save nothing and change nothing."""
    own = OwnModel().eval()
    for network, x in ((model, digits.test.x[:6]), (own, torch.rand(6, 3, 2, 2))):
        defended = DefendedClassifier(network)
        energies = network.class_energies(x)
        order = energies.argsort(dim=1)
        logits, score = defended.logits_and_score(x, predicted=order[:, 1])
        torch.testing.assert_close(logits, network(x))
        torch.testing.assert_close(score, (energies.gather(1, order[:, 1:2]) - energies.gather(1, order[:, :1]))[:, 0])
        _, compared = defended.logits_and_score(x, predicted=order[:, 1], labels=order[:, :2])
        torch.testing.assert_close(compared, score, rtol=1e-4, atol=1e-4)


def test_numpy_arrays_are_accepted(defended: DefendedClassifier, digits: Dataset) -> None:
    x = digits.test.x[:9]
    for array in (x.numpy(), x.numpy().astype(np.float64)):
        torch.testing.assert_close(defended.inspect(array).score, defended.inspect(x).score)


def test_the_score_is_the_same_whatever_the_batch(defended: DefendedClassifier, digits: Dataset) -> None:
    x = digits.test.x
    alone = torch.cat([defended.inspect(x[i : i + 1]).score for i in range(5)])
    torch.testing.assert_close(defended.inspect(x).score[:5], alone, rtol=1e-4, atol=1e-4)


def test_any_model_with_the_two_methods(tmp_path: Path) -> None:
    torch.manual_seed(0)
    own = OwnModel()
    x = torch.rand(60, 3, 2, 2)
    defended = DefendedClassifier(own, lambda energies, logits: energies.amin(1)).calibrate(x, 0.1)
    assert own.training
    assert own.dropout.training
    assert torch.equal(defended.predict(x), defended.predict(x)), "dropout was left on"
    with pytest.raises(InputError, match="detector: unknown name"):
        defended.save(tmp_path / "d.safetensors")

    def label_margin(energies: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return -energies.amin(1)

    with pytest.raises(InputError, match="'label_margin' is a function of your own"):
        DefendedClassifier(own, label_margin).calibrate(x, 0.1).save(tmp_path / "d.safetensors")

    defended = DefendedClassifier(own, "label_margin").calibrate(x, 0.1)
    path = defended.save(tmp_path / "d.safetensors")
    with pytest.raises(InputError, match="model of your own class; pass an instance"):
        DefendedClassifier.load(path)
    torch.manual_seed(1)
    again = DefendedClassifier.load(path, model=OwnModel())
    assert torch.equal(again.predict(x), defended.predict(x))
    with pytest.raises(InputError, match="do not fit Linear"):
        DefendedClassifier.load(path, model=_with_energies(nn.Linear(2, 2)))


def _with_energies(module: nn.Module) -> nn.Module:
    module.class_energies = module.forward  # type: ignore[assignment]
    return module


def test_a_score_that_is_not_a_number_is_rejected(digits: Dataset, model: StyleMemoryNet) -> None:
    score = iter([torch.arange(300.0), torch.full((5,), torch.nan)])
    defended = DefendedClassifier(model, lambda energies, logits: next(score)).calibrate(digits.calibration.x)
    assert defended.inspect(digits.test.x[:5]).rejected.all()


def test_before_calibrating(model: StyleMemoryNet, digits: Dataset, tmp_path: Path) -> None:
    defended = DefendedClassifier(model)
    for use in (defended.predict, defended.inspect):
        with pytest.raises(InputError, match="not calibrated; call calibrate"):
            use(digits.test.x)
    with pytest.raises(InputError, match="not calibrated"):
        defended.save(tmp_path / "d.safetensors")
    assert "not calibrated" in repr(defended)


def test_too_few_images_says_how_many_are_needed(model: StyleMemoryNet, digits: Dataset) -> None:
    with pytest.raises(InputError, match=r"x: 98 images, must be at least 99 .* alpha=0\.01"):
        DefendedClassifier(model).calibrate(digits.calibration.x[:98], alpha=0.01)
    DefendedClassifier(model).calibrate(digits.calibration.x[:99], alpha=0.01)


@pytest.mark.parametrize("alpha", [0, 1, -1.0, 1.5, float("nan"), "0.05"])
def test_bad_alpha(model: StyleMemoryNet, digits: Dataset, alpha: float) -> None:
    with pytest.raises(InputError, match="alpha: got"):
        DefendedClassifier(model).calibrate(digits.calibration.x, alpha=alpha)


def test_unknown_detector_suggests_the_nearest(model: StyleMemoryNet) -> None:
    with pytest.raises(InputError, match=r"detector: unknown name 'label_margn'; did you mean 'label_margin'\?"):
        DefendedClassifier(model, "label_margn")


def test_energies_and_scores_of_the_wrong_shape(model: StyleMemoryNet, digits: Dataset) -> None:
    x = digits.calibration.x
    with pytest.raises(InputError, match=r"detector: gave scores of shape \(\), must be"):
        DefendedClassifier(model, lambda energies, logits: energies.sum()).calibrate(x)
    own = OwnModel()
    own.class_energies = lambda images: images.flatten(1)[:, :2]  # type: ignore[method-assign]
    with pytest.raises(InputError, match="class_energies gave .* must be the logits'"):
        DefendedClassifier(own).calibrate(torch.rand(60, 3, 2, 2))
    with pytest.raises(InputError, match="detector: got 3, must be"):
        DefendedClassifier(model, 3)  # type: ignore[arg-type]


def test_numpy_numbers_are_numbers(model: StyleMemoryNet, digits: Dataset) -> None:
    DefendedClassifier(model).calibrate(digits.calibration.x, alpha=np.float32(0.05))


def test_a_model_without_energies() -> None:
    with pytest.raises(InputError, match="model: got Linear, must be"):
        DefendedClassifier(nn.Linear(2, 2))


def test_a_bare_model_is_not_a_defended_classifier(model_dir: Path) -> None:
    with pytest.raises(InputError, match="is a model without a calibrated detector"):
        DefendedClassifier.load(model_dir)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((2, 1, 28, 28), 1.5), r"x: values span \[1\.5, 1\.5\], must be in \[0, 1\]"),
        (torch.full((2, 1, 28, 28), -0.1), r"must be in \[0, 1\]"),
        (torch.full((2, 1, 28, 28), torch.nan), "x: has values that are not finite"),
        (torch.full((2, 1, 28, 28), torch.inf), "x: has values that are not finite"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), r"x: dtype is torch\.uint8, must be floating point"),
        (torch.zeros(0, 1, 28, 28), "must hold at least one image"),
        (torch.zeros(1, 28, 28), r"x: shape is \(1, 28, 28\), must be \(B, 1, 28, 28\)"),
        (torch.zeros(2, 3, 28, 28), r"x: shape is \(2, 3, 28, 28\), must be \(B, 1, 28, 28\)"),
        ("picture.png", "x: "),
        ([object], "x: got list, must be a tensor or an array"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(getattr(value, "shape", value)),
)
def test_bad_images(defended: DefendedClassifier, x: object, message: str) -> None:
    for use in (defended.predict, defended.inspect, defended.calibrate):
        with pytest.raises(InputError, match=message):
            use(x)  # type: ignore[operator]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 4), min_size=0, max_size=5).map(tuple),
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.uint8, np.int64, np.bool_, np.complex64]),
    value=st.sampled_from([0.0, 1.0, 0.5, -0.01, 1.01, np.nan, np.inf]),
)
def test_check_images_accepts_images_and_nothing_else(shape: tuple[int, ...], dtype: type, value: float) -> None:
    with np.errstate(invalid="ignore"):
        x = np.full(shape, value).astype(dtype)
    valid = len(shape) == 4 and 0 not in shape and x.dtype.kind == "f" and np.isfinite(value) and 0 <= value <= 1
    if valid:
        assert check_images(x).dtype == torch.float32
    else:
        with pytest.raises(InputError, match="^x: "):
            check_images(x)


def test_check_images_keeps_the_gradient() -> None:
    x = torch.rand(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    check_images(x).sum().backward()
    assert x.grad is not None
