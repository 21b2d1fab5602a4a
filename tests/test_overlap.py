"""Images that a model was trained on are recognised by their pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from robustrecon import InputError
from robustrecon.data import Dataset
from robustrecon.data.overlap import SKETCH, check_unseen, content_sketch, share_seen


def random_images(n: int, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8))


def test_a_sketch_is_ascending_and_does_not_depend_on_the_order_or_on_repetition() -> None:
    images = random_images(500)
    sketch = content_sketch(images)
    assert sketch.dtype == torch.int64
    assert (sketch.diff() > 0).all()
    assert torch.equal(content_sketch(torch.cat([images.flip(0), images])), sketch)


def test_hashes_are_the_same_on_every_machine_and_in_every_version() -> None:
    images = torch.arange(2 * 3 * 3 * 5, dtype=torch.uint8).reshape(2, 3, 3, 5)
    assert content_sketch(images).tolist() == [-8517782673123819324, -6277420917376821734]


def test_every_image_of_a_small_set_is_recognised_and_no_other() -> None:
    images = random_images(1000)
    sketch = content_sketch(images[:600])
    assert share_seen(sketch, images[:600]) == (600, 600)
    assert share_seen(sketch, images[600:]) == (0, 400)
    assert share_seen(sketch, images[590:610]) == (10, 20)
    assert share_seen(content_sketch(images[:0]), images) == (0, 1000)
    assert share_seen(sketch, images[:0]) == (0, 0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (1, 1, 1)])
def test_one_different_pixel_makes_another_image(shape: tuple[int, int, int]) -> None:
    """Also where only bytes change that are the highest, or the lowest, of their 64-bit words."""
    black = torch.zeros(1, int(np.prod(shape)), dtype=torch.uint8)
    changed = black + torch.eye(black.numel(), dtype=torch.uint8)
    images = torch.cat([changed * value for value in range(1, 256)]).reshape(-1, *shape)
    assert len(content_sketch(torch.cat([black.reshape(1, *shape), images]))) == min(SKETCH, len(images) + 1)
    sketch = content_sketch(black.reshape(1, *shape))
    assert share_seen(sketch, images) == (0, len(images))


def test_images_that_differ_only_in_the_highest_bytes_are_told_apart() -> None:
    images = torch.zeros(4000, 1, 8, 8, dtype=torch.uint8)
    images[..., 7] = random_images(4000, (1, 8, 1))[..., 0]
    assert len(content_sketch(images)) == len(torch.unique(images, dim=0))


def test_a_known_share_of_a_large_set_is_found() -> None:
    trained = random_images(60_000)
    sketch = content_sketch(trained)
    assert len(sketch) == SKETCH
    mixed = torch.cat([trained[:2000], random_images(8000, seed=1)])
    seen, decidable = share_seen(sketch, mixed)
    share = SKETCH / 60_000
    assert decidable == pytest.approx(10_000 * share, rel=0.1)
    assert seen == pytest.approx(2000 * share, rel=0.15)
    assert share_seen(sketch, trained) == (SKETCH, SKETCH)


def test_no_image_of_a_disjoint_set_is_taken_for_a_seen_one() -> None:
    sketch = content_sketch(random_images(30_000))
    for seed in range(1, 4):
        images = random_images(10_000, seed=seed)
        seen, decidable = share_seen(sketch, images)
        assert seen == 0
        assert decidable > 4000
        check_unseen(sketch, images, "x")


def test_floats_are_recognised_as_the_bytes_that_they_were(digits: Dataset) -> None:
    sketch = content_sketch(digits.train.images)
    for dtype in (torch.float32, torch.float64):
        assert share_seen(sketch, digits.train.x.to(dtype)) == (len(digits.train), len(digits.train))
    assert share_seen(sketch, digits.calibration.x)[0] == 0
    assert share_seen(sketch, (digits.train.x + 0.1).clamp(0, 1))[0] == 0


def test_images_that_were_trained_on_are_refused_with_their_number(digits: Dataset) -> None:
    sketch = content_sketch(digits.train.images)
    check_unseen(sketch, digits.test.images, "x")
    two_of_all = torch.cat([digits.train.images[:2], digits.test.images])
    check_unseen(sketch, two_of_all, "x")  # below 1 %: data sets hold duplicates
    four_of_all = torch.cat([digits.train.images[:4], digits.test.images])
    with pytest.raises(InputError) as error:
        check_unseen(sketch, four_of_all, "calibration")
    assert str(error.value) == (
        "calibration: 4 of 304 images that can be told are among those that the model was trained on, must be other "
        "images"
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"images: shape is \(3, 8, 8\), must be \(N, C, H, W\)"),
        (torch.zeros(3, 1, 8, 8, dtype=torch.int32), "images: dtype is torch.int32, must be uint8"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(images: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        content_sketch(images)
