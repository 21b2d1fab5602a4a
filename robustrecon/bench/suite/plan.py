"""What a run of a suite would do: which cells are done, and how long the others are expected to take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ... import checkpoint
from ...data import load_data
from ...files import slug
from .. import store
from ..cost import UNKNOWN, Cost, Costs, duration, wall_clock
from ..fields import Json
from ..key import budget
from ..model import RUNS
from ..report.text import grid
from ..runner import Bench
from .read import Suite, SuiteModel
from .run import attacked_together, load_benches

WORKERS = (1, 2, 16, 128)
NOT_TRAINED = "default, not trained yet"
HEADING = ("model", "attack", "budget", "detectors", "images", "expected", "from")


@dataclass(frozen=True)
class PlannedAttack:
    """One attack at one eps on one model, and the detectors that judge its images: a cell for each.

    Attributes:
        model: as the suite names it; for the default model its folder, or that it is not trained yet.
        attack: its title.
        norm, eps: the threat model.
        detectors: names of detectors.
        n: images.
        cost: expected; None where the cells are done.
    """

    model: str
    attack: str
    norm: str
    eps: float
    detectors: tuple[str, ...]
    n: int
    cost: Cost | None

    def to_json(self) -> dict[str, Json]:
        return {
            "model": self.model,
            "attack": self.attack,
            "norm": self.norm,
            "eps": self.eps,
            "detectors": self.detectors,
            "n": self.n,
            "done": self.cost is None,
            "expected_seconds": self.cost.seconds if self.cost else None,
            "source": self.cost.source if self.cost else None,
        }

    def row(self) -> list[str]:
        """For a table."""
        what = [self.model, self.attack, budget(self.norm, self.eps), ", ".join(self.detectors), str(self.n)]
        if self.cost is None:
            return [*what, "done", ""]
        seconds = self.cost.seconds
        return [*what, "–" if seconds is None else duration(seconds), self.cost.source]


@dataclass(frozen=True)
class SuitePlan:
    """What a run of a suite would do.

    Attributes:
        path: the suite's file.
        attacks: those that are done, then the others in the order in which they run.
        workers: numbers of workers to expect times for.
    """

    path: Path
    attacks: tuple[PlannedAttack, ...]
    workers: tuple[int, ...] = WORKERS

    @property
    def cells(self) -> int:
        """How many cells the suite has."""
        return sum(len(each.detectors) for each in self.attacks)

    @property
    def done(self) -> int:
        """How many of them are stored."""
        return sum(len(each.detectors) for each in self.attacks if each.cost is None)

    @property
    def unknown(self) -> int:
        """How many of the others nobody has an expected time for."""
        return sum(len(each.detectors) for each in self.attacks if each.cost and each.cost.seconds is None)

    @property
    def seconds(self) -> dict[int, float]:
        """Number of workers -> expected time of all that is left; without the unknown times."""
        costs = [each.cost for each in self.attacks if each.cost]
        return {workers: wall_clock(costs, workers) for workers in self.workers}

    def to_json(self) -> dict[str, Json]:
        return {
            "suite": str(self.path),
            "cells": self.cells,
            "done": self.done,
            "unknown": self.unknown,
            "expected_seconds": {str(workers): seconds for workers, seconds in self.seconds.items()},
            "attacks": [each.to_json() for each in self.attacks],
        }

    def text(self) -> str:
        """A table with a row an attack, and what is left in words."""
        said = [f"{self.done} of {self.cells} cells are done."]
        if self.done + self.unknown < self.cells:
            times = [f"{duration(seconds)} with {workers}" for workers, seconds in self.seconds.items()]
            said += [
                "The others run in the order of the table, the cheapest first.",
                f"Expected time for what is left, by number of workers: {', '.join(times)}.",
                "Recorded times are those of stored cells, with the machine and the threads that they had; estimated "
                "ones are for images that are never broken, with the threads of this process.",
            ]
        if self.unknown:
            said.append(
                f"{self.unknown} cells have no expected time and are not counted in it: their model is not trained "
                "yet, or fails in a pass."
            )
        return "\n\n".join([grid([HEADING, *(each.row() for each in self.attacks)]), "\n".join(said)])


def plan_suite(
    suite: Suite,
    out: str | Path = "runs/results",
    data_dir: str | Path = "data",
    *,
    workers: int = 1,
    device: str = "auto",
) -> SuitePlan:
    """What `run_suite` would do; nothing is attacked, trained or written.

    Args:
        suite, out, data_dir, device: as for `run_suite`.
        workers: number of processes to expect a time for, beside 1, 2, 16 and 128.

    Raises:
        InputError: no such model or data, models whose results would have the same place, or too few calibration
            images for alpha.
    """
    models = [replace(model, name=model.name or _trained_default(suite, data_dir)) for model in suite.models]
    there = replace(suite, models=tuple(model for model in models if model.name))
    benches = load_benches(there, Path(out), data_dir, device, progress=False)
    costs = Costs(store.read_folder(Path(out)).results)
    attacks = [each for model in models for each in _attacks(model, next(benches) if model.name else None, costs)]
    attacks.sort(key=lambda each: each.cost.order if each.cost else -1)
    return SuitePlan(suite.path, tuple(attacks), tuple(sorted({*WORKERS, workers})))


def _trained_default(suite: Suite, data_dir: str | Path) -> str | None:
    """The folder of the default model for the suite's data; None where it is still to be trained."""
    folder = RUNS / slug(load_data(suite.data or "digits", data_dir).name)
    if not (folder / checkpoint.MODEL_FILE).exists() or not checkpoint.load(folder).card.get("finished"):
        return None
    return str(folder)


def _attacks(model: SuiteModel, bench: Bench | None, costs: Costs) -> Iterator[PlannedAttack]:
    """What was run on a model and what is to be run, in the order of the file."""
    for config in model.attacks:
        done = tuple(name for name in model.detectors if bench and bench.done(config, name))
        left = tuple(name for name in model.detectors if name not in done)
        for detectors in (done, left):
            for group in attacked_together(config, detectors):
                key = bench.key(config, group[0]) if bench else config.key(n=min(config.n, model.n))
                if bench and (stored := bench.done(config, group[0])):
                    key = stored.key
                cost = None
                if detectors is left:
                    cost = costs.of(bench, config, group) if bench else UNKNOWN
                yield PlannedAttack(
                    model=model.name or NOT_TRAINED,
                    attack=key.title,
                    norm=key.norm,
                    eps=key.eps,
                    detectors=group,
                    n=key.n,
                    cost=cost,
                )
