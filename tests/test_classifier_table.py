"""The whole way of a classifier from scikit-learn: fitted, grafted, calibrated, attacked, and in the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

from benchmarks import classifier_table
from benchmarks.classifier_table import Pair
from robustrecon import DefendedClassifier, benchmark, from_sklearn, graft
from robustrecon.data import Dataset

EPS = (0.05, 0.15)
N = 20


@pytest.fixture(scope="module")
def results(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells of an MLP alone and grafted, below `alone` and `grafted`."""
    folder = tmp_path_factory.mktemp("results")
    train, calibration = digits.train.head(600), digits.calibration.x[:150]
    estimator = MLPClassifier((32,), tol=1e-2, random_state=0).fit(train.x.flatten(1).numpy(), train.y.numpy())
    classifier = from_sklearn(estimator)
    grafted = graft(classifier, "robust/digits", image_shape=digits.image_shape)
    data = (digits.test.x[:N], digits.test.y[:N], calibration)
    # The attack that knows the detector is dear where there is a drawer.
    for name, model, detector, attacks in (
        ("alone", classifier, "logit_margin", ["pgd", "selective"]),
        ("grafted", grafted, "label_margin", ["pgd"]),
    ):
        defended = DefendedClassifier(model, detector).calibrate(calibration, alpha=0.05)
        benchmark(defended, data, attacks, EPS, n=N, out=folder / name, steps=8, progress=False)
    return folder


def images_of(results: Path, name: str) -> dict[tuple[str, float], dict[str, Any]]:
    """By attack and eps the images of a cell: whether the attack leaves them wrong, and whether they are at risk."""
    found = {}
    for path in (results / name).rglob("*.json"):
        cell = json.loads(path.read_text())
        if "spec" not in cell:
            continue
        threshold = cell["detection"]["threshold"]
        y, clean, attacked, clean_score, score = (
            np.array(cell["images"][key]) for key in ("y", "clean_label", "label", "clean_score", "score")
        )
        wrong = (clean != y) | (attacked != y)
        at_risk = (clean != y) | (clean_score > threshold) | ((attacked != y) & (score <= threshold))
        found[cell["spec"]["attack"], cell["spec"]["eps"]] = {"wrong": wrong, "at risk": at_risk}
    return found


def test_the_table_says_what_the_cells_say(results: Path) -> None:
    pairs = {"an MLP": Pair("alone", "grafted"), "another": Pair("nowhere", "nowhere")}
    lines = classifier_table.table(results, pairs).splitlines()
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in lines if line.startswith("| an MLP")]
    alone, grafted = images_of(results, "alone"), images_of(results, "grafted")
    assert [row[2] for row in rows] == ["0.05", "0.15"]
    for row, eps in zip(rows, EPS, strict=True):
        assert row[3].startswith(f"{100 * alone['pgd', eps]['wrong'].mean():.1f} % [")
        for column, found in ((4, alone), (6, grafted)):
            worst = np.any([images["at risk"] for (_, radius), images in found.items() if radius <= eps], axis=0)
            assert row[column].startswith(f"{100 * worst.mean():.1f} % [")
        assert row[7:] == [f"{N}, {N}", "1, 0 aware"]
        assert row[6].endswith("†")  # nothing that knows the detector was tried
    assert not [line for line in lines if "another" in line.split("|")[:2]]


def test_a_drawer_that_was_trained_for_nobody_helps(results: Path) -> None:
    """Against the same attack, which does not know the detector."""
    alone, grafted = (images_of(results, name)["pgd", 0.15] for name in ("alone", "grafted"))
    assert alone["wrong"].mean() > 0.8
    assert grafted["at risk"].mean() < alone["at risk"].mean() / 2


def test_a_classifier_that_is_half_measured_has_dashes(results: Path) -> None:
    table = classifier_table.table(results, {"an MLP": Pair("alone", "nowhere")})
    (row, _) = [line for line in table.splitlines() if line.startswith("| an MLP")]
    assert [part.strip() for part in row.strip("|").split("|")][5:] == ["–", "–", f"{N}, –", "–"]


def test_without_cells_the_table_says_so(tmp_path: Path) -> None:
    assert classifier_table.table(tmp_path).startswith("Not measured yet")
