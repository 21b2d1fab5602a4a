"""Estimators for scikit-learn: its own checks, its tools around them, and agreement with the defended classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from robustrecon import DefendedClassifier, InputError, from_sklearn
from robustrecon.interop.sklearn import DefendedClassifierEstimator, ReconstructionDetector
from robustrecon.training import Recipe

ROWS, LABELS = load_digits(return_X_y=True)  # (1797, 64), values from 0 to 16
TRAIN, NEW, TEST = slice(0, 600), slice(600, 1200), slice(1200, None)
NETWORK = from_sklearn(LogisticRegression(max_iter=100, tol=1e-2).fit(ROWS[TRAIN] / 16, LABELS[TRAIN]))
BRIEF = Recipe(
    "brief",
    epochs=1,
    batch_size=32,
    learning_rate=1e-2,
    schedule="one-cycle",
    least_steps=4,
    model="class-conditioned",
    model_options={"width": 4},
)
LONGER = replace(BRIEF, least_steps=60)
LEARNS = ("check_classifiers_train", "check_classifiers_classes")  # which ask for few errors

# With so large an alpha one image is enough to calibrate on: some checks have no more than a few.
CHECKED = [
    DefendedClassifierEstimator(recipe=BRIEF, alpha=0.5, reject_label=None),
    ReconstructionDetector(recipe=BRIEF, alpha=0.5),
]
EXCUSED = {
    "check_methods_subset_invariance": "in float32 a network's outputs depend, by rounding, on the size of the batch; "
    "the check asks for 1e-7"
}


@pytest.mark.slow
@parametrize_with_checks(
    CHECKED, expected_failed_checks=lambda estimator: EXCUSED if isinstance(estimator, ReconstructionDetector) else {}
)
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    if check.func.__name__ in LEARNS:
        estimator.set_params(recipe=LONGER)
    check(estimator)


@pytest.fixture(scope="module")
def trained() -> DefendedClassifierEstimator:
    recipe = replace(LONGER, batch_size=64, least_steps=120)
    return DefendedClassifierEstimator(recipe=recipe, random_state=0).fit(ROWS[:1200], LABELS[:1200])


def test_it_trains_on_rows_of_any_range_and_rejects_as_many_as_alpha_says(trained: DefendedClassifierEstimator) -> None:
    assert (trained.image_shape_, trained.pixel_range_, trained.n_features_in_) == ((1, 8, 8), (0, 16), 64)
    rejected = trained.predict(ROWS[TEST]) == -1
    assert 0.005 < rejected.mean() < 0.12  # 0.05, give or take what 240 calibration images and 597 others allow
    accepted = trained.predict(ROWS[TEST])[~rejected]
    assert (accepted == LABELS[TEST][~rejected]).mean() > 0.85
    assert trained.score(ROWS[TEST], LABELS[TEST]) < (accepted == LABELS[TEST][~rejected]).mean()
    noise = np.random.default_rng(0).integers(0, 17, (200, 64))
    assert (trained.predict(noise) == -1).mean() > 0.5


def test_the_calibration_part_is_kept_from_training(trained: DefendedClassifierEstimator) -> None:
    calibration = trained.defended_.calibration
    assert calibration is not None
    assert len(calibration.scores) == 240
    images = torch.tensor(ROWS[:1200].reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
    with pytest.raises(InputError, match="are among those that the model was trained on"):
        trained.defended_.calibrate(images)


def test_values_beyond_those_of_the_training_are_clipped(trained: DefendedClassifierEstimator) -> None:
    brighter = np.where(ROWS[TEST] == 16, 40, ROWS[TEST])
    np.testing.assert_array_equal(trained.predict(brighter), trained.predict(ROWS[TEST]))


def test_images_and_rows_are_the_same(trained: DefendedClassifierEstimator) -> None:
    for shape in ((8, 8), (1, 8, 8)):
        images = ROWS[TEST].reshape(-1, *shape)
        np.testing.assert_array_equal(trained.predict(images), trained.predict(ROWS[TEST]))
    tensor = torch.tensor(ROWS[TEST].reshape(-1, 1, 8, 8))
    np.testing.assert_array_equal(trained.predict(tensor), trained.predict(ROWS[TEST]))
    np.testing.assert_array_equal(trained.predict(ROWS[TEST].tolist()), trained.predict(ROWS[TEST]))


def test_probabilities_are_those_of_the_classifier(trained: DefendedClassifierEstimator) -> None:
    found = trained.predict_proba(ROWS[TEST])
    x = torch.tensor(ROWS[TEST].reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
    np.testing.assert_allclose(found, trained.defended_(x).softmax(1).detach(), atol=1e-6)
    assert roc_auc_score(LABELS[TEST], found, multi_class="ovr") > 0.95


WRAPPED = {
    "module": NETWORK,
    "defended classifier": DefendedClassifier(NETWORK, "msp"),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_trained_network_is_calibrated_on_all_rows(name: str) -> None:
    detector = "msp" if name == "module" else None
    estimator = DefendedClassifierEstimator(WRAPPED[name], detector, image_shape=(1, 8, 8), pixel_range=(0, 16))
    estimator.fit(ROWS[NEW], LABELS[NEW])
    images = [torch.tensor(ROWS[part].reshape(-1, 1, 8, 8) / 16, dtype=torch.float32) for part in (NEW, TEST)]
    defended = DefendedClassifier(NETWORK, "msp").calibrate(images[0], alpha=0.05)
    np.testing.assert_array_equal(estimator.predict(ROWS[TEST]), defended.predict(images[1]))
    assert torch.equal(estimator.inspect(ROWS[TEST]).p_value, defended.inspect(images[1]).p_value)
    outliers = ReconstructionDetector(WRAPPED[name], detector, image_shape=(1, 8, 8), pixel_range=(0, 16))
    outliers.fit(ROWS[NEW])
    np.testing.assert_array_equal(outliers.predict(ROWS[TEST]) == -1, estimator.predict(ROWS[TEST]) == -1)
    assert outliers.offset_ == -defended.threshold
    np.testing.assert_array_equal(outliers.decision_function(ROWS[TEST]) < 0, outliers.predict(ROWS[TEST]) == -1)


def test_a_shipped_network_and_a_saved_one_by_name(tmp_path: Path) -> None:
    enlarged = np.repeat(np.repeat(ROWS[:150].reshape(-1, 8, 8), 3, 1), 3, 2) / 16
    images = np.pad(enlarged, ((0, 0), (2, 2), (2, 2))).astype(np.float32)
    shipped = DefendedClassifierEstimator("robust/mnist", alpha=0.1).fit(images[:100], LABELS[:100])
    assert shipped.image_shape_ == (1, 28, 28)
    file = shipped.defended_.save(tmp_path / "defended.safetensors")
    again = DefendedClassifierEstimator(str(file), alpha=0.1).fit(images[:100], LABELS[:100])
    np.testing.assert_array_equal(again.predict(images[100:]), shipped.predict(images[100:]))


def test_detectors_that_learn_do_so_on_other_rows_than_those_calibrated_on() -> None:
    settings = {"image_shape": (1, 8, 8), "pixel_range": (0, 16), "random_state": 0}
    estimator = DefendedClassifierEstimator(NETWORK, "knn", calibration_size=0.5, **settings)
    estimator.fit(ROWS[NEW], LABELS[NEW])
    assert estimator.defended_.calibration is not None
    assert len(estimator.defended_.calibration.scores) == 300
    assert isinstance(estimator.detector, str)
    noise = np.random.default_rng(0).integers(0, 17, (200, 64))
    rates = [(estimator.predict(rows) == -1).mean() for rows in (ROWS[TEST], noise)]
    assert rates[0] < 0.15 < rates[1]
    with pytest.raises(InputError, match="y: got None, must be the labels"):
        ReconstructionDetector(NETWORK, "knn", **settings).fit(ROWS[NEW])


def test_labels_may_be_text() -> None:
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    settings = {"detector": "msp", "image_shape": (1, 8, 8), "pixel_range": (0, 16)}
    numbers = DefendedClassifierEstimator(NETWORK, **settings).fit(ROWS[NEW], LABELS[NEW])
    text = DefendedClassifierEstimator(NETWORK, classes=names, reject_label="rejected", **settings)
    found = text.fit(ROWS[NEW], names[LABELS[NEW]]).predict(ROWS[TEST])
    expected = numbers.predict(ROWS[TEST])
    np.testing.assert_array_equal(found, np.where(expected == -1, "rejected", names[expected]))
    assert list(text.classes_) == sorted(names)
    best = text.classes_[text.predict_proba(ROWS[TEST]).argmax(1)]
    np.testing.assert_array_equal(best[expected != -1], found[expected != -1])


def test_pipelines_grids_and_cross_validation() -> None:
    """A search over alpha finds that rejecting fewer clean images makes fewer errors."""
    pipeline = make_pipeline(
        FunctionTransformer(lambda rows: rows / 16),
        DefendedClassifierEstimator(NETWORK, "msp", image_shape=(1, 8, 8), random_state=0),
    )
    grid = GridSearchCV(
        pipeline,
        {"defendedclassifierestimator__alpha": [0.05, 0.3], "defendedclassifierestimator__detector": ["msp", "energy"]},
        cv=3,
    )
    grid.fit(ROWS[NEW], LABELS[NEW])
    assert grid.best_params_["defendedclassifierestimator__alpha"] == 0.05
    means = grid.cv_results_["mean_test_score"]
    assert max(means[2:]) < 0.8 < min(means[:2])
    scores = cross_val_score(grid.best_estimator_, ROWS[TEST], LABELS[TEST], cv=3)
    assert scores.mean() > 0.8
    outliers = make_pipeline(StandardScaler(), ReconstructionDetector(recipe=BRIEF, random_state=0, n_clusters=3))
    found = cross_val_predict(outliers, ROWS[NEW], cv=2)
    assert set(found) == {-1, 1}


def test_clones_are_unfitted_and_share_no_detector() -> None:
    estimator = DefendedClassifierEstimator(NETWORK, "knn", alpha=0.1, image_shape=(1, 8, 8), pixel_range=(0, 16))
    estimator.fit(ROWS[NEW], LABELS[NEW])
    copied = clone(estimator)
    assert copied.alpha == 0.1
    with pytest.raises(NotFittedError):
        copied.predict(ROWS[:2])


def test_joblib_writes_and_reads_it(trained: DefendedClassifierEstimator, tmp_path: Path) -> None:
    joblib.dump(trained, tmp_path / "estimator.joblib")
    again = joblib.load(tmp_path / "estimator.joblib")
    np.testing.assert_array_equal(again.predict(ROWS[TEST]), trained.predict(ROWS[TEST]))


@pytest.mark.slow
def test_processes_of_joblib_fit_it() -> None:
    estimator = DefendedClassifierEstimator(recipe=BRIEF, random_state=0)
    alone = cross_val_score(estimator, ROWS, LABELS, cv=2)
    np.testing.assert_allclose(cross_val_score(estimator, ROWS, LABELS, cv=2, n_jobs=2), alone)


def test_with_a_seed_it_is_the_same_again() -> None:
    fitted = [ReconstructionDetector(recipe=BRIEF, random_state=seed).fit(ROWS[NEW]) for seed in (3, 3, 4)]
    scores = [one.score_samples(ROWS[TEST]) for one in fitted]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


WITH_NAN = np.where(np.arange(64) == 5, np.nan, ROWS[NEW])
BAD: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "X: shape is (600, 1, 1, 8, 8), must be (n, C, H, W)": ({}, ROWS[NEW].reshape(-1, 1, 1, 8, 8), LABELS[NEW]),
    "X: has rows of 63 pixels, must be 64, those of (1, 8, 8)": ({}, ROWS[NEW][:, 1:], LABELS[NEW]),
    "X: has images of shape (1, 4, 16), must be (1, 8, 8)": ({}, ROWS[NEW].reshape(-1, 4, 16), LABELS[NEW]),
    "Input X contains NaN": ({}, WITH_NAN, LABELS[NEW]),
    "X: values span [0, 16], must be in [0, 1]; pixel_range says": ({"pixel_range": None}, ROWS[NEW], LABELS[NEW]),
    "pixel_range: got (1, 0), must be (black, white)": ({"pixel_range": (1, 0)}, ROWS[NEW], LABELS[NEW]),
    "image_shape: got (8, 8), must be (C, H, W)": ({"image_shape": (8, 8)}, ROWS[NEW], LABELS[NEW]),
    "X: 10 of 10 rows are there to calibrate on, must be at least 19": ({}, ROWS[:10], LABELS[:10]),
    "y: has the label 10, must be of the model's, [0, 1,": ({}, ROWS[NEW], LABELS[NEW] + 3),
    "y: has the label 'five', must be of the model's, [0, 1,": ({}, ROWS[NEW], np.full(600, "five")),
    "classes: got ['a', 'b'], must be 10 different labels": ({"classes": ["a", "b"]}, ROWS[NEW], LABELS[NEW]),
    "reject_label: got 'no', must be a number": ({"reject_label": "no"}, ROWS[NEW], LABELS[NEW]),
    "reject_label: got 3, must not be a class": ({"reject_label": 3}, ROWS[NEW], LABELS[NEW]),
    "alpha: got 1.5, must be in (0, 1)": ({"alpha": 1.5}, ROWS[NEW], LABELS[NEW]),
    "calibration_size: got 0, must be": ({"calibration_size": 0}, ROWS[NEW], LABELS[NEW]),
    "model: got int, must be a torch.nn.Module": ({"model": 3}, ROWS[NEW], LABELS[NEW]),
    "recipe: got int, must be a Recipe": ({"model": None, "recipe": 3}, ROWS[NEW], LABELS[NEW]),
    "recipe: unknown name 'fsat'; did you mean 'fast'": ({"model": None, "recipe": "fsat"}, ROWS[NEW], LABELS[NEW]),
    "y: has 1 class, [1], must have at least 2 classes": ({"model": None}, ROWS[NEW], np.ones(600, dtype=int)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_clear_line(message: str) -> None:
    changed, x, y = BAD[message]
    settings = {"model": NETWORK, "detector": "msp", "image_shape": (1, 8, 8), "pixel_range": (0, 16), **changed}
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - InputError, or scikit-learn's own
        DefendedClassifierEstimator(**settings).fit(x, y)
    assert message in str(caught.value)


def test_bad_input_after_fit() -> None:
    fitted = DefendedClassifierEstimator(NETWORK, "msp", image_shape=(1, 8, 8), pixel_range=(0, 16))
    fitted.fit(ROWS[NEW], LABELS[NEW])
    with pytest.raises(ValueError, match="X has 63 features, but DefendedClassifierEstimator is expecting 64 features"):
        fitted.predict(ROWS[:5, 1:])
    with pytest.raises(ValueError, match="Input X contains NaN"):
        fitted.predict(WITH_NAN[:5])
    with pytest.raises(InputError, match=r"X: has images of shape \(1, 16, 4\), must be \(1, 8, 8\), as in fit"):
        fitted.predict_proba(ROWS[:5].reshape(-1, 16, 4))
    with pytest.raises(InputError, match=r"X: values span \[0, 32\]"):
        fitted.predict(2 * ROWS[:5])
