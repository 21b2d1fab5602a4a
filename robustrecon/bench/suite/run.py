"""Running a suite: every cell of every model, in this process or in several; stored cells are not run again."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...files import check_writable, slug
from ...runtime import Progress
from ...types import InputError
from .. import store
from ..cost import Costs, duration, wall_clock
from ..model import RUNS, load_benchmark_model
from ..plan import AttackConfig
from ..result import Cell, CellFailure, failed
from ..runner import Bench
from .forced import ForcedResult, force_rejections
from .front_end import without_gentler_slopes
from .read import Suite, SuiteModel
from .unseen import unmarked

if TYPE_CHECKING:
    from ..parallel import WorkerSetup


@dataclass(frozen=True)
class SuiteRun:
    """A suite that was run.

    Attributes:
        suite: what was to be measured.
        benches: one for each of its models.
        cells: in the order of the file; failures among them.
        forced: curves of forced rejection, where the suite asks for them; failures among them.
    """

    suite: Suite
    benches: tuple[Bench, ...]
    cells: tuple[Cell, ...]
    forced: tuple[ForcedResult, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing failed."""
        return not failed(self.cells) and all(each.curve for each in self.forced)


@dataclass(frozen=True)
class _Todo:
    """One attack at one eps on one model, with the detectors that it is still to be judged by."""

    model: SuiteModel
    bench: Bench
    config: AttackConfig
    detectors: tuple[str, ...]


def run_suite(
    suite: Suite,
    out: str | Path = "runs/results",
    data_dir: str | Path = "data",
    *,
    workers: int = 1,
    backend: str = "loky",
    device: str = "auto",
    progress: bool = True,
) -> SuiteRun:
    """Measure every cell of a suite, then its curves of forced rejection, in this process.

    A cell that fails is recorded, as by `run`, and the others go on. Lines on stderr say for which models the suite
    does not mark budgets that training did not see, and which have a front end that no attack gives a gentler slope.

    Args:
        suite: from `read_suite`.
        out: folder of all results; a cell that is stored there already is not run again.
        data_dir: where the data is.
        workers: processes; 1 with "loky" is this process.
        backend: "loky" (processes on this machine), "dask" or "ray"; where those have a cluster already, `out`,
            `data_dir` and the models must be in the same place on all its machines.
        device: to attack on.
        progress: show progress on stderr.

    Raises:
        InputError: no such model or data, models whose results would have the same place, too few calibration images
            for alpha, "bfloat16" for a processor or a model that cannot, a `front_end` for a model that has none, an
            unwritable folder, or a backend that is not there.
    """
    from ..parallel import check_workers

    check_workers(workers, backend)
    check_writable(Path(out))
    benches = tuple(load_benches(suite, Path(out), data_dir, device, progress))
    for model, bench in zip(suite.models, benches, strict=True):
        for said in filter(None, (unmarked(model, bench.target), without_gentler_slopes(model, bench.target))):
            print(f"{suite.path}: {said}", file=sys.stderr)
    cells = [
        (model, bench, config, detector)
        for model, bench in zip(suite.models, benches, strict=True)
        for config in model.attacks
        for detector in model.detectors
    ]
    todo = _cheapest_first(_todo(suite, benches), Path(out), workers, progress)
    left = sum(len(each.detectors) for each in todo)
    if progress and left < len(cells):
        print(f"done before: {len(cells) - left} of {len(cells)} cells", file=sys.stderr)
    with Progress(suite.path.name, len(cells), "cells", progress) as bar:
        bar.resume(len(cells) - left)
        for n in _run(todo, data_dir, workers, backend, device):
            bar.advance(n)
    found = tuple(_stored(bench, config, detector) for _, bench, config, detector in cells)
    return SuiteRun(suite, benches, found, force_rejections(suite, benches, progress))


def _stored(bench: Bench, config: AttackConfig, detector: str) -> Cell:
    """The result or failure of a cell that was run; that there is none, such as on a disk not shared, is a failure."""
    key = bench.key(config, detector)
    missing = FileNotFoundError(f"{bench.root / key.path}: no result is there after the run")
    return bench.found(config, detector) or CellFailure.of(key, missing, bench.environment(key.precision))


def load_benches(suite: Suite, out: Path, data_dir: str | Path, device: str, progress: bool) -> Iterator[Bench]:
    """Load every model with its data, so that errors show before anything runs."""
    folders: dict[Path, str | None] = {}
    for model in suite.models:
        target = load_benchmark_model(model.name, suite.data, data_dir, device, progress)
        bench = Bench(target, model.detectors, suite.alpha, model.n, out, False, suite.correct_only)
        if bench.folder in folders:
            raise InputError(
                f"{suite.path}: model: {folders[bench.folder]} and {model.name} are both called {bench.folder}, must "
                "differ in recipe or be in suites of their own, with an --out each"
            )
        folders[bench.folder] = model.name
        bench.check_attacks(model.attacks)
        yield bench


def _todo(suite: Suite, benches: tuple[Bench, ...]) -> Iterator[_Todo]:
    """What is not stored yet, in the order of the file."""
    for model, bench in zip(suite.models, benches, strict=True):
        for config in model.attacks:
            left = tuple(name for name in model.detectors if bench.done(config, name) is None)
            for group in attacked_together(config, left):
                yield _Todo(model, bench, config, group)


def attacked_together(config: AttackConfig, detectors: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The detectors in groups, each for the images of one attack; each has its own if the attack knows it."""
    if config.attack.knows_detector:
        return [(name,) for name in detectors]
    return [detectors] if detectors else []


def _cheapest_first(todo: Iterable[_Todo], out: Path, workers: int, progress: bool) -> list[_Todo]:
    """In the order in which they run, so that most rows of a report are there early."""
    todo = list(todo)
    costs = Costs(store.read_folder(out).results if todo else [])
    priced = [(costs.of(each.bench, each.config, each.detectors), each) for each in todo]
    priced.sort(key=lambda pair: pair[0].order)
    if progress and priced:
        seconds = wall_clock([cost for cost, _ in priced], workers)
        print(f"expected: about {duration(seconds)}, the cheapest cells first", file=sys.stderr)
    return [each for _, each in priced]


def _run(todo: list[_Todo], data_dir: str | Path, workers: int, backend: str, device: str) -> Iterator[int]:
    """Run every cell that is left; yields numbers of cells as they are done."""
    if workers == 1 and backend == "loky":
        for each in todo:
            yield len(each.bench.cells(each.config, each.detectors))
        return
    from ..parallel import Job, run_jobs

    def job(each: _Todo) -> Job:
        setup = worker_setup(each.bench, each.model, data_dir, device, workers)
        return Job(setup, each.config, each.detectors)

    if todo:
        yield from run_jobs(map(job, todo), workers, backend)


def worker_setup(bench: Bench, model: SuiteModel, data_dir: str | Path, device: str, workers: int) -> WorkerSetup:
    """Where one of several workers finds the model of a suite."""
    import joblib

    from ..parallel import WorkerSetup

    data = bench.target.data.name
    return WorkerSetup(
        model=model.name or str(RUNS / slug(data)),
        data=data,
        data_dir=str(data_dir),
        device=device,
        weights=bench.weights,
        detectors=model.detectors,
        alpha=bench.alpha,
        correct_only=bench.correct_only,
        n=model.n,
        root=str(bench.root),
        threads=max(1, joblib.cpu_count() // workers),
    )
