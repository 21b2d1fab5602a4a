"""What a cell is expected to cost: from recorded times of cells like it, or else from a timed pass of the model."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from ..attacks import ScoredVictim, frozen_eval, in_precision, seeded
from ..defence import DefendedClassifier
from ..detectors import parts
from .key import CellKey
from .plan import AttackConfig
from .result import CellResult
from .runner import Bench

TIMED = 16  # images of the batch that is timed
REPEATS = 3  # of which the fastest counts; the first one also warms up
JUDGING = 1  # passes that it takes to judge an image before and after the attack
CHECKED = 32  # at most so many images are attacked again by the checks,
CHECKS = 110  # which do so many passes of their own on each


@dataclass(frozen=True)
class Cost:
    """Expected cost of one attack at one eps on one model.

    Attributes:
        seconds: that it takes; None where nobody knows.
        source: "recorded" from cells like it, "estimated" from a timed pass, "model alone" where that is a pass of the
            model without its detector, which has not learned from training images yet, or "unknown".
    """

    seconds: float | None
    source: str

    @property
    def order(self) -> float:
        """The cheapest first, and at the end what nobody knows."""
        return math.inf if self.seconds is None else self.seconds


ALONE = "model alone"  # a source
UNKNOWN = Cost(None, "unknown")


class Costs:
    """Expected costs of cells.

    Args:
        recorded: stored cells, whose times are taken as they are.
    """

    def __init__(self, recorded: Sequence[CellResult]) -> None:
        self.recorded = recorded
        self._pass_seconds: dict[tuple[Path, str | None, str], float | None] = {}

    def of(self, bench: Bench, config: AttackConfig, detectors: Sequence[str]) -> Cost:
        """That of an attack whose images these detectors judge."""
        key = bench.key(config, detectors[0])
        alike = min(self._alike(key), key=lambda result: _distance(result.key, key), default=None)
        if alike is not None:
            return Cost(alike.seconds / alike.key.n * key.n, "recorded")
        passes = _passes(config, key.n, bench.target.data.n_classes)
        return self.estimated(bench, detectors[0] if config.attack.knows_detector else None, key.precision, passes)

    def estimated(self, bench: Bench, detector: str | None, precision: str, passes: int) -> Cost:
        """That of so many passes of one image each through the model, and the detector where there is one."""
        alone = detector is not None and not bench.can_score(detector)  # nothing is trained for an estimate
        seconds = self._pass(bench, None if alone else detector, precision)
        return UNKNOWN if seconds is None else Cost(seconds * passes, ALONE if alone else "estimated")

    def _alike(self, key: CellKey) -> Iterator[CellResult]:
        """The recorded cells of the same attack in the same norm, on any model."""
        return (each for each in self.recorded if _attack(each.key) == _attack(key))

    def _pass(self, bench: Bench, detector: str | None, precision: str) -> float | None:
        """Seconds that a forward and backward pass of one image takes, measured once for each way to run the model."""
        place = bench.folder, detector, precision
        if place not in self._pass_seconds:
            self._pass_seconds[place] = _timed(bench, detector, precision)
        return self._pass_seconds[place]


def _attack(key: CellKey) -> tuple[object, ...]:
    return key.attack, key.engine, key.norm, key.steps, key.parameters, key.eps > 0


def _distance(recorded: CellKey, key: CellKey) -> tuple[object, ...]:
    """Order of preference among cells of the same attack, the best first."""
    other_model = (recorded.data, recorded.model) != (key.data, key.model)
    other_precision, other_detector = recorded.precision != key.precision, recorded.detector != key.detector
    return other_model, other_precision, abs(recorded.eps - key.eps), other_detector, abs(recorded.n - key.n)


def _passes(config: AttackConfig, n: int, n_classes: int) -> int:
    """Passes of one image each that a cell of n images takes, checks included, when no image is ever broken."""
    if config.attack.threat.eps == 0:
        return JUDGING * n
    attacking = config.attack.passes(n_classes)
    return (attacking + JUDGING) * n + (attacking + CHECKS) * min(n, CHECKED)


def _timed(bench: Bench, detector: str | None, precision: str) -> float | None:
    """Seconds for a forward and backward pass of an image; None where that fails."""
    model, x = bench.target.model, bench.x[:TIMED]
    times = []
    try:
        outputs = _outputs(bench, detector, precision)
        with frozen_eval(model), seeded(0):
            for _ in range(REPEATS):
                started = time.monotonic()
                x_adv = x.detach().clone().requires_grad_()
                total = torch.stack([output(x_adv).sum() for output in outputs]).sum()
                if total.requires_grad:
                    (grad,) = torch.autograd.grad(total, x_adv)
                    grad.sum().item()  # waits until a GPU is done
                times.append(time.monotonic() - started)
    except Exception:  # whatever it is, the cell will fail with it and say so
        return None
    return min(times) / len(x)


def _outputs(bench: Bench, detector: str | None, precision: str) -> list[Callable[[Tensor], Tensor]]:
    """What an attack follows: the model's logits, or the scores of a detector, which need no calibration here."""
    model = bench.target.model
    if detector is None:
        return [in_precision(model, precision)]
    return [
        cast("ScoredVictim", in_precision(DefendedClassifier(model, part), precision)).score
        for part in parts(bench.fitted(detector).detector)
    ]


def wall_clock(costs: Sequence[Cost], workers: int) -> float:
    """Seconds until all is done when each worker that is free takes the next; unknown costs count as nothing."""
    free_at = [0.0] * workers
    for cost in costs:
        heapq.heapreplace(free_at, free_at[0] + (cost.seconds or 0.0))
    return max(free_at)


def duration(seconds: float) -> str:
    """A time in its natural unit: `0.4 s`, `12 s`, `3.5 min`, `2.1 h`."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
