"""Image files: folders of labelled images, and single images for a model to classify."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..types import ImageShape, InputError
from .splits import Dataset, shuffled, split, to_float

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp"}
_MODES = {1: "L", 3: "RGB"}
_GREY = {"1", "L", "I;16", "I;16B", "I;16L", "I;16N"}
# What Pillow raises for truncated and damaged files, and for decompression bombs.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def folder(root: Path) -> Dataset:
    """The data set in `root`: a folder for each class, or `train` and `test` with a folder for each class in both.

    The first image decides the shape of all: 1 channel if it is grey, else 3, and its size. The others are converted
    and resized to it. Labels number the class folders in alphabetical order.

    Raises:
        InputError: no such folder, fewer than two classes, a class without images, or an unreadable image.
    """
    if not root.is_dir():
        raise InputError(f"data: no folder {root}")
    whole = not ((root / "train").is_dir() and (root / "test").is_dir())
    files = _files(root if whole else root / "train")
    first = next(iter(files.values()))[0]
    with _open(first) as image:
        shape = (1 if image.mode in _GREY else 3, image.height, image.width)
    images, y = _stack(files, shape)
    test = None
    if not whole:
        test_files = _files(root / "test")
        if list(test_files) != list(files):
            raise InputError(f"data: {root / 'test'} has classes {list(test_files)}, must have {list(files)}")
        test = shuffled(*_stack(test_files, shape))  # they are sorted by class
    return split(f"folder:{root}", tuple(files), images, y, test)


def read_images(paths: Sequence[str | Path], image_shape: ImageShape) -> Tensor:
    """Image files as (B, C, H, W) float32 in [0, 1], converted and resized to `image_shape`.

    Raises:
        InputError: a file that is missing, damaged or not an image.
    """
    return to_float(torch.stack([_read(Path(path), image_shape) for path in paths]))


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files of `paths`, with those that have an image's suffix in and below each folder in its place, sorted.

    Raises:
        InputError: a folder without images.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not inside:
            raise InputError(f"{path}: a folder without images, must hold files such as .png or .jpg")
        found += inside
    return found


def _files(root: Path) -> dict[str, list[Path]]:
    files = {
        child.name: sorted(path for path in child.iterdir() if path.suffix.lower() in SUFFIXES)
        for child in sorted(root.iterdir())
        if child.is_dir() and not child.name.startswith(".")
    }
    if len(files) < 2:
        raise InputError(f"data: {root} has {len(files)} class folders, must have at least 2")
    empty = [name for name, paths in files.items() if not paths]
    if empty:
        raise InputError(f"data: no images in {root / empty[0]}")
    return files


def _stack(files: dict[str, list[Path]], shape: ImageShape) -> tuple[Tensor, Tensor]:
    images = torch.stack([_read(path, shape) for paths in files.values() for path in paths])
    y = torch.tensor([label for label, paths in enumerate(files.values()) for _ in paths])
    return images, y


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: is not an image") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, must be an image file") from None
    except _DAMAGE as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _read(path: Path, shape: ImageShape) -> Tensor:
    channels, height, width = shape
    if channels not in _MODES:
        raise InputError(f"image_shape: {channels} channels, must be 1 or 3 for image files")
    with _open(path) as opened:
        image: Image.Image = opened
        if image.mode in ("I", "F"):
            raise InputError(f"{path}: has 32-bit pixels, must have 8 or 16 bits a channel")
        try:
            image = ImageOps.exif_transpose(image)
            if image.mode in ("LA", "RGBA"):  # transparent pixels become black
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
            deep = image.mode.startswith("I;16")  # `convert` would clip them at 255
            eight = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8)) if deep else image
            pixels = eight.convert(_MODES[channels])
        except _DAMAGE as error:
            raise InputError(f"{path}: is a damaged image ({error})") from error
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(pixels)).reshape(height, width, channels).movedim(-1, 0)
