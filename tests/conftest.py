"""Shared fixtures: the embedded digits and one briefly trained model, made once a session."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from robustrecon import DefendedClassifier, StyleMemoryNet, load_data, train
from robustrecon.data import Dataset
from robustrecon.training import RECIPES

BRIEF = replace(RECIPES["fast"], name="brief", epochs=14, least_steps=0)


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
