"""The report of a suite: report.json, report.md with its pictures, and report.html, all from the stored results."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ... import provenance
from ...files import atomic_write, slug
from ..fields import Fields, Json, text
from ..frame import frame_of
from ..key import CellKey
from ..protocols import protocols
from ..result import Cell, CellResult, failed, measured
from ..runner import Bench
from ..suite.run import SuiteRun
from ..suite.unseen import marked, unseen_budgets
from ..worst_case import WorstCase, worst_case
from . import cells, still
from .curves import Curves, HeatMap, heat_map, place_of, risk_curves, roc_curves
from .examples import sheets
from .forced import forced_curves, forced_failures, forced_tables
from .html import page
from .protocol_tables import protocol_tables
from .text import Table, grid
from .worst_tables import broken_tables, worst_tables

UNAWARE = "No attack here knows the detector: a robust risk without one means little."


@dataclass(frozen=True)
class FailedCell:
    """A cell that could not be measured, and why."""

    key: CellKey
    error: str

    def to_json(self) -> dict[str, Json]:
        return {"spec": self.key.to_json(), "error": self.error}

    @classmethod
    def from_json(cls, value: object) -> FailedCell:
        given = Fields(value, "failed")
        return cls(CellKey.from_json(given.inner("spec").values), given.text("error"))


@dataclass(frozen=True)
class SuiteReport:
    """What report.json says of a suite.

    Attributes:
        suite: the name of its file.
        command: that makes the report again.
        commit: of the code that made it.
        alpha: bound on the false-alarm rate.
        correct_only: whether it is of the images that the model labels right.
        worst_case: an entry for each model, detector and budget.
        failed: cells that could not be measured.
        cells: the files of all cells, below the folder of the report.
    """

    suite: str
    command: str
    commit: str | None
    alpha: float
    correct_only: bool
    worst_case: tuple[WorstCase, ...]
    failed: tuple[FailedCell, ...]
    cells: tuple[str, ...]

    def to_json(self) -> dict[str, Json]:
        return {
            "suite": self.suite,
            "command": self.command,
            "commit": self.commit,
            "alpha": self.alpha,
            **({"correct_only": True} if self.correct_only else {}),
            "worst_case": [entry.to_json() for entry in self.worst_case],
            "failed": [cell.to_json() for cell in self.failed],
            "cells": list(self.cells),
        }

    @classmethod
    def from_json(cls, value: object) -> SuiteReport:
        """What `to_json` gave.

        Raises:
            WrongJson: it is something else.
        """
        given = Fields(value)
        return cls(
            suite=given.text("suite"),
            command=given.text("command"),
            commit=given.maybe_text("commit"),
            alpha=given.number("alpha"),
            correct_only="correct_only" in given and given.flag("correct_only"),
            worst_case=given.several("worst_case", WorstCase.from_json),
            failed=given.several("failed", FailedCell.from_json),
            cells=given.several("cells", text),
        )


def write(run: SuiteRun, out: str | Path, needs_data_dir: bool = False) -> list[Path]:
    """Write the report of a suite that was run.

    Args:
        run: from `run_suite`.
        out: folder of all results, which it goes to.
        needs_data_dir: whether the command that makes the report again must say where the data is.

    Returns:
        The files: report.json, report.md, report.html, and the pictures.
    """
    out = Path(out)
    results, entries = measured(run.cells), marked(worst_case(run.cells), run.suite, run.benches)
    found = protocols(run.cells, entries)
    command = _command(run, out, needs_data_dir)
    content = SuiteReport(
        suite=run.suite.path.name,
        command=command,
        commit=provenance.commit(),
        alpha=run.suite.alpha,
        correct_only=run.suite.correct_only,
        worst_case=tuple(entries),
        failed=tuple(FailedCell(cell.key, cell.error) for cell in failed(run.cells)),
        cells=tuple(str(cell.key.path) for cell in run.cells),
    )
    written = [atomic_write(out / "report.json", json.dumps(content.to_json(), indent=2, allow_nan=False) + "\n")]
    tables = [*worst_tables(entries), *protocol_tables(found), *_forced_tables(run), *broken_tables(entries)]
    tables += _cell_tables(run)
    figures = _figures(results, entries) if entries else {}
    figures |= {"forced": forced} if (forced := forced_curves(run.forced)) else {}
    pictures = [_picture(figure, out / f"{name}.png") for name, figure in figures.items()]
    shown = [path for bench in run.benches for path in sheets(bench, measured(_of(bench, run.cells)), out)]
    notes = [_summary(run), *cells.failures(run.cells), *forced_failures(run.forced), *_partial(entries)]
    written.append(atomic_write(out / "report.md", _markdown(run, notes, tables, [*pictures, *shown], command)))
    html = page(f"Suite {run.suite.path.name}", notes, tables, list(figures.values()), shown, command)
    written.append(atomic_write(out / "report.html", html))
    return [*written, *pictures, *shown]


def tables(run: SuiteRun) -> str:
    """The worst-case tables as text, for a terminal."""
    worst = worst_tables(marked(worst_case(run.cells), run.suite, run.benches))
    return "\n\n".join(f"{table.title}\n\n{grid(table.rows)}" for table in worst)


def _forced_tables(run: SuiteRun) -> list[Table]:
    budgets = unseen_budgets(run.suite, run.benches)
    unseen = [(each.norm, each.eps) in budgets[CellKey.folder_of(each.data, each.model)] for each in run.forced]
    return forced_tables(run.forced, unseen)


def _cell_tables(run: SuiteRun) -> list[Table]:
    """One a model, a row a cell, with the checks that fired."""
    made: list[Table] = []
    for bench, unseen in zip(run.benches, unseen_budgets(run.suite, run.benches).values(), strict=True):
        here = _of(bench, run.cells)
        said = "\n\n".join([*([] if made else [cells.DEFINITIONS]), *cells.fired(here)])
        rows = cells.rows(frame_of(measured(here)), cells.marking(cells.WITH_N, unseen))
        made.append(Table(f"Every cell: {bench.target.data.name}, {bench.target.name}", said, rows))
    return made


def _of(bench: Bench, found: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in found if cell.key.folder == bench.folder]


def _figures(results: list[CellResult], entries: list[WorstCase]) -> dict[str, Curves | HeatMap]:
    """By the name of their picture."""
    figures: dict[str, Curves | HeatMap] = {"risk": risk_curves(entries)}
    for place in dict.fromkeys(map(place_of, results)):
        here = [result for result in results if place_of(result) == place]
        name = slug("-".join(place))
        figures |= {f"heat-{name}": heat_map(here), f"roc-{name}": roc_curves(here, log_x=True)}
    return figures


def _picture(figure: Curves | HeatMap, path: Path) -> Path:
    return still.heat(figure, path) if isinstance(figure, HeatMap) else still.curves(figure, path)


def _markdown(run: SuiteRun, notes: list[str], made: list[Table], pictures: list[Path], command: str) -> str:
    shown = ["\n\n".join(filter(None, [f"## {table.title}", table.text, grid(table.rows)])) for table in made]
    drawn = [f"![{path.stem}]({path.name})" for path in pictures]
    parts = [
        f"# Suite {run.suite.path.name}",
        *notes,
        *shown,
        *drawn,
        f"## Again\n\n```sh\n{command}\n```",
        f"The curves to look into: `report.html`, which that makes beside this file. {_environment(run)}",
    ]
    return "\n\n".join(parts) + "\n"


def _summary(run: SuiteRun) -> str:
    models = "; ".join(
        f"{bench.target.name} on the first {len(bench.y)} test images of {bench.target.data.name}"
        for bench in run.benches
    )
    aware = any(result.knows_detector for result in measured(run.cells))
    said = f"{models}. Detectors calibrated to a false-alarm rate of {run.suite.false_alarms}."
    return said if aware else f"{said} **{UNAWARE}**"


def _partial(entries: Sequence[WorstCase]) -> list[str]:
    """Which attacks were run on fewer images than the others."""
    fewer = dict.fromkeys(
        f"{attack.attack} on {attack.images} of {entry.n} images ({entry.model}, {entry.budget})"
        for entry in entries
        for attack in entry.attacks
        if attack.images < entry.n
    )
    said = "; ".join(fewer)
    return [f"Run on fewer images, so that the others count as not broken by them: {said}."] if fewer else []


def _environment(run: SuiteRun) -> str:
    lines = dict.fromkeys(str(cell.environment) for cell in run.cells)
    seconds = sum(result.seconds for result in measured(run.cells))
    return "\n\n".join([f"{seconds / 60:.1f} minutes in all cells together.", *lines])


def _command(run: SuiteRun, out: Path, needs_data_dir: bool) -> str:
    precision = ["--precision", run.suite.precision] if run.suite.precision else []
    command = shlex.join(["robustrecon", "bench", "--suite", str(run.suite.path), "--out", str(out), *precision])
    return f'{command} --data-dir "$DATA_DIR"' if needs_data_dir else command
