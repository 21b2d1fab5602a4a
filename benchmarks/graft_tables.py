"""Tables of classifiers alone and grafted: robust risk under each attack, and in the worst case over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robustrecon.bench import measure, store
from robustrecon.bench.key import budget
from robustrecon.bench.report import text, worst_tables
from robustrecon.bench.result import CellResult
from robustrecon.bench.worst_case import WorstCase, worst_case

NOTE = """\
Robust risk: share of the images that are wrong or rejected when clean, or that the attack turns into a wrong label that
is accepted; without a detector it is the error under attack. *Worst case*: over all attacks of the budget and of
smaller ones, image by image, with its 95 % Clopper-Pearson interval. n: how many images an attack was run on; on fewer
images than others it counts for those alone. †: a check fired, so the attack may have failed. Lower bounds: a better
attack may exist. Robust risk does not count images that an attack has rejected."""


NOT_MEASURED = "Not measured yet."


@dataclass(frozen=True)
class System:
    """A row group of a table: a model under a detector, or without one.

    Attributes:
        title: what the table calls it.
        cells: folder of its cells in results: SUITE/DATA/MODEL/DETECTOR.
        undefended: take the label alone, of whatever detector the cells are.
    """

    title: str
    cells: str
    undefended: bool = False


def robust_risks(results: Path, systems: Sequence[System]) -> str:
    """A row for each system and attack, a column for each budget, from the cells that there are."""
    found = {system: cells_of(results, system) for system in systems}
    budgets = sorted({(cell.key.norm, cell.key.eps) for cells in found.values() for cell in cells}, key=_linf_first)
    rows = [["", "attack", "n", *(budget(*each) for each in budgets)]]
    for system, cells in found.items():
        if not cells:
            continue
        first = max(cells, key=lambda cell: len(cell.images))
        clean = text.percent(float(first.flags.at_risk_when_clean.mean()))
        rows.append([system.title, "none (clean)", f"{len(first.images):,}", *[clean] * len(budgets)])
        for attack in dict.fromkeys(cell.key.attack for cell in cells):
            of_attack = [cell for cell in cells if cell.key.attack == attack]
            by_budget = {(cell.key.norm, cell.key.eps): cell for cell in of_attack}
            n = sorted({len(cell.images) for cell in of_attack})
            shown = [_risk(by_budget.get(each)) for each in budgets]
            rows.append(
                [
                    "",
                    attack.rpartition(":")[2],
                    " to ".join(f"{each:,}" for each in dict.fromkeys((n[0], n[-1]))),
                    *shown,
                ]
            )
        entries = {(entry.norm, entry.eps): entry for entry in worst_case(cells)}
        at_worst = [f"**{worst(entries[each], system.undefended)}**" if each in entries else "" for each in budgets]
        rows.append(["", "**worst case**", "", *at_worst])
    return text.grid(rows) if len(rows) > 1 else NOT_MEASURED


def cells_of(results: Path, system: System) -> list[CellResult]:
    """The cells of a system, where `results` is the folder of that name."""
    cells = store.read_folder(results / system.cells).results
    return [undefended(cell) for cell in cells] if system.undefended else cells


def undefended(cell: CellResult) -> CellResult:
    """The cell as if nothing were ever rejected."""
    return replace(cell, metrics=measure(cell.images, math.inf))


def calibration(cells: Sequence[CellResult]) -> str:
    """How the detectors of cells were calibrated, as the beginning of a note."""
    bounds = " or ".join(dict.fromkeys(cell.key.false_alarms for cell in cells))
    return f"Calibrated to a false-alarm rate of {bounds}."


def _risk(cell: CellResult | None) -> str:
    return "" if cell is None else text.doubted(text.percent(cell.metrics.robust_risk), cell.checks)


def worst(entry: WorstCase, undefended: bool) -> str:
    """The risk with its interval; with a dagger where no attack vouches for it."""
    if undefended:  # there is no detector to know
        return text.bounded(entry.robust_risk, entry.robust_risk_interval)
    return worst_tables.risk(entry)


def _linf_first(key: tuple[str, float]) -> tuple[bool, float]:
    norm, eps = key
    return norm != "linf", eps
