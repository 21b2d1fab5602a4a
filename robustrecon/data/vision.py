"""MNIST, EMNIST letters, Fashion-MNIST and CIFAR-10 from torchvision, read from disk or downloaded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..types import InputError
from .folder import folder
from .splits import Dataset, Part, shuffled, split

TEST_CALIBRATION = 3000


def mnist(root: Path) -> Dataset:
    """70,000 digits, (1, 28, 28), 10 classes (LeCun et al. 1998)."""
    return _load("mnist", root, "MNIST", _train_flag, "MNIST/raw")


def mnist_test(root: Path) -> Dataset:
    """MNIST with its calibration part, 3,000 images, taken at random from its test images; the other 7,000 are to test.

    For classifiers from elsewhere, which may have been trained on all of MNIST's training images.
    """
    data = mnist(root)
    images, y = shuffled(data.test.images, data.test.y)
    calibration = Part(images[:TEST_CALIBRATION], y[:TEST_CALIBRATION])
    test = Part(images[TEST_CALIBRATION:], y[TEST_CALIBRATION:])
    return Dataset("mnist-test", data.classes, data.train, calibration, test)


def fashion_mnist(root: Path) -> Dataset:
    """70,000 pieces of clothing, (1, 28, 28), 10 classes (Xiao et al. 2017)."""
    return _load("fashion-mnist", root, "FashionMNIST", _train_flag, "FashionMNIST/raw")


def emnist_letters(root: Path) -> Dataset:
    """Upright letters, (1, 28, 28), 26 classes of both cases, labelled from 0 (Cohen et al. 2017)."""

    def arguments(train: bool) -> dict[str, Any]:
        return {"split": "letters", "train": train}

    # The files store the images transposed and label the letters from 1.
    return _load("emnist-letters", root, "EMNIST", arguments, "EMNIST/raw", first_label=1, transpose=True)


def cifar10(root: Path) -> Dataset:
    """60,000 colour images, (3, 32, 32), 10 classes (Krizhevsky 2009)."""
    return _load("cifar10", root, "CIFAR10", _train_flag, "cifar-10-batches-py")


def cifar10_images(root: Path) -> Dataset:
    """CIFAR-10, or a part of it, from image files: cifar10/train and cifar10/test, a folder for each class in both."""
    return replace(folder(root / "cifar10"), name="cifar10-images")


def _train_flag(train: bool) -> dict[str, Any]:
    return {"train": train}


def _load(
    name: str,
    root: Path,
    kind: str,
    arguments: Callable[[bool], dict[str, Any]],
    folder: str,
    first_label: int = 0,
    transpose: bool = False,
) -> Dataset:
    from ._torchvision import datasets

    def read(train: bool) -> tuple[Any, Tensor, Tensor]:
        data = _open(getattr(datasets, kind), root, arguments(train), name, root / folder)
        images = torch.as_tensor(np.asarray(data.data))
        images = images.movedim(-1, 1) if images.ndim == 4 else images.unsqueeze(1)
        images = images.transpose(-1, -2) if transpose else images
        y = torch.as_tensor(data.targets).long() - first_label
        if len(images) != len(y):
            raise InputError(f"data_dir: {name} in {root / folder} has {len(images)} images and {len(y)} labels")
        return data, images.contiguous(), y

    data, images, y = read(True)
    _, test_images, test_y = read(False)
    classes = tuple(str(label) for label in data.classes if label != "N/A")
    return split(name, classes, images, y, (test_images, test_y))


def _open(constructor: Any, root: Path, arguments: dict[str, Any], name: str, folder: Path) -> Any:
    """The torchvision data set in `root`, downloaded if it is not there."""
    try:
        return constructor(root, download=False, **arguments)
    except RuntimeError:
        pass  # missing or incomplete
    except (OSError, ValueError, AssertionError, EOFError) as error:
        raise InputError(f"data_dir: the files of {name} in {folder} are there but damaged ({error})") from error
    absent = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        return constructor(root, download=True, **arguments)
    except Exception as error:  # URLError, OSError or RuntimeError, depending on the data set and the failure
        for place in absent:  # folders that the download made before it failed
            with contextlib.suppress(OSError):
                place.rmdir()
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"data_dir: {name} is not in {root} and could not be downloaded ({reason}); put torchvision's "
            f"files in {folder} or name the folder that holds them with --data-dir"
        ) from error
