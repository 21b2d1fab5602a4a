"""What both estimators share: rows of numbers as images, a network that is trained or given, and the calibration."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from ... import models
from ...data import Dataset, Part
from ...defence import SAVED_KIND, DefendedClassifier
from ...detectors import FittedDetector, as_detector, images_needed, parts, shares_of
from ...runtime import device_of, evaluating
from ...training import Recipe, default_recipe, load_recipe, train
from ...types import ImageShape, InputError, Verdict, check_fraction

if TYPE_CHECKING:
    from ...detectors import AnyOf, Detector, Score

SMALLEST = 4  # side of the smallest image that a network takes


@dataclass(frozen=True)
class Given:
    """A network that was trained before, and what is known of it."""

    network: nn.Module
    detector: Detector | AnyOf | None
    classes: Sequence[str] | None
    image_shape: ImageShape | None

    @classmethod
    def of(cls, model: Any) -> Given:
        """Of a module, a `DefendedClassifier`, or the file, folder or shipped name of either."""
        if isinstance(model, str):
            saved = models.read(model).card.get("kind") == SAVED_KIND
            model = DefendedClassifier.load(model) if saved else models.load(model)
        if isinstance(model, DefendedClassifier):
            return cls(model.model, model.detector, model.classes, model.image_shape)
        if not isinstance(model, nn.Module):
            raise InputError(
                f"model: got {type(model).__name__}, must be a torch.nn.Module that gives logits, a "
                f"DefendedClassifier, a file of either, or one of {', '.join(models.MODELS)}, which fit trains"
            )
        return cls(model, None, getattr(model, "classes", None), getattr(model, "image_shape", None))

    def n_classes(self, image_shape: ImageShape) -> int:
        """How many logits it gives."""
        with evaluating(self.network), torch.no_grad():
            logits: Tensor = self.network(torch.zeros(1, *image_shape, device=device_of(self.network)))
        return logits.shape[1]


class ImageEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A defended classifier that is made in `fit`, from images or from rows of pixels."""

    model: Any
    detector: str | Detector | AnyOf | Score | None
    alpha: float
    recipe: str | Recipe | None
    image_shape: Sequence[int] | None
    pixel_range: tuple[float, float] | None
    calibration_size: float
    random_state: Any

    def inspect(self, X: ArrayLike) -> Verdict:
        """Verdict on n images, or rows: label (which output of the network), score, p-value and rejection, (n,) each.

        Raises:
            NotFittedError: before `fit`.
            InputError: images of another shape, or values out of the range.
            ValueError: another number of pixels, or values that are not finite.
        """
        images = self._checked_images(X)
        return self.defended_.inspect(images)

    def _checked_images(self, X: ArrayLike) -> Tensor:
        check_is_fitted(self)
        array, shape = _as_rows(X)
        rows = validate_data(self, array, reset=False, dtype=np.float32)
        if shape not in (None, self.image_shape_):
            raise InputError(f"X: has images of shape {shape}, must be {self.image_shape_}, as in fit")
        return self._images(rows)

    @property
    def _trains(self) -> bool:
        return self.model is None or (isinstance(self.model, str) and self.model in models.MODELS)

    def _begin(self, X: Any, y: Any = None) -> tuple[NDArray[np.float32], Any]:
        """The first part of `fit`: rows (n, pixels) and labels, checked; the shape and the range of the images."""
        check_fraction(self.alpha, "alpha")
        check_fraction(self.calibration_size, "calibration_size")
        array, shape = _as_rows(X)
        if y is None:
            rows = validate_data(self, array, dtype=np.float32)
        else:
            rows, y = validate_data(self, array, y, dtype=np.float32)
        self._given = None if self._trains else Given.of(self.model)
        self.image_shape_ = self._image_shape(rows.shape[1], shape)
        self.pixel_range_ = self._pixel_range(rows)
        return rows, y

    def _image_shape(self, n_pixels: int, found: ImageShape | None) -> ImageShape:
        wanted: Sequence[int] | None = self.image_shape
        if self._given is not None and self._given.image_shape is not None:
            wanted = self._given.image_shape
        if wanted is not None:
            if len(wanted) != 3 or min(wanted) < 1:
                raise InputError(f"image_shape: got {wanted!r}, must be (C, H, W)")
            channels, height, width = wanted
            shape = channels, height, width
            if found not in (None, shape):
                raise InputError(f"X: has images of shape {found}, must be {shape}")
            if n_pixels != math.prod(shape):
                raise InputError(f"X: has rows of {n_pixels} pixels, must be {math.prod(shape)}, those of {shape}")
            return shape
        if found is not None:
            return found
        side = math.isqrt(n_pixels - 1) + 1
        if side**2 != n_pixels and self._given is not None:
            raise InputError(f"image_shape: got None, must be (C, H, W) of {n_pixels} pixels")
        return (1, max(side, SMALLEST), max(side, SMALLEST)) if self._given is None else (1, side, side)

    def _pixel_range(self, rows: NDArray[np.float32]) -> tuple[float, float]:
        if self.pixel_range is None:
            return (float(rows.min()), float(rows.max())) if self._given is None else (0.0, 1.0)
        low, high = self.pixel_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"pixel_range: got {self.pixel_range!r}, must be (black, white), the lower one first")
        return float(low), float(high)

    def _images(self, rows: NDArray[np.float32]) -> Tensor:
        """(n, C, H, W) in [0, 1]."""
        low, high = self.pixel_range_
        if (self.pixel_range is not None or self._given is not None) and (rows.min() < low or rows.max() > high):
            raise InputError(
                f"X: values span [{rows.min():.4g}, {rows.max():.4g}], must be in [{low:g}, {high:g}]; pixel_range "
                "says what is black and what is white"
            )
        unit = ((rows - np.float32(low)) / np.float32((high - low) or 1)).clip(0, 1)
        missing = math.prod(self.image_shape_) - rows.shape[1]
        return torch.from_numpy(np.pad(unit, ((0, 0), (0, missing)))).reshape(-1, *self.image_shape_)

    def _fit(self, rows: NDArray[np.float32], labels: Callable[[NDArray[np.intp]], NDArray[np.intp]]) -> None:
        """Train the network where none is given, let the detector learn where it must, and calibrate.

        Args:
            rows: (n, pixels).
            labels: of the rows that are learned from, by their indices.
        """
        images, random = self._images(rows), check_random_state(self.random_state)
        order = random.permutation(len(rows))
        detector = None if self.detector is None else copy.deepcopy(as_detector(self.detector))
        if self._given is not None and detector is None:
            detector = copy.deepcopy(self._given.detector)
        learns = self._given is None or _learns(detector)
        kept = math.ceil(self.calibration_size * len(rows)) if learns else len(rows)
        needed = images_needed(self.alpha, (1,) if detector is None else shares_of(detector))
        if learns and kept == len(rows):
            raise InputError(f"X: n_samples={len(rows)}, must be more, to learn from some and to calibrate on others")
        if kept < needed:
            raise InputError(
                f"X: {kept} of {len(rows)} rows are there to calibrate on, must be at least {needed} to bound the "
                f"false-alarm rate by alpha={self.alpha}"
            )
        calibration, rest = order[:kept], order[kept:]
        part = Part(images[rest], torch.from_numpy(labels(rest)).long()) if learns else None
        if self._given is None:
            assert part is not None
            network = self._trained(part, int(random.randint(2**31 - 1)))
        else:
            network = self._given.network
        defended = DefendedClassifier(network, detector)
        if part is not None and _learns(defended.detector):
            defended.fit(part)
        if self._given is None:
            # Rows may be equal, and equal ones are learned from and calibrated on: which is no mistake.
            sketch, network.trained_on = network.trained_on, None
            defended.calibrate(images[calibration], self.alpha)
            network.trained_on = sketch
        else:
            defended.calibrate(images[calibration], self.alpha)
            defended.classes = self._given.classes
        self.defended_ = defended

    def _trained(self, learned: Part, seed: int) -> Any:
        recipe = default_recipe(self.model) if self.recipe is None else self.recipe
        recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
        if not isinstance(recipe, Recipe):
            raise InputError(f"recipe: got {type(recipe).__name__}, must be a Recipe or the name of one")
        # Few images would make many epochs, after each of which a checkpoint is written: rather repeat the images.
        times = math.ceil(recipe.least_steps * recipe.batch_size / (recipe.epochs * len(learned)))
        repeated = learned.pick(np.tile(np.arange(len(learned)), max(1, times)))
        classes = tuple(map(str, range(max(2, int(learned.y.max()) + 1))))
        some = learned.head(1)  # what the estimator is calibrated and tested on is not the training's business
        with tempfile.TemporaryDirectory() as folder:
            data = Dataset("the rows of X", classes, repeated, some, some)
            return train(data, folder, recipe, model=self.model, seed=seed, progress=False)

    def _encoded(self, y: NDArray[Any], classes: ArrayLike | None = None) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """The labels that the network's outputs stand for, in their order, and which of them each of y (n,) is.

        Args:
            y: (n,) labels.
            classes: what to take for the labels of a network that is given, in the order of its outputs.
        """
        if self._given is None:
            found, indices = np.unique(y, return_inverse=True)
            return found, indices
        n = self._given.n_classes(self.image_shape_)
        if classes is None and y.dtype.kind in "OUS":
            classes = self._given.classes
        order = np.arange(n) if classes is None else np.asarray(classes)
        if order.shape != (n,) or len(np.unique(order)) < n:
            raise InputError(f"classes: got {order.tolist()}, must be {n} different labels, one for each output")
        unknown = np.setdiff1d(y, order)
        if len(unknown):
            raise InputError(f"y: has the label {unknown.tolist()[0]!r}, must be of the model's, {order.tolist()}")
        sorter = np.argsort(order)
        return order, sorter[np.searchsorted(order, y, sorter=sorter)]


def _as_rows(X: Any) -> tuple[Any, ImageShape | None]:
    """Images (n, C, H, W) or (n, H, W) as rows, with their shape; what has rows already as it is, with None."""
    if (np.ndim(X) if isinstance(X, (list, tuple)) else getattr(X, "ndim", 2)) < 3:
        return X, None
    array = np.asarray(X)
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4:
        raise InputError(f"X: shape is {array.shape}, must be (n, C, H, W), (n, H, W) or (n, pixels)")
    channels, height, width = array.shape[1:]
    return array.reshape(len(array), -1), (channels, height, width)


def _learns(detector: Detector | AnyOf | None) -> bool:
    """Whether a part of it has yet to learn from images."""
    found = () if detector is None else parts(detector)
    return any(isinstance(part, FittedDetector) and not part.is_fitted for part in found)
