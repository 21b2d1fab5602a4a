"""One call: any model and any data; what is printed, saved and read back; bad input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from robustrecon import BenchmarkResult, DefendedClassifier, InputError, benchmark, load_results
from robustrecon.bench.key import radius
from robustrecon.bench.report.text import aligned
from robustrecon.data import Dataset
from robustrecon.detectors import Evidence

N = 20


def plain() -> nn.Module:
    """A classifier with logits alone: the nearest of ten random images."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(10, 784, generator=torch.Generator().manual_seed(0)))
    return net


@pytest.fixture(scope="module")
def given(digits: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Images with the labels that `plain` gives them, and others for the calibration."""
    x = digits.test.x[:N]
    with torch.no_grad():
        return x, plain()(x).argmax(1), digits.calibration.x[:60]


def call(model: Any, data: Any, **more: Any) -> BenchmarkResult:
    return benchmark(model, data, **{"eps": [8 / 255], "steps": 2, "n": N, "progress": False, **more})


@pytest.fixture(scope="module")
def result(given: tuple[Tensor, Tensor, Tensor]) -> BenchmarkResult:
    return call(plain(), given, eps=[0.1, 8 / 255])


def test_a_plain_module_on_tensors(result: BenchmarkResult) -> None:
    assert [(cell.key.attack, cell.key.eps) for cell in result.cells] == [
        (attack, eps) for attack in ("pgd", "selective") for eps in (0.1, 8 / 255)
    ]
    assert set(result.frame["detector"]) == {"msp"}
    assert (result.frame["clean_accuracy"] == 1).all()
    worst = {entry.eps: entry for entry in result.worst_case}
    assert {count.attack.split("-")[0] for count in worst[0.1].attacks} == {"pgd", "selective"}
    assert worst[0.1].robust_risk >= result.frame["robust_risk"].max()
    assert result.classes == tuple("0123456789")


def test_it_prints_as_a_table(result: BenchmarkResult) -> None:
    printed = str(result)
    assert max(map(len, printed.splitlines())) <= 100
    assert "own-data, Sequential: linf, the first 20 test images" in printed
    assert "8/255" in printed
    assert "Worst case of each image" in printed
    assert "| pgd-2" in result._repr_markdown_()
    assert "linf 8/255" in result._repr_markdown_()


def test_what_is_saved_is_what_out_writes(
    result: BenchmarkResult, given: tuple[Tensor, Tensor, Tensor], tmp_path: Path
) -> None:
    result.save(tmp_path / "saved")
    call(plain(), given, eps=[0.1, 8 / 255], out=tmp_path / "out")
    saved, written = (
        {path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*.*")} for name in ("saved", "out")
    )
    assert saved == written
    assert {path.suffix for path in saved} == {".json", ".npz"}
    assert load_results(tmp_path / "saved")["robust_risk"].tolist() == pytest.approx(
        load_results(tmp_path / "out")["robust_risk"].tolist()
    )


def test_nothing_is_written_without_out(
    given: tuple[Tensor, Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    call(plain(), given, attacks="pgd")
    assert list(tmp_path.rglob("*")) == [tmp_path / "temporary"]


def test_alpha_may_bound_the_rate_among_what_is_labelled_right(given: tuple[Tensor, Tensor, Tensor]) -> None:
    x, y, calibration = given
    logits = plain()(calibration)
    labels = logits.argmax(1)
    unsure = logits.softmax(1).amax(1).argsort()[:30]
    labels[unsure] = (labels[unsure] + 1) % 10  # wrong, so that a threshold is of the others alone
    sure = calibration[logits.argmax(1) == labels]
    own = (TensorDataset(x, y), TensorDataset(calibration, labels))
    (everything,), (correct,) = (
        call(plain(), own, attacks="pgd", alpha=0.1, correct_only=correct_only).cells for correct_only in (False, True)
    )
    right = DefendedClassifier(plain(), "msp").calibrate(sure, alpha=0.1)
    assert correct.metrics.threshold == pytest.approx(right.threshold)
    assert everything.metrics.threshold > correct.metrics.threshold
    assert [cell.key.false_alarms for cell in (everything, correct)] == ["0.1", "0.1 of the images labelled right"]
    assert "correct_only" not in everything.key.to_json()
    assert type(correct.key).from_json(correct.key.to_json()) == correct.key
    with pytest.raises(InputError, match="correct_only: needs the labels of the calibration images"):
        call(plain(), given, attacks="pgd", correct_only=True)


def test_a_defended_classifier_brings_its_detector_alpha_and_classes(given: tuple[Tensor, Tensor, Tensor]) -> None:
    def sure(evidence: Evidence) -> Tensor:
        return -evidence.logits.amax(1)

    defended = DefendedClassifier(plain(), sure).calibrate(given[2], alpha=0.1)
    defended.classes = list("abcdefghij")
    threshold = defended.threshold
    result = call(defended, given, attacks="selective")
    (cell,) = result.cells
    assert (cell.key.detector, cell.key.alpha, result.classes) == ("sure", 0.1, tuple("abcdefghij"))
    assert defended.threshold == threshold
    assert [cell.key.detector for cell in call(defended, given, attacks="pgd", detectors="energy").cells] == ["energy"]


def test_loaders_and_arrays_stand_for_tensors(given: tuple[Tensor, Tensor, Tensor]) -> None:
    x, y, calibration = given
    loaders = (
        DataLoader(TensorDataset(x, y), 7),
        DataLoader(TensorDataset(calibration, torch.zeros(len(calibration)).long()), 32),
    )
    same = [given, loaders, (loaders[0], None, loaders[1]), (x.numpy(), y.numpy(), calibration.numpy())]
    first, *others = (call(plain(), data, attacks="pgd").cells[0].metrics for data in same)
    assert all(other == first for other in others)


def test_a_named_model_and_a_data_set(model_dir: Path, digits: Dataset, given: tuple[Tensor, Tensor, Tensor]) -> None:
    (cell, _) = call(model_dir, replace(digits), attacks="pgd", eps=0).cells
    assert (cell.key.data, cell.key.detector) == ("digits", "label_margin")
    own = (digits.test.x, digits.test.y, digits.calibration.x)
    assert call(model_dir, own, attacks="pgd", eps=0).cells[0].metrics == cell.metrics
    saved = DefendedClassifier(plain(), "msp").calibrate(given[2])
    with pytest.raises(InputError, match="holds a model of your own class"):
        call(saved.save(model_dir.parent / "own.safetensors"), given)


def test_a_failed_cell_is_said(given: tuple[Tensor, Tensor, Tensor]) -> None:
    result = call(plain(), given, attacks=["pgd"], detectors=[lambda evidence: evidence.logits])
    assert "FAILED" in str(result)
    assert result.frame.empty


BAD: list[tuple[Callable[..., Any], str]] = [
    (lambda x, y, c: (x,), r"data: got tuple of 1, must be a data set, its name, or \(x_test, y_test, x_calibration\)"),
    (lambda x, y, c: (x, y[:5], c), "y_test: got .*must be 20 labels"),
    (lambda x, y, c: (x, y + 10, c), r"labels span \[.*, must be in \[0, 9\]"),
    (lambda x, y, c: (x, None, c), "y_test: got none"),
    (lambda x, y, c: (x[0], y, c), "x_test: shape is"),
    (lambda x, y, c: (x * 255, y, c), "x_test: values span"),
    (lambda x, y, c: (x, y, c[..., :20]), "x_calibration: shape is"),
    (lambda x, y, c: (x[..., :20], y, c[..., :20]), r"does not take images of shape \(1, 28, 20\)"),
    (lambda x, y, c: (x, y, c[:3]), "needs 19 calibration images, own-data has 3"),
    (lambda x, y, c: None, "data: got None"),
    (lambda x, y, c: {"x": x}, "data: got dict"),
    (lambda x, y, c: "mnits", "data: unknown name 'mnits'; did you mean 'mnist'"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_data_is_one_clear_error(
    given: tuple[Tensor, Tensor, Tensor], bad: Callable[..., Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call(plain(), bad(*given))


def test_bad_models_and_arguments(given: tuple[Tensor, Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=r"model: got function, must be a torch\.nn\.Module"):
        call(plain, given)
    with pytest.raises(InputError, match="classes: got 2 names, must be 10"):
        call(plain(), given, classes=["a", "b"])
    with pytest.raises(InputError, match="detector: got label_margin, which needs class_energies"):
        call(plain(), given, detectors=["label_margin"])
    with pytest.raises(InputError, match="detectors: got two called msp"):
        call(plain(), given, detectors=["msp", DefendedClassifier(plain(), "msp").detector])


@pytest.mark.parametrize(
    ("eps", "text"),
    [(8 / 255, "8/255"), (0.1, "0.1"), (0.2, "0.2"), (0.03137, "0.03137"), (1.0, "1"), (0.0, "0"), (2.5, "2.5")],
)
def test_radii_are_printed_as_people_write_them(eps: float, text: str) -> None:
    assert radius(eps) == text


def test_a_wide_table_goes_on_in_the_next_line() -> None:
    lines = aligned([["attack", "risk"], ["a long name " * 4, "1.0"]], width=30).splitlines()
    assert max(map(len, lines)) <= 30
    assert len(lines) == 4
    assert lines[2].endswith("1.0")
