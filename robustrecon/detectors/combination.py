"""Several detectors as one, which rejects what any of them rejects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from ..types import InputError
from .base import Detector


class AnyOf(nn.Module):
    """Rejects an input that any of m detectors rejects, each calibrated to a false-alarm rate of alpha / m.

    By the union bound (Bonferroni's) all together reject at most a share alpha of clean inputs, however they depend on
    each other.

    Args:
        detectors: at least two, all of different names.

    Raises:
        InputError: fewer, or two of one name.
    """

    def __init__(self, detectors: Iterable[Detector]) -> None:
        super().__init__()
        self.detectors = nn.ModuleList(detectors)
        names = [detector.name for detector in self]
        self.name = f"any_of({','.join(names)})"
        if len(set(names)) != len(names) or len(names) < 2:
            raise InputError(f"detector: got {self.name}, must be any_of at least two detectors, all different")

    def __iter__(self) -> Iterator[Detector]:
        for detector in self.detectors:
            assert isinstance(detector, Detector)
            yield detector

    def extra_repr(self) -> str:
        return repr(self.name)
