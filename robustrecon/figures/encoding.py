"""What a model makes of images as arrays, and which of them a figure shows and measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.spatial.distance import cdist
from scipy.special import softmax
from torch import Tensor, nn

from ..data import Dataset, Part
from ..models import EnergyModel, StyleMemoryNet
from ..runtime import batched, device_of, evaluating
from ..types import InputError
from .base import Array
from .sheets import short


@dataclass(frozen=True)
class Encoded:
    """What a model makes of N images of K classes.

    Attributes:
        x: (N, C, H, W) float32 in [0, 1].
        y: (N,) int64 labels.
        logits: (N, K).
        style: (N, style_dim) in [0, 1].
    """

    x: Array
    y: Array
    logits: Array
    style: Array

    @property
    def probabilities(self) -> Array:
        """(N, K) softmax."""
        return np.asarray(softmax(self.logits, axis=1))

    @property
    def predicted(self) -> Array:
        """(N,) predicted labels."""
        return np.asarray(self.logits.argmax(1))

    @property
    def correct(self) -> Array:
        """(N,) whether the predicted label is the true one."""
        return np.asarray(self.predicted == self.y)


def checked(model: nn.Module, data: Dataset) -> StyleMemoryNet:
    """The model, if it has style codes (`encode` and `decode`) and is for images and classes like those of `data`.

    Raises:
        InputError: a model without a decoder, or one for other images or classes.
    """
    if not isinstance(model, EnergyModel) or not (hasattr(model, "encode") and hasattr(model, "decode")):
        name = getattr(model, "name", type(model).__name__)
        raise InputError(
            f"model: {name} has no decoder, must be an EnergyModel with `encode` and `decode`, such as style-memory"
        )
    if model.image_shape != data.image_shape or model.n_classes != data.n_classes:
        raise InputError(
            f"data: {data.name} has {data.n_classes} classes of {data.image_shape} images, must have "
            f"{model.n_classes} of {model.image_shape} for the model"
        )
    return cast(StyleMemoryNet, model)  # figures use what was checked here and what every EnergyModel has


def encode(model: StyleMemoryNet, part: Part) -> Encoded:
    """What `model` makes of all images of `part`."""
    logits, style = evaluated(model, model.encode, part.x)
    return Encoded(part.x.numpy(), part.y.numpy(), logits, style)


def decode(model: StyleMemoryNet, labels: Array, style: Array) -> Array:
    """Images (N, C, H, W) that `model` draws under labels (N,), or label probabilities (N, K), in styles (N, S)."""
    probabilities = labels if labels.ndim == 2 else np.eye(model.n_classes, dtype=np.float32)[labels]
    codes = torch.from_numpy(np.concatenate([probabilities, style], axis=1).astype(np.float32))

    def drawn(part: Tensor) -> tuple[Tensor]:
        return (model.decode(part[:, : model.n_classes], part[:, model.n_classes :]),)

    return evaluated(model, drawn, codes)[0]


def logits_of(model: nn.Module, x: Array) -> Array:
    """(N, K) logits of images (N, C, H, W)."""
    return evaluated(model, lambda part: (model(part),), torch.as_tensor(x))[0]


def energies(model: EnergyModel, x: Array) -> Array:
    """(N, K) class energies of images (N, C, H, W)."""
    return evaluated(model, lambda part: (model.class_energies(part),), torch.as_tensor(x))[0]


def evaluated(model: nn.Module, function: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> tuple[Array, ...]:
    """The outputs of `function` for all of x, computed in batches on the model's device, in evaluation mode."""
    device = device_of(model)
    with evaluating(model):
        outputs = batched(lambda part: tuple(output.cpu() for output in function(part.to(device))), x)
    return tuple(np.asarray(output.numpy()) for output in outputs)


def distance(one: Array, other: Array) -> Array:
    """(N,) Euclidean distances between the n-th images of two batches (N, ...)."""
    return np.asarray(np.linalg.norm((one - other).reshape(len(one), -1), axis=1))


def distances(one: Array, other: Array) -> Array:
    """(N, M) Euclidean distances between points (N, ...) and points (M, ...)."""
    first, second = (torch.as_tensor(points.reshape(len(points), -1)) for points in (one, other))
    return np.asarray(torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").numpy())


def of_class(encoded: Encoded, classes: Sequence[str], label: int, least: int = 2) -> Array:
    """Indices of the images of a class that are classified correctly.

    Raises:
        InputError: fewer than `least` such images.
    """
    found = np.flatnonzero((encoded.y == label) & encoded.correct)
    if len(found) < least:
        raise InputError(
            f"data: class {short(classes[label])} has {len(found)} correctly classified test images, must have at "
            f"least {least}"
        )
    return found


def farthest_pairs(encoded: Encoded, classes: Sequence[str], labels: Array, seed: int, among: int = 100) -> Array:
    """(L, 2) indices: for each of `labels` (L,), the two of `among` random images that differ most in style."""
    random = np.random.default_rng(seed)
    pairs = []
    for label in labels:
        candidates = random.permutation(of_class(encoded, classes, label))[:among]
        apart = cdist(encoded.style[candidates], encoded.style[candidates])
        np.fill_diagonal(apart, -1)
        pairs.append(candidates[list(np.unravel_index(apart.argmax(), apart.shape))])
    return np.stack(pairs)


def random_pairs(encoded: Encoded, classes: Sequence[str], n: int, seed: int) -> Array:
    """(P, 2) indices of random pairs of different images of one class; every class has ⌈n / K⌉ pairs."""
    random = np.random.default_rng(seed)
    per_class = -(-n // len(classes))
    pairs = []
    for label in range(len(classes)):
        found = of_class(encoded, classes, label)
        first = random.integers(len(found), size=per_class)
        second = (first + random.integers(1, len(found), size=per_class)) % len(found)
        pairs.append(np.stack([found[first], found[second]], axis=1))
    return np.concatenate(pairs)
