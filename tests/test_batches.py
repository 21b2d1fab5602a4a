"""Images and labels from whatever a user has them in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from robustrecon import InputError
from robustrecon.data import Part
from robustrecon.data.batches import as_images_and_labels, batches

X = torch.rand(10, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(10) % 3
PAIRS = TensorDataset(X, Y)

WITH_LABELS: dict[str, Any] = {
    "tuple of tensors": (X, Y),
    "tuple of arrays": (X.numpy(), Y.numpy().astype(np.uint8)),
    "tuple of three": (X, Y, torch.rand(10)),
    "loader": DataLoader(PAIRS, batch_size=4),
    "data set": PAIRS,
    "list of batches": [(X[:7], Y[:7]), (X[7:], Y[7:])],
    "list of a tensor each": [X, Y],
    "list of list batches": [[X[:7], Y[:7]], [X[7:], Y[7:]]],
}
WITHOUT: dict[str, Any] = {
    "tensor": X,
    "double array": X.numpy().astype(np.float64),
    "list of batches": [X[:6], X[6:]],
    "nested lists": X.double().tolist(),
    "list of images": list(X.numpy()),
    "loader": DataLoader(X, batch_size=3),
    "generator": (X[i : i + 1] for i in range(10)),
    "tuple of one": (X,),
}


@pytest.mark.parametrize("data", WITH_LABELS.values(), ids=WITH_LABELS)
def test_images_with_labels(data: Any) -> None:
    x, y = as_images_and_labels(data)
    assert y is not None
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert torch.equal(x, X)
    assert torch.equal(y, Y)


@pytest.mark.parametrize("data", WITHOUT.values(), ids=WITHOUT)
def test_images_without_labels(data: Any) -> None:
    x, y = as_images_and_labels(data)
    assert y is None
    assert torch.equal(x, X)


def test_a_part_of_a_data_set() -> None:
    x, y = as_images_and_labels(Part((X * 255).round().byte(), Y))
    torch.testing.assert_close(x, X, atol=0.002, rtol=0)
    assert y is not None
    assert torch.equal(y, Y)


def test_one_batch_is_held_at_a_time() -> None:
    asked: list[int] = []

    def endless() -> Iterator[Tensor]:
        while True:
            asked.append(len(asked))
            yield X

    found = batches(endless())
    next(found)
    next(found)
    assert asked == [0, 1]


BAD: dict[str, tuple[Any, str]] = {
    "number": (3, "x: got int, must be images, a pair of images and labels, or a loader of those"),
    "text": ("mnist", "x: got str"),
    "nothing": ([], "x: dtype is torch.float64|x: shape is"),
    "no batch": (iter([]), "without a batch, must hold at least one image"),
    "empty tuple": ((), "x: got an empty tuple"),
    "too few labels": ((X, Y[:9]), r"x: labels: got torch.int64 of shape \(9,\), must be 10 labels"),
    "labels that are not whole": ((X, Y / 2), "x: labels: got torch.float32"),
    "named": (iter([{"image": X}]), "x: got dict, must be a tensor or an array"),
    "bytes": (DataLoader((X * 255).byte(), 5), "x: dtype is torch.uint8, must be floating point"),
    "some labels": (iter([(X, Y), X]), "some batches have labels and some do not"),
    "other shape": (iter([X, X[..., :3]]), r"shape is \(10, 1, 4, 3\), must be \(B, 1, 4, 4\)"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_bad_data_is_one_line_that_names_the_argument(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_images_and_labels(data)
