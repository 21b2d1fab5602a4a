"""Data sets by name, each in disjoint train, calibration and test parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..types import InputError, unknown_name
from . import digits as _digits
from . import vision
from .folder import folder, read_images
from .splits import Dataset, Part

__all__ = ["DATASETS", "Dataset", "Part", "load_data", "read_images"]

DATASETS: dict[str, Callable[[Path], Dataset]] = {
    "digits": lambda root: _digits.digits(),
    "mnist": vision.mnist,
    "mnist-test": vision.mnist_test,
    "emnist-letters": vision.emnist_letters,
    "fashion-mnist": vision.fashion_mnist,
    "cifar10": vision.cifar10,
    "cifar10-images": vision.cifar10_images,
}
_FOLDER = "folder:"


def load_data(name: str = "digits", data_dir: str | Path = "data") -> Dataset:
    """Load a data set.

    Args:
        name: one of `DATASETS`, or `folder:PATH` for a folder of images with a sub-folder for each class.
        data_dir: folder of torchvision's files, to which missing ones are downloaded; `digits` needs none.

    Raises:
        InputError: an unknown name, or data that is missing and cannot be downloaded.
    """
    if name.startswith(_FOLDER):
        place = name.removeprefix(_FOLDER)
        if not place:
            raise InputError("data: got 'folder:', must be folder:PATH")
        return folder(Path(place).expanduser().resolve())
    if name not in DATASETS:
        unknown_name("data", name, [*DATASETS, _FOLDER + "PATH"])
    return DATASETS[name](Path(data_dir).expanduser())
