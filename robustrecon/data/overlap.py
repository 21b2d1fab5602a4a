"""Which images a model was trained on, recognised by their pixels: a small sketch of the training set.

A. Broder, "On the resemblance and containment of documents", SEQUENCES 1997, for bottom-k sketches: the k smallest
hashes of a set are a uniform sample of it, and they decide membership exactly for every image with a hash that is no
larger than the largest of them.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..types import InputError

SKETCH = 16_384
"""Hashes in a sketch. A shorter sketch holds the whole training set, so sketches that are stored depend on it."""

MOST_SEEN = 0.01  # share of images that two disjoint parts may have in common: data sets do hold duplicates
CHUNK = 1 << 20  # 64-bit words that are hashed at a time

Words: TypeAlias = NDArray[np.uint64]


def content_sketch(images: Tensor) -> Tensor:
    """The smallest 64-bit hashes of the different images among `images`: (n,) int64, ascending, n at most `SKETCH`.

    Args:
        images: (N, C, H, W) uint8, or floats in [0, 1], which are rounded to 255ths.

    Raises:
        InputError: images of another shape or type.
    """
    return torch.from_numpy(np.unique(_hashes(images))[:SKETCH])


def share_seen(sketch: Tensor, images: Tensor) -> tuple[int, int]:
    """How many of `images` are known to be in a sketch, and for how many of them the sketch can tell.

    Args:
        sketch: (n,) int64, what `content_sketch` returned for the training images.
        images: (N, C, H, W) uint8, or floats in [0, 1], which are rounded to 255ths.

    Returns:
        (seen, decidable): two counts. All images are decidable when the sketch holds the whole training set.

    Raises:
        InputError: images of another shape or type.
    """
    known, hashes = sketch.numpy(), _hashes(images)
    if len(known) >= SKETCH:
        hashes = hashes[hashes <= known[-1]]
    return int(np.isin(hashes, known).sum()), len(hashes)


def check_unseen(sketch: Tensor, images: Tensor, what: str) -> None:
    """Raise for images that a model was trained on.

    Args:
        sketch: (n,) int64, what `content_sketch` returned for the training images.
        images: (N, C, H, W) uint8, or floats in [0, 1].
        what: the argument that the message names.

    Raises:
        InputError: more than 1 % of the decidable images were seen, or images of another shape or type.
    """
    check_share(*share_seen(sketch, images), what)


def check_share(seen: int, decidable: int, what: str) -> None:
    """As `check_unseen`, from the counts that `share_seen` gave, added up over batches."""
    if seen > MOST_SEEN * decidable:
        raise InputError(
            f"{what}: {seen:,} of {decidable:,} images that can be told are among those that the model was trained "
            "on, must be other images"
        )


def _hashes(images: Tensor) -> NDArray[np.int64]:
    """(N,) hashes of images: each 64-bit word of pixels is mixed with its position, and the words are added up."""
    if images.ndim != 4:
        raise InputError(f"images: shape is {tuple(images.shape)}, must be (N, C, H, W)")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise InputError(f"images: dtype is {images.dtype}, must be uint8, or floats in [0, 1]")
    pixels = images.shape[1:].numel()
    words = -(-pixels // 8)
    positions = _mixed(np.arange(1, words + 1, dtype=np.uint64))
    found = [np.empty(0, dtype=np.uint64)]
    for part in images.split(max(1, CHUNK // max(1, words))):
        padded = np.zeros((len(part), 8 * words), dtype=np.uint8)
        padded[:, :pixels] = _bytes(part).flatten(1).numpy()
        found.append(_mixed(_mixed(padded.view("<u8") + positions).sum(axis=1, dtype=np.uint64)))
    return np.concatenate(found).view(np.int64)


def _bytes(images: Tensor) -> Tensor:
    images = images.detach().cpu()
    return images if images.dtype == torch.uint8 else images.float().mul(255).round().clamp(0, 255).byte()


def _mixed(words: Words) -> Words:
    """A fixed random permutation of the 64-bit words: splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    mixed = words + np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
