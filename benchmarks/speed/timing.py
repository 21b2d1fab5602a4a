"""Candidates timed in turns, so that a drift of the machine meets them all."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds a round of one candidate."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def over(self, other: Timing) -> tuple[float, float, float]:
        """Lowest, median and highest ratio to another candidate, round by round."""
        ratios = sorted(a / b for a, b in zip(self.rounds, other.rounds, strict=True))
        return ratios[0], statistics.median(ratios), ratios[-1]


def in_turns(title: str, candidates: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Time every candidate `rounds` times, one after the other, after a round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for counted in range(rounds + 1):
        print(f"{title}: round {counted} of {rounds}", file=sys.stderr)
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            if counted:
                seconds[name].append(time.perf_counter() - started)
    return {name: Timing(found) for name, found in seconds.items()}
