"""A fitted scikit-learn classifier as a module that gives logits and their gradients.

Converters that other packages have give probabilities, whose gradients vanish where the classifier is sure: attacks on
them fail that a real attacker would not.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ...types import InputError

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "logistic": nn.Sigmoid, "identity": nn.Identity}
SUPPORTED = (
    "LogisticRegression or MLPClassifier, alone or as the last step of a Pipeline after StandardScaler, MinMaxScaler "
    "or MaxAbsScaler"
)
TRIED = 32  # rows on which the module and the estimator are compared
TOLERANCE = 1e-6  # of a probability, in float64


class SklearnClassifier(nn.Module):
    """What `from_sklearn` makes: the estimator's layers, from the pixels of images (B, C, H, W) to logits (B, K).

    Attributes:
        layers: the scalers, the linear layers and the activations.
        n_features: how many pixels an image must have in all its channels.
        n_classes: K.
        classes: the names of the classes, where they are not just the numbers 0 to K − 1; else None.
    """

    def __init__(self, layers: Sequence[nn.Module], n_features: int, labels: Sequence[Any]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.n_features, self.n_classes = n_features, len(labels)
        names = [str(label) for label in labels]
        self.classes = None if names == [str(k) for k in range(len(names))] else names

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W), or of rows (B, n_features).

        Raises:
            InputError: images of another number of pixels.
        """
        rows = x.flatten(1)
        if rows.shape[1] != self.n_features:
            raise InputError(
                f"x: got {rows.shape[1]} pixels an image, {tuple(x.shape[1:])}, must be {self.n_features}, as many as "
                "the estimator was fitted on"
            )
        logits: Tensor = self.layers(rows)
        return logits


def from_sklearn(estimator: Any) -> SklearnClassifier:
    """Turn a fitted scikit-learn classifier into a module that gives logits, so that it can be defended and attacked.

    Its argmax is the estimator's `predict`, the softmax of its logits `predict_proba`; label k is `classes_[k]`. The
    estimator is copied: fitting it again changes nothing. Images are flattened in the order (C, H, W). One that was
    fitted on pixels of 0 to 255 is `Normalized(from_sklearn(estimator), 0, 1 / 255)`.

    Args:
        estimator: a `LogisticRegression` (binary or multinomial) or an `MLPClassifier` (one label an image), alone or
            at the end of a `Pipeline` after `StandardScaler`, `MinMaxScaler` or `MaxAbsScaler`.

    Returns:
        A module in float32 and evaluation mode.

    Raises:
        InputError: another estimator, one that is not fitted, or one of which the module would say something else.
    """
    *scalers, classifier = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    if type(classifier) is LogisticRegression:
        read = _of_logistic_regression
    elif type(classifier) is MLPClassifier:
        read = _of_mlp
    else:
        raise InputError(f"estimator: got {type(classifier).__name__}, must be {SUPPORTED}")
    try:
        check_is_fitted(classifier)
        layers = [layer for scaler in scalers for layer in _of_scaler(scaler)] + read(classifier)
    except NotFittedError:
        raise InputError(f"estimator: {type(estimator).__name__} is not fitted, must be: call fit(x, y)") from None
    module = SklearnClassifier(layers, classifier.n_features_in_, list(classifier.classes_)).double()
    _check_same(module, estimator)
    return module.float().eval()


class _Affine(nn.Module):
    """x · scale + shift, feature by feature."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Any, shift: Any) -> None:
        super().__init__()
        self.register_buffer("scale", _tensor(scale))
        self.register_buffer("shift", _tensor(shift))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class _BinaryLogits(nn.Module):
    """The log-odds d (B, 1) of the second of two classes as logits (0, d)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x), x], dim=1)


def _of_scaler(scaler: Any) -> list[nn.Module]:
    if scaler is None or scaler == "passthrough":
        return []
    if type(scaler) not in (StandardScaler, MinMaxScaler, MaxAbsScaler):
        raise InputError(f"estimator: has the step {type(scaler).__name__}, must be {SUPPORTED}")
    check_is_fitted(scaler)
    if isinstance(scaler, MinMaxScaler):
        clip = [nn.Hardtanh(*scaler.feature_range)] if scaler.clip else []
        return [_Affine(scaler.scale_, scaler.min_), *clip]
    mean = getattr(scaler, "mean_", None) if getattr(scaler, "with_mean", False) else None
    scale = np.ones(scaler.n_features_in_) if scaler.scale_ is None else scaler.scale_
    clip = [nn.Hardtanh()] if getattr(scaler, "clip", False) else []
    return [_Affine(1 / scale, 0 if mean is None else -mean / scale), *clip]


def _of_logistic_regression(estimator: LogisticRegression) -> list[nn.Module]:
    layers: list[nn.Module] = [_linear(estimator.coef_, estimator.intercept_)]
    return [*layers, _BinaryLogits()] if len(estimator.classes_) == 2 else layers


def _of_mlp(estimator: MLPClassifier) -> list[nn.Module]:
    binary = estimator.out_activation_ == "logistic"
    if binary and estimator.n_outputs_ > 1:
        raise InputError("estimator: the MLPClassifier has several labels an image, must have one")
    layers: list[nn.Module] = []
    for weight, bias in zip(estimator.coefs_, estimator.intercepts_, strict=True):
        layers += [_linear(weight.T, bias), ACTIVATIONS[estimator.activation]()]
    layers.pop()  # the last activation is the softmax, or the sigmoid
    return [*layers, _BinaryLogits()] if binary else layers


def _linear(weight: NDArray[Any], bias: NDArray[Any]) -> nn.Linear:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(_tensor(weight))
        layer.bias.copy_(_tensor(bias).expand(outputs))
    return layer


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float64))


def _check_same(module: SklearnClassifier, estimator: Any) -> None:
    """Both must give rows drawn at random the same probabilities, in float64: not all one-vs-rest classifiers do."""
    rows = np.random.default_rng(0).random((TRIED, module.n_features))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rows without the names that a data frame gave the features
        difference = np.abs(module(torch.from_numpy(rows)).softmax(1).numpy() - estimator.predict_proba(rows)).max()
    if not difference < TOLERANCE:
        raise InputError(
            f"estimator: {type(estimator).__name__} gives probabilities that are no softmax of its scores (off by "
            f"{difference:.2g}), must be multinomial or binary"
        )
