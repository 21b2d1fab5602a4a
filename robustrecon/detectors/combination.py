"""Several detectors as one, which rejects what any of them rejects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from ..types import InputError
from .base import Detector
from .catalogue import with_share


class AnyOf(nn.Module):
    """Rejects an input that any of m detectors rejects, each calibrated to its share of the false-alarm rate alpha.

    The shares are the same, alpha / m each, where nobody says otherwise. "any_of(3*NAME,NAME)" gives the first three
    shares of four, "any_of(NAME,0*NAME)" all but the least that n calibration images can bound, 1 / (n + 1): the other
    then rejects what is more suspicious than all of them. By the union bound (Bonferroni's) all together reject at most
    a share alpha of clean inputs, however they depend on each other.

    Args:
        detectors: at least two, all of different names.
        shares: of alpha, a whole number for each; the same for all by default, and not 0 for all.

    Raises:
        InputError: fewer, two of one name, or shares that are all 0.
    """

    def __init__(self, detectors: Iterable[Detector], shares: Sequence[int] | None = None) -> None:
        super().__init__()
        self.detectors = nn.ModuleList(detectors)
        self.shares = (1,) * len(self.detectors) if shares is None else tuple(shares)
        names = [detector.name for detector in self]
        if self.shares and not any(self.shares):
            raise InputError(f"detector: got a share of 0 for each of {', '.join(names)}, must be more for one of them")
        self.name = f"any_of({','.join(map(with_share, names, self.shares))})"
        if len(set(names)) != len(names) or len(names) < 2:
            raise InputError(f"detector: got {self.name}, must be any_of at least two detectors, all different")

    def __iter__(self) -> Iterator[Detector]:
        for detector in self.detectors:
            assert isinstance(detector, Detector)
            yield detector

    def extra_repr(self) -> str:
        return repr(self.name)
