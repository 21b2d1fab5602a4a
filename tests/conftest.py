"""Shared fixtures: the embedded digits and one briefly trained model, made once a session."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from robustrecon import DefendedClassifier, StyleMemoryNet, load_data, train
from robustrecon.data import Dataset
from robustrecon.models import stored_scores
from robustrecon.training import RECIPES

BRIEF = replace(RECIPES["fast"], name="brief", epochs=14, least_steps=0)


WRITE_SCORES = stored_scores.write


@pytest.fixture(autouse=True)
def no_stored_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's brief training takes less time than the calibration scores at its end, which few tests look at."""
    monkeypatch.setattr(stored_scores, "write", lambda file, model, data: Path(file))


@pytest.fixture
def scores_are_stored(no_stored_scores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training in this test writes calibration scores, as it does for a user."""
    monkeypatch.setattr(stored_scores, "write", WRITE_SCORES)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_data("digits")


@pytest.fixture(scope="session")
def model_dir(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that was trained on the digits for a few seconds."""
    folder = tmp_path_factory.mktemp("runs") / "brief"
    train(digits, folder, BRIEF, progress=False)
    return folder


@pytest.fixture
def model(model_dir: Path) -> StyleMemoryNet:
    from robustrecon import load

    loaded = load(model_dir)
    assert isinstance(loaded, StyleMemoryNet)
    return loaded


@pytest.fixture
def defended(model: StyleMemoryNet, digits: Dataset) -> DefendedClassifier:
    return DefendedClassifier(model).calibrate(digits.calibration.x, alpha=0.05)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real MNIST and EMNIST letters, from DATA_DIR or beside the checkout; tests that need them skip without."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DATA_DIR", beside))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip("needs MNIST: set DATA_DIR to a folder in torchvision's layout")
    return folder
