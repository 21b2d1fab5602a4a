"""scikit-learn classifiers as modules: the same labels and probabilities, gradients, and what is refused."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

from robustrecon import DefendedClassifier, InputError, Normalized, benchmark, from_sklearn, graft
from robustrecon.bench import CellResult, measure
from robustrecon.data import Dataset

ROWS, LABELS = load_digits(return_X_y=True)
ROWS = ROWS / 16
FITTED = slice(0, 600)


def mlp(activation: str) -> MLPClassifier:
    return MLPClassifier((12, 8), activation=activation, max_iter=4, random_state=0)


ESTIMATORS = {
    "logistic": LogisticRegression(max_iter=30),
    "logistic without intercept": LogisticRegression(max_iter=30, fit_intercept=False),
    **{activation: mlp(activation) for activation in ("relu", "tanh", "logistic", "identity")},
    "standard": make_pipeline(StandardScaler(), LogisticRegression(max_iter=30)),
    "standard, scale alone": make_pipeline(StandardScaler(with_mean=False), mlp("relu")),
    "standard, mean alone": make_pipeline(StandardScaler(with_std=False), mlp("relu")),
    "min-max": make_pipeline("passthrough", MinMaxScaler((-1, 1)), mlp("tanh")),
    "min-max, clipped": make_pipeline(MinMaxScaler((0.1, 0.7), clip=True), mlp("relu")),
    "max-abs": make_pipeline(MaxAbsScaler(), StandardScaler(), LogisticRegression(max_iter=30)),
}


def fit(estimator: Any, rows: Any = ROWS[FITTED], labels: Any = LABELS[FITTED]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(rows, labels)


def images(rows: Any) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).view(-1, 1, 8, 8)


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("binary", [False, True], ids=["10 classes", "2 classes"])
def test_labels_and_probabilities_are_the_estimators_own(name: str, binary: bool) -> None:
    estimator = fit(ESTIMATORS[name], labels=LABELS[FITTED] // 5 if binary else LABELS[FITTED])
    model = from_sklearn(estimator)
    logits = model(images(ROWS))
    assert (logits.dtype, logits.shape, model.training) == (torch.float32, (len(ROWS), 2 if binary else 10), False)
    np.testing.assert_array_equal(logits.argmax(1).numpy(), estimator.predict(ROWS))
    np.testing.assert_allclose(logits.softmax(1).detach(), estimator.predict_proba(ROWS), atol=1e-4)
    assert model.classes is None


def test_the_copy_does_not_follow_the_estimator() -> None:
    estimator = fit(mlp("relu"), ROWS[FITTED].astype(np.float32))  # its weights are of float32 too
    model = from_sklearn(estimator)
    before = model(images(ROWS))
    for weight in estimator.coefs_:
        weight *= 2
    torch.testing.assert_close(model(images(ROWS)), before, rtol=0, atol=0)


def test_gradients_do_not_vanish_where_the_classifier_is_sure() -> None:
    estimator = fit(LogisticRegression(C=1e4, max_iter=200))
    x = images(ROWS[FITTED]).requires_grad_()
    logits = from_sklearn(estimator)(x)
    top = logits.topk(2).values
    sure = top[:, 0] - top[:, 1] > 20
    assert sure.any()
    (grad,) = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), x)
    assert (grad[sure].flatten(1).abs().amax(1) > 0.1).all()


def test_it_is_calibrated_and_grafted_like_any_module() -> None:
    names = np.array(["zero", "one", "two"])
    few = LABELS < 3
    model = from_sklearn(fit(LogisticRegression(max_iter=30), ROWS[few][:200], names[LABELS[few][:200]]))
    assert model.classes == ["one", "two", "zero"]  # as classes_ sorts them
    x = images(ROWS[few][200:])
    grafted = graft(model, "robust/digits", labels=[1, 2, 0], image_shape=(1, 8, 8), x=x)
    defended = DefendedClassifier(grafted).calibrate(x, alpha=0.1)
    assert (defended.predict(x) != -1).float().mean() > 0.85
    torch.testing.assert_close(grafted(x), model(x), rtol=0, atol=0)


def test_from_fitting_it_to_the_figures_of_an_attack(digits: Dataset) -> None:
    """Grafted it has a fraction of the risk that it has alone, and makes the same errors where nothing is rejected."""
    train = digits.train.head(600)
    model = from_sklearn(
        fit(MLPClassifier((32,), tol=1e-2, random_state=0), train.x.flatten(1).numpy(), train.y.numpy())
    )
    grafted = graft(model, "robust/digits", image_shape=digits.image_shape)
    data = (digits.test.x[:20], digits.test.y[:20], digits.calibration.x[:150])
    found = []
    for made, detector in ((model, "logit_margin"), (grafted, "label_margin")):
        (cell,) = benchmark(made, data, "pgd", 0.15, detector, n=20, steps=8, alpha=0.05, progress=False).cells
        assert isinstance(cell, CellResult)
        found.append(cell)
    alone, beside = found
    for cell in found:
        undefended = measure(cell.images, math.inf)
        assert undefended.clean_accuracy > 0.85
        assert undefended.robust_risk > 0.8
        assert cell.metrics.clean_rejection_rate < 0.2
    assert beside.metrics.clean_accuracy == alone.metrics.clean_accuracy
    assert beside.metrics.robust_risk < alone.metrics.robust_risk / 2


def test_pixels_up_to_255_are_a_matter_of_normalized() -> None:
    estimator = fit(LogisticRegression(max_iter=30), np.round(255 * ROWS[FITTED]))
    model = Normalized(from_sklearn(estimator), 0, 1 / 255)
    expected = estimator.predict_proba(255 * ROWS)
    np.testing.assert_allclose(model(images(ROWS)).softmax(1).detach(), expected, atol=1e-4)


BAD = {
    "estimator: got RidgeClassifier, must be LogisticRegression or MLPClassifier": fit(RidgeClassifier()),
    "estimator: got int, must be LogisticRegression": 3,
    "estimator: has the step PCA, must be": fit(make_pipeline(PCA(4), LogisticRegression())),
    "estimator: MLPClassifier is not fitted, must be": MLPClassifier(),
    "estimator: Pipeline is not fitted, must be": make_pipeline(StandardScaler(), MLPClassifier()),
    "has several labels an image": fit(mlp("relu"), labels=np.eye(10, dtype=int)[LABELS[FITTED]]),
}


@pytest.mark.parametrize("message", BAD)
def test_other_estimators_are_refused(message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_sklearn(BAD[message])


def test_an_estimator_of_which_the_module_says_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator = fit(LogisticRegression(max_iter=30))

    def one_vs_rest(rows: Any) -> Any:
        scores = 1 / (1 + np.exp(-estimator.decision_function(rows)))
        return scores / scores.sum(1, keepdims=True)

    monkeypatch.setattr(estimator, "predict_proba", one_vs_rest)
    with pytest.raises(InputError, match="no softmax of its scores"):
        from_sklearn(estimator)


def test_images_of_another_size_are_refused() -> None:
    model = from_sklearn(fit(LogisticRegression(max_iter=30)))
    with pytest.raises(InputError, match=r"x: got 784 pixels an image, \(1, 28, 28\), must be 64"):
        model(torch.rand(2, 1, 28, 28))
