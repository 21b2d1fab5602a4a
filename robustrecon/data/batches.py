"""Images, and labels where there are any, from what a user has: arrays, a data set, or a loader of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from ..types import ImageShape, InputError, check_images
from .splits import Part

if TYPE_CHECKING:
    from ..types import Images

    Data: TypeAlias = Images | Part | TorchDataset[Any] | Iterable[Any]

_BATCH = 256  # images of a torch data set that are held at a time


def batches(
    data: Data, image_shape: ImageShape | None = None, argument: str = "x"
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Images (B, C, H, W) float32 in [0, 1] with their labels (B,) int64 or None, a batch at a time.

    Arrays are one batch; of a loader one batch is held at a time.

    Args:
        data: a tensor or an array of images; a tuple of images and labels; a `Part`; a torch data set of images with
            their labels; a `DataLoader`, or another iterable of batches, each images or a tuple or list
            (images, labels, ...).
        image_shape: (C, H, W) that the images must have; that of the first by default.
        argument: the name of the argument in error messages.

    Raises:
        InputError: bad images or labels, or no image at all; names the argument.
    """
    if isinstance(data, TorchDataset) and not isinstance(data, IterableDataset):
        data = DataLoader(data, _BATCH)
    if _is_one_batch(data):
        yield _batch(data, image_shape, argument)
        return
    try:
        found = iter(data)  # type: ignore[arg-type]  # what is not iterable is the error
    except TypeError:
        raise InputError(
            f"{argument}: got {type(data).__name__}, must be images, a pair of images and labels, or a loader of those"
        ) from None
    labelled = None
    for given in found:
        x, y = _batch(given, image_shape, argument)
        if labelled not in (None, y is not None):
            raise InputError(f"{argument}: some batches have labels and some do not, must be all or none")
        labelled = y is not None
        channels, height, width = x.shape[1:]
        image_shape = channels, height, width
        yield x, y
    if labelled is None:
        raise InputError(f"{argument}: got {type(data).__name__} without a batch, must hold at least one image")


def as_images_and_labels(
    data: Data, image_shape: ImageShape | None = None, argument: str = "x"
) -> tuple[Tensor, Tensor | None]:
    """All images (N, C, H, W) float32 in [0, 1] with their labels (N,) int64 or None; arguments as of `batches`.

    Raises:
        InputError: bad images or labels, or no image at all; names the argument.
    """
    images, labels = zip(*batches(data, image_shape, argument), strict=True)
    if len(images) == 1:
        return images[0], labels[0]
    return torch.cat(images), None if labels[0] is None else torch.cat(labels)


def check_labels(y: Any, n: int, argument: str = "y") -> Tensor:
    """Labels as an int64 tensor (n,), on their device.

    Raises:
        InputError: not whole numbers, or not n of them.
    """
    try:
        labels = torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{argument}: got {type(y).__name__}, must be {n} labels") from error
    if labels.shape != (n,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"{argument}: got {labels.dtype} of shape {tuple(labels.shape)}, must be {n} labels")
    return labels.long()


def _is_one_batch(data: Any) -> bool:
    """Whether it is a batch itself: images, or images and labels; a list may be one, or hold batches."""
    if isinstance(data, list) and data:
        with_labels = _is_images(data[0]) and len(data) > 1 and getattr(data[1], "ndim", 0) == 1
        return with_labels or not (_is_images(data[0]) or _is_tuple(data[0]))
    return isinstance(data, (Part, tuple, str, list)) or hasattr(data, "__array__")


def _is_images(value: Any) -> bool:
    return getattr(value, "ndim", 0) == 4


def _is_tuple(value: Any) -> bool:
    """Whether it is (images, labels, ...); loaders give lists of them, and an image may be a list of numbers."""
    return isinstance(value, tuple) or (isinstance(value, list) and bool(value) and _is_images(value[0]))


def _batch(given: Any, image_shape: ImageShape | None, argument: str) -> tuple[Tensor, Tensor | None]:
    if isinstance(given, Part):
        given = given.x, given.y
    if not _is_tuple(given):
        return check_images(given, image_shape, argument), None
    if not given:
        raise InputError(f"{argument}: got an empty tuple, must be images, or images and labels")
    x = check_images(given[0], image_shape, argument)
    return x, check_labels(given[1], len(x), f"{argument}: labels") if len(given) > 1 else None
