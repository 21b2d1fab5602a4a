"""What every figure shares: asking the model, a measured number, and sheets of small images."""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import softmax
from torch import Tensor, nn

from .. import plotting
from ..data import Dataset, Part
from ..models import EnergyModel, StyleMemoryNet
from ..runtime import batched, device_of, evaluating
from ..statistics import clopper_pearson
from ..types import InputError

Array: TypeAlias = NDArray[Any]
GAP = 2  # pixels between the images of a sheet
WIDTH = 9.0  # inches


@dataclass(frozen=True)
class Measure:
    """A number over a whole test set, or over many draws from it.

    Attributes:
        value: the mean, or the share.
        n: of how many.
        spread: standard deviation over these n, of a mean.
        interval: 95 % interval of a share (Clopper-Pearson) or of an AUROC.
    """

    value: float
    n: int
    spread: float | None = None
    interval: tuple[float, float] | None = None

    @staticmethod
    def mean(values: Array) -> Measure:
        """Of values (n,), with their standard deviation."""
        return Measure(float(values.mean()), len(values), float(values.std(ddof=1)) if len(values) > 1 else 0.0)

    @staticmethod
    def share(flags: Array) -> Measure:
        """Of true flags (n,), with its interval."""
        low, high = clopper_pearson(int(flags.sum()), len(flags))
        return Measure(float(flags.mean()), len(flags), interval=(low, high))


class Drawable(ABC):
    """What a figure's function returns: arrays, with what was measured on them and how they are drawn."""

    @property
    @abstractmethod
    def measures(self) -> dict[str, Measure]:
        """The numbers that go into a table, by name."""

    @property
    @abstractmethod
    def caption(self) -> str:
        """What the picture shows, of how many images."""

    @abstractmethod
    def plot(self, ax: Any) -> None:
        """Draw it on matplotlib axes."""

    @property
    def further(self) -> dict[str, Callable[[Any], None]]:
        """Further pictures of the same arrays, by name."""
        return {}


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


def check_count(value: int, argument: str, least: int = 1) -> None:
    """Raise for a number that is too small."""
    if value < least:
        raise InputError(f"{argument}: got {value}, must be at least {least}")


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


def sheet(images: Array) -> Array:
    """Images (R, S, C, H, W) laid out in R rows and S columns on white: (height, width) grey, or with three colours."""
    rows, columns, channels, height, width = images.shape
    canvas = np.ones((rows, height + GAP, columns, width + GAP, channels), dtype=np.float32)
    canvas[:, :height, :, :width] = images.clip(0, 1).transpose(0, 3, 1, 4, 2)
    laid = canvas.reshape(rows * (height + GAP), columns * (width + GAP), channels)[:-GAP, :-GAP]
    return laid[..., 0] if channels == 1 else laid


def show(
    ax: Any,
    images: Array,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    below: Sequence[str] = (),
) -> None:
    """Draw images (R, S, C, H, W) as a sheet on `ax`, with a name a row, and a name above and below a column."""
    ax.imshow(sheet(images), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    height, width = (size + GAP for size in images.shape[3:])
    for row, name in enumerate(rows):
        ax.text(-3 * GAP, (row + 0.5) * height, name, ha="right", va="center", fontsize=8)
    for texts, where, align in ((columns, -GAP, "bottom"), (below, images.shape[0] * height + GAP, "top")):
        for column, name in enumerate(texts):
            ax.text((column + 0.5) * width, where, name, ha="center", va=align, fontsize=7)


def short(name: str) -> str:
    """A class name fit for a small label: torchvision calls MNIST's "3 - three"."""
    return name.split(" - ")[0]


def draw(figure: Drawable, path: Path, title: str) -> list[Path]:
    """`figure` and its further pictures as PNG and as SVG, each with `title` above it and the caption below.

    Returns the files: `path` with either suffix, and for further pictures with their name before it.
    """
    written = []
    for name, plot in {"": figure.plot, **figure.further}.items():
        with mpl.rc_context({**plotting.STYLE, "svg.hashsalt": title}):
            canvas = Figure(figsize=(WIDTH, 5.5), layout="constrained")
            plot(axes := canvas.subplots())
            canvas.suptitle(title)
            canvas.supxlabel(textwrap.fill(figure.caption, 130), fontsize=8)
            if not axes.axison:
                _fit(canvas, axes)
            stem = f"{path.name}-{name}" if name else path.name
            written += [plotting.write(canvas, path.with_name(stem + suffix)) for suffix in (".png", ".svg")]
    return written


def _fit(canvas: Figure, axes: Axes) -> None:
    """Make the figure of a sheet as high as its images need."""
    height, width = axes.images[0].get_size() if axes.images else (1, 4)
    canvas.set_size_inches(WIDTH, WIDTH * height / width + 1.8)
    canvas.draw_without_rendering()
    unused = axes.get_position(original=True).height - axes.get_position().height
    canvas.set_size_inches(WIDTH, canvas.get_figheight() * (1 - unused))
