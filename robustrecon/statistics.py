"""Shares of images with their exact intervals."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Flags: TypeAlias = NDArray[np.bool_]

CONFIDENCE = 0.95


class Rate:
    """A share of images, `value`, and its exact 95 % `interval` (Clopper-Pearson); both None among no images."""

    def __init__(self, flags: Flags, among: Flags | None = None) -> None:
        flags = flags if among is None else flags[among]
        self.value: float | None = None
        self.interval: list[float] | None = None
        if len(flags):
            hits = int(flags.sum())
            self.value = hits / len(flags)
            self.interval = clopper_pearson(hits, len(flags))


def clopper_pearson(hits: int, n: int) -> list[float]:
    """The exact 95 % interval of a share of n > 0.

    Clopper, Pearson: The use of confidence or fiducial limits illustrated in the case of the binomial, 1934.
    """
    interval = binomtest(hits, n).proportion_ci(CONFIDENCE, method="exact")
    return [float(interval.low), float(interval.high)]
