"""What a run of a suite would do: which cells and curves are done, and how long the others are expected to take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ... import attacks, checkpoint
from ...data import load_data
from ...files import slug
from .. import store
from ..cost import ALONE, UNKNOWN, Cost, Costs, duration, wall_clock
from ..fields import Json
from ..key import budget
from ..model import RUNS
from ..report.text import grid
from ..runner import Bench
from .forced import forced_budgets, forced_jobs
from .read import Suite, SuiteModel
from .run import attacked_together, load_benches

WORKERS = (1, 2, 16, 128)
NOT_TRAINED = "default, not trained yet"
HEADING = ("model", "attack", "budget", "detectors", "images", "expected", "from")


@dataclass(frozen=True)
class PlannedAttack:
    """One attack at one eps on one model, and the detectors that judge its images: a cell for each, or a curve.

    Attributes:
        model: as the suite names it; for the default model its folder, or that it is not trained yet.
        attack: its title.
        norm, eps: the threat model.
        detectors: names of detectors.
        n: images.
        cost: expected; None where they are done.
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
        curves: of forced rejection, which run after all cells, in one process.
    """

    path: Path
    attacks: tuple[PlannedAttack, ...]
    workers: tuple[int, ...] = WORKERS
    curves: tuple[PlannedAttack, ...] = ()

    @property
    def cells(self) -> int:
        """How many cells the suite has."""
        return _count(self.attacks)

    @property
    def done(self) -> int:
        """How many of them are stored."""
        return _count(_done(self.attacks))

    @property
    def unknown(self) -> int:
        """How many of the other cells, and of the curves that are left, nobody has an expected time for."""
        return _count([each for each in (*self.attacks, *self.curves) if each.cost and each.cost.seconds is None])

    @property
    def seconds(self) -> dict[int, float]:
        """Number of workers -> expected time of all that is left; without the unknown times."""
        costs, afterwards = ([each.cost for each in rows if each.cost] for rows in (self.attacks, self.curves))
        return {workers: wall_clock(costs, workers) + wall_clock(afterwards, 1) for workers in self.workers}

    def to_json(self) -> dict[str, Json]:
        return {
            "suite": str(self.path),
            "cells": self.cells,
            "done": self.done,
            "curves": len(self.curves),
            "curves_done": len(_done(self.curves)),
            "unknown": self.unknown,
            "expected_seconds": {str(workers): seconds for workers, seconds in self.seconds.items()},
            "attacks": [each.to_json() for each in self.attacks],
            "forced_rejection": [each.to_json() for each in self.curves],
        }

    def text(self) -> str:
        """A table with a row an attack, and what is left in words."""
        said = [f"{self.done} of {self.cells} cells are done."]
        if self.curves:
            said += [
                f"{len(_done(self.curves))} of {len(self.curves)} curves of forced rejection are done; the others run "
                "after all cells, in one process."
            ]
        if self.done + len(_done(self.curves)) + self.unknown < self.cells + len(self.curves):
            times = [f"{duration(seconds)} with {workers}" for workers, seconds in self.seconds.items()]
            said += [
                "What is left runs in the order of the table, the cheapest cells first.",
                f"Expected time for what is left, by number of workers: {', '.join(times)}.",
                "Recorded times are those of stored cells, with the machine and the threads that they had; estimated "
                "ones are for images that are never broken, with the threads of this process.",
            ]
        if any(each.cost and each.cost.source == ALONE for each in (*self.attacks, *self.curves)):
            said += [
                f"Times from the {ALONE} are without the detector, which has not learned from training images yet, nor "
                "with what its learning takes."
            ]
        if self.unknown:
            said.append(
                f"{self.unknown} cells{' and curves' * bool(self.curves)} have no expected time and are not counted in "
                "it: their model is not trained yet, or fails in a pass."
            )
        rows = [each.row() for each in (*self.attacks, *self.curves)]
        return "\n\n".join([grid([HEADING, *rows]), "\n".join(said)])


def _count(rows: Sequence[PlannedAttack]) -> int:
    return sum(len(each.detectors) for each in rows)


def _done(rows: Sequence[PlannedAttack]) -> list[PlannedAttack]:
    return [each for each in rows if each.cost is None]


def plan_suite(
    suite: Suite,
    out: str | Path = "runs/results",
    data_dir: str | Path = "data",
    *,
    workers: int = 1,
    device: str = "auto",
) -> SuitePlan:
    """What `run_suite` would do; nothing is attacked, trained or written, and no detector learns.

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
    cells: list[PlannedAttack] = []
    curves: list[PlannedAttack] = []
    for model in models:
        bench = next(benches) if model.name else None
        cells += _attacks(model, bench, costs)
        curves += _curves(suite, model, bench, costs)
    cells.sort(key=lambda each: -1 if each.cost is None else each.cost.order)
    curves.sort(key=lambda each: each.cost is not None)
    return SuitePlan(suite.path, tuple(cells), tuple(sorted({*WORKERS, workers})), tuple(curves))


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


def _curves(suite: Suite, model: SuiteModel, bench: Bench | None, costs: Costs) -> Iterator[PlannedAttack]:
    """The curves of forced rejection of a model, in the order in which they run."""
    name = attacks.ForceReject.name
    if bench is None:
        n = min(suite.forced_rejection, model.n)
        for detector, norm, eps in forced_budgets(suite, model):
            yield PlannedAttack(NOT_TRAINED, name, norm, eps, (detector,), n, UNKNOWN)
        return
    for job in forced_jobs(suite, model, bench):
        done = job.stored() is not None
        cost = None if done else costs.estimated(bench, job.detector, "float32", job.passes)
        yield PlannedAttack(model.name or NOT_TRAINED, name, job.norm, job.eps, (job.detector,), job.n, cost)
