"""Disjoint train, calibration and test parts, split with one fixed random seed.

The seed of the split does not depend on the seed of a run: all models are trained on the same training part, and the
calibration part is new to all of them. A model's card holds the fingerprint of its data: if the data has changed, the
fingerprints differ.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..types import ImageShape, InputError
from .overlap import content_sketch

SPLIT_SEED = 20180722
CALIBRATION_SHARE = 1 / 12  # of the training set, when the data has a test set: 5,000 of MNIST's 60,000
HELD_OUT_SHARE = 1 / 6  # for calibration, and the same for test, when the data has no test set


@dataclass(frozen=True)
class Part:
    """Labelled images, stored as bytes; images that someone passed in are stored as they were.

    Attributes:
        images: (N, C, H, W) uint8, or floats in [0, 1].
        y: (N,) int64 labels from 0.
    """

    images: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    @cached_property
    def x(self) -> Tensor:
        """(N, C, H, W) float32 in [0, 1]."""
        return to_float(self.images)

    def head(self, n: int) -> Part:
        """The first `n` images, or all if there are fewer."""
        return Part(self.images[:n], self.y[:n])

    def pick(self, indices: ArrayLike) -> Part:
        """The images with these indices."""
        chosen = torch.as_tensor(indices)
        return Part(self.images[chosen], self.y[chosen])


@dataclass(frozen=True)
class Dataset:
    """A data set in three disjoint parts; no model is trained on the calibration part.

    Attributes:
        name: the name that `load_data` loads it by.
        classes: the K class names, in label order.
        train, calibration, test: the parts; `train` is empty where nothing is to be trained.
    """

    name: str
    classes: tuple[str, ...]
    train: Part
    calibration: Part
    test: Part

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the training images and labels, or of the others where there are none.

        Data that has changed is split into other parts.
        """
        digest = hashlib.sha256()
        for part in [self.train] if len(self.train) else [self.calibration, self.test]:
            digest.update(part.images.numpy().tobytes())
            digest.update(part.y.numpy().tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def sketch(self) -> Tensor:
        """(n,) int64 sketch of the training images, by which they are recognised later."""
        return content_sketch(self.train.images)

    @property
    def image_shape(self) -> ImageShape:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]; floats as they are."""
    return images.float() if images.is_floating_point() else images.float().div_(255)


def shuffled(images: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Images and labels in a random order, which is the same every time."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(SPLIT_SEED))
    return images[order], y[order]


def split(
    name: str, classes: tuple[str, ...], images: Tensor, y: Tensor, test: tuple[Tensor, Tensor] | None = None
) -> Dataset:
    """Split images and labels at random into the three parts; with `test`, into train and calibration only.

    Args:
        images: (N, C, H, W) uint8.
        y: (N,) int64.
        test: images and labels of a separate test set.

    Raises:
        InputError: too few images for three parts.
    """
    images, y = shuffled(images, y)
    if test is None:
        held_out = round(len(y) * HELD_OUT_SHARE)
        sizes = [held_out, held_out, len(y) - 2 * held_out]
        tested, calibrated, trained = map(Part, images.split(sizes), y.split(sizes))
    else:
        held_out = round(len(y) * CALIBRATION_SHARE)
        sizes = [held_out, len(y) - held_out]
        calibrated, trained = map(Part, images.split(sizes), y.split(sizes))
        tested = Part(*test)
    if not min(len(trained), len(calibrated), len(tested)):
        raise InputError(f"data: {name} has {len(y)} images, too few for train, calibration and test parts")
    return Dataset(name, classes, trained, calibrated, tested)
