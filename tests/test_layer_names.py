"""A detector of another layer by its name: on the command line, in suites, keys and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustrecon import DefendedClassifier, InputError, StyleMemoryNet, benchmark
from robustrecon.bench.suite.read import read_suite
from robustrecon.data import Dataset
from robustrecon.defence import fitting
from robustrecon.detectors import DETECTORS, check_name, describe, listing, load_detector, parts
from robustrecon.detectors.catalogue import ON_A_LAYER
from robustrecon.detectors.features import FeatureDetector


def test_the_names_are_those_of_detectors_that_take_a_layer() -> None:
    assert {name for name, known in DETECTORS.items() if issubclass(known, FeatureDetector)} == set(ON_A_LAYER)
    assert describe("knn(conv2)")["formula"] == describe("knn")["formula"]
    assert f"NAME(LAYER), of {', '.join(ON_A_LAYER)}" in listing()


@pytest.mark.parametrize("name", ON_A_LAYER)
def test_a_name_with_a_layer_makes_the_detector_of_that_layer(name: str) -> None:
    detector = load_detector(f" {name}(blocks1.0.conv2) ")
    assert type(detector) is DETECTORS[name]
    assert (detector.name, detector.layer) == (f"{name}(blocks1.0.conv2)", "blocks1.0.conv2")
    assert load_detector(name).layer is None


def test_several_of_which_some_name_a_layer() -> None:
    name = "any_of(3*knn(conv2),knn,msp)"
    assert load_detector(name).name == name
    assert [part.name for part in parts(load_detector(name))] == ["knn(conv2)", "knn", "msp"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("msp(conv2)", r"detector: got msp\(conv2\), must be msp alone, or with a layer: mahalanobis\(LAYER\), "),
        ("lid(conv2)", r"detector: got lid\(conv2\), must be lid alone"),
        ("knn()", r"detector: got knn\(\), must be knn alone"),
        ("any_of(msp,energy(head))", r"detector: got energy\(head\), must be energy alone"),
        ("knm(conv2)", "detector: unknown name 'knm'; did you mean 'knn'"),
        ("knn(conv2", r"detector: unknown name 'knn\(conv2'; did you mean 'knn'"),
    ],
)
def test_a_wrong_name_is_told_before_there_is_a_model(name: str, message: str) -> None:
    for check in (check_name, load_detector):
        with pytest.raises(InputError, match=message):
            check(name)


@pytest.mark.parametrize("name", ["knn(cnov2)", "any_of(msp,vim(cnov2))"])
def test_a_wrong_layer_is_one_line_with_the_nearest_names(name: str) -> None:
    with pytest.raises(InputError, match="layer: unknown name 'cnov2'; did you mean 'conv2'") as error:
        DefendedClassifier(StyleMemoryNet(), name)
    assert "StyleMemoryNet has among others conv2, " in str(error.value)
    assert len(str(error.value)) < 150


def test_the_layer_is_in_keys_and_files(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "FITTED_ON", 200)
    names = ["knn", "knn(conv1)"]
    model = StyleMemoryNet()
    result = benchmark(model, digits, "fgsm", eps=0.1, detectors=names, n=10, out=tmp_path, progress=False)
    assert [cell.key.detector for cell in result.cells] == names
    assert [path.parent.name for path in sorted(tmp_path.rglob("fgsm*.json"))] == ["knn", "knn-conv1"]
    plain, layered = result.frame["threshold"]
    assert plain != layered
    again = benchmark(
        DefendedClassifier(model, "knn(conv1)"), digits, "fgsm", eps=0.1, n=10, out=tmp_path, progress=False
    )
    assert again.cells == result.cells[1:], "stored under the name"


def test_a_suite_names_it(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    text = '[[model]]\nname = "robust/digits"\ndetectors = "knn(conv2)"\n[[attack]]\nname = "pgd"\neps = 0.1\n'
    path.write_text(text)
    assert read_suite(path).models[0].detectors == ("knn(conv2)",)
    path.write_text(text.replace("knn", "msp"))
    with pytest.raises(InputError, match=r"model 1: detector: got msp\(conv2\), must be msp alone"):
        read_suite(path)
