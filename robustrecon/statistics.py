"""Shares of images with their exact intervals, and the distance of two sets of images."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

Flags: TypeAlias = NDArray[np.bool_]

CONFIDENCE = 0.95


class Rate:
    """A share of `n` images, `value`, and its exact 95 % `interval` (Clopper-Pearson); both None among no images."""

    def __init__(self, flags: Flags, among: Flags | None = None) -> None:
        flags = flags if among is None else flags[among]
        self.n = len(flags)
        self.value: float | None = None
        self.interval: list[float] | None = None
        if self.n:
            hits = int(flags.sum())
            self.value = hits / self.n
            self.interval = clopper_pearson(hits, self.n)


def clopper_pearson(hits: int, n: int) -> list[float]:
    """The exact 95 % interval of a share of n > 0.

    Clopper, Pearson: The use of confidence or fiducial limits illustrated in the case of the binomial, 1934.
    """
    interval = binomtest(hits, n).proportion_ci(CONFIDENCE, method="exact")
    return [float(interval.low), float(interval.high)]


def frechet_distance(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Squared Fréchet distance of two Gaussians with the means and covariances of features a (N, F) and b (M, F).

    M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017;
    there the features are of a network trained on ImageNet. It is biased upwards, the more so the fewer rows there are,
    so that only distances of equally many are comparable.
    """
    of_a, of_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(of_a)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    between = np.sqrt(np.linalg.eigvalsh(root @ of_b @ root).clip(min=0)).sum()  # trace of the root of of_a · of_b
    apart = np.square(a.mean(0) - b.mean(0)).sum()
    return float(apart + np.trace(of_a) + np.trace(of_b) - 2 * between)
