"""Detectors by name: a score of (energies, logits), and the conformal threshold over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from ..types import unknown_name
from .conformal import Calibration, calibrate, images_needed
from .scores import global_error, label_margin

__all__ = ["SCORES", "Calibration", "Score", "calibrate", "images_needed", "load_score"]

Score: TypeAlias = Callable[[Tensor, Tensor], Tensor]
SCORES: dict[str, Score] = {score.__name__: score for score in (label_margin, global_error)}


def load_score(name: str) -> Score:
    """The score called `name`.

    Raises:
        InputError: unknown name; the message suggests the closest one.
    """
    if name not in SCORES:
        unknown_name("detector", name, SCORES)
    return SCORES[name]
