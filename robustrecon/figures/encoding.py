"""What a model makes of images as arrays, and which of them a figure shows and measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    """A part of a data set as a style-memory network sees it, N images of K classes.

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
        """(N,) labels."""
        return np.asarray(self.logits.argmax(1))

    @property
    def right(self) -> Array:
        """(N,) whether the label is predicted correctly."""
        return np.asarray(self.predicted == self.y)


def checked(model: nn.Module, data: Dataset) -> StyleMemoryNet:
    """The model, if it draws, and draws what the data holds.

    Raises:
        InputError: a model without a decoder, or one for other images or classes.
    """
    if not isinstance(model, StyleMemoryNet):
        name = getattr(model, "name", type(model).__name__)
        raise InputError(f"model: {name} has no decoder, must be a style-memory network")
    if model.image_shape != data.image_shape or model.n_classes != data.n_classes:
        raise InputError(
            f"data: {data.name} has {data.n_classes} classes of {data.image_shape} images, must have "
            f"{model.n_classes} of {model.image_shape} for the model"
        )
    return model


def encode(model: StyleMemoryNet, part: Part) -> Encoded:
    """Logits and style memories of all images of `part`."""
    logits, style = asked(model, model.encode, part.x)
    return Encoded(part.x.numpy(), part.y.numpy(), logits, style)


def decode(model: StyleMemoryNet, labels: Array, style: Array) -> Array:
    """Drawings (N, C, H, W) under labels (N,), or label probabilities (N, K), in styles (N, style_dim)."""
    given = labels if labels.ndim == 2 else np.eye(model.n_classes, dtype=np.float32)[labels]
    both = torch.from_numpy(np.concatenate([given, style], axis=1).astype(np.float32))

    def drawn(part: Tensor) -> tuple[Tensor]:
        return (model.decode(*part.split([model.n_classes, model.style_dim], dim=1)),)

    return asked(model, drawn, both)[0]


def logits_of(model: nn.Module, x: Array) -> Array:
    """(N, K) logits of images (N, C, H, W)."""
    return asked(model, lambda part: (model(part),), torch.as_tensor(x))[0]


def energies(model: EnergyModel, x: Array) -> Array:
    """(N, K) class energies of images (N, C, H, W)."""
    return asked(model, lambda part: (model.class_energies(part),), torch.as_tensor(x))[0]


def asked(model: nn.Module, question: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor) -> tuple[Array, ...]:
    """Answers for all of x, batch by batch on the model's device, in evaluation mode."""
    place = device_of(model)
    with evaluating(model):
        answers = batched(lambda part: tuple(answer.cpu() for answer in question(part.to(place))), x)
    return tuple(np.asarray(answer.numpy()) for answer in answers)


def distance(one: Array, other: Array) -> Array:
    """(N,) Euclidean distances of images (N, ...) to images (N, ...)."""
    return np.asarray(np.linalg.norm((one - other).reshape(len(one), -1), axis=1))


def distances(one: Array, other: Array) -> Array:
    """(N, M) Euclidean distances of points (N, ...) to points (M, ...)."""
    first, second = (torch.as_tensor(points.reshape(len(points), -1)) for points in (one, other))
    return np.asarray(torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist").numpy())


def of_class(seen: Encoded, classes: Sequence[str], label: int, least: int = 2) -> Array:
    """Indices of the images of a class that are classified correctly.

    Raises:
        InputError: fewer than `least`.
    """
    found = np.flatnonzero((seen.y == label) & seen.right)
    if len(found) < least:
        raise InputError(
            f"data: class {short(classes[label])} has {len(found)} correctly classified test images, must have at "
            f"least {least}"
        )
    return found


def farthest(seen: Encoded, classes: Sequence[str], labels: Array, seed: int, among: int = 100) -> Array:
    """(L, 2) indices: of each of `labels` (L,) the two images farthest apart in style of `among` random ones."""
    draw = np.random.default_rng(seed)
    pairs = []
    for label in labels:
        some = draw.permutation(of_class(seen, classes, label))[:among]
        apart = cdist(seen.style[some], seen.style[some])
        np.fill_diagonal(apart, -1)
        pairs.append(some[list(np.unravel_index(apart.argmax(), apart.shape))])
    return np.stack(pairs)


def pairs_within(seen: Encoded, classes: Sequence[str], n: int, seed: int) -> Array:
    """(P, 2) indices of random pairs of different images of a class, equally many of each class; P is about n."""
    draw = np.random.default_rng(seed)
    each = -(-n // len(classes))
    pairs = []
    for label in range(len(classes)):
        found = of_class(seen, classes, label)
        first = draw.integers(len(found), size=each)
        second = (first + draw.integers(1, len(found), size=each)) % len(found)
        pairs.append(np.stack([found[first], found[second]], axis=1))
    return np.concatenate(pairs)
