"""A sheet of images that a model makes from nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import nn

from ..models import MODELS
from ..models.base import Samples
from ..runtime import Progress, device_of, evaluating
from ..types import InputError
from .base import Array, Drawable, Measure, check_count
from .sheets import show

BATCH = 256  # images that are made at a time


@dataclass(frozen=True)
class SampleSheet(Drawable):
    """Samples of some classes.

    Attributes:
        images: (L, N, C, H, W) in [0, 1], N of each class.
        names: (L,) the classes.
    """

    images: Array
    names: tuple[str, ...]

    @property
    def measures(self) -> dict[str, Measure]:
        return {}

    @property
    def caption(self) -> str:
        classes, n = self.images.shape[:2]
        whose = f"class {self.names[0]}" if classes == 1 else f"each of {classes} classes"
        return f"Images that the model made from nothing: {n:,} of {whose}. All that were made are shown."

    def plot(self, ax: Any) -> None:
        """The classes below each other, each in as many rows as make the sheet about square."""
        classes, n, *shape = self.images.shape
        rows = min(range(1, n + 1), key=lambda rows: max(rows * classes, math.ceil(n / rows)))
        columns = math.ceil(n / rows)
        laid = np.ones((classes, rows * columns, *shape), dtype=np.float32)  # white where a row is not full
        laid[:, :n] = self.images
        names = [name if row == 0 else "" for name in self.names for row in range(rows)]
        show(ax, laid.reshape(-1, columns, *shape), rows=names)


def samples(
    model: nn.Module,
    labels: Sequence[int],
    names: Sequence[str],
    n: int = 8,
    *,
    seed: int = 0,
    progress: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> SampleSheet:
    """Make n images of each label.

    Args:
        model: a model with `sample`.
        labels: from 0.
        names: of these labels.
        n: images a label.
        seed: of the generator; the same seed, labels and n give the same images.
        progress: show the progress on stderr.
        settings: other arguments of the model's `sample`.

    Raises:
        InputError: a model that has no sampler or one without these settings, or whose images cannot be drawn.
    """
    check_count(n, "n")
    if not isinstance(model, Samples):
        able = ", ".join(name for name, kind in MODELS.items() if issubclass(kind, Samples))
        raise InputError(
            f"model: {getattr(model, 'name', type(model).__name__)} has no sampler, it makes no images from nothing; "
            f"must have a method `sample`{able and f', as {able}'}"
        )
    settings = settings or {}
    for name in settings:
        if name not in signature(model.sample).parameters:
            raise InputError(f"{name}: is nothing that the sampler of {getattr(model, 'name', model)} has")
    device = device_of(model)
    generator = torch.Generator(device).manual_seed(seed)
    wanted = torch.tensor(labels, device=device).repeat_interleave(n)
    parts = []
    with evaluating(model), Progress("samples", len(wanted), "images", progress) as bar:
        for part in wanted.split(BATCH):
            parts.append(model.sample(part, generator, **settings).detach().cpu())
            bar.advance(len(part))
    images = torch.cat(parts)
    if images.shape[1] not in (1, 3):
        raise InputError(f"model: makes images of {images.shape[1]} channels, must be 1 or 3 to be drawn")
    return SampleSheet(images.view(len(labels), n, *images.shape[1:]).numpy(), tuple(names))
