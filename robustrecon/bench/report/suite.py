"""The report of a suite: report.json, report.md with its pictures, and report.html, all from the stored results."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import provenance
from ...files import atomic_write, slug
from .. import store
from ..key import CellKey, budget
from ..runner import Bench
from ..suite.run import SuiteRun
from ..worst_case import worst_case
from . import examples as plots
from . import still as suite_plots
from . import tables as report
from .html import page
from .suite_tables import Table, broke_tables, worst_tables
from .tables import Result

CELL = {"n": lambda result: str(result["spec"]["n"]), **report.COLUMNS}  # which differs from cell to cell
UNAWARE = "No attack here knows the detector: a robust risk without one means little."


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
    results, entries = store.measured(run.results), worst_case(run.results)
    command = _command(run, out, needs_data_dir)
    content = {
        "suite": run.suite.path.name,
        "command": command,
        "commit": provenance.commit(),
        "alpha": run.suite.alpha,
        "worst_case": entries,
        "failed": [
            {key: result[key] for key in ("spec", "error")} for result in run.results if store.is_failed(result)
        ],
        "cells": [str(CellKey(**result["spec"]).path) for result in run.results],
    }
    written = [atomic_write(out / "report.json", json.dumps(content, indent=2, allow_nan=False) + "\n")]
    made = [*worst_tables(entries), *broke_tables(entries), *_cell_tables(run)]
    pictures = _pictures(results, entries, out) if entries else []
    sheets = _sheets(run, results, out)
    notes = [_summary(run), *report.failures(run.results), *_partial(entries)]
    written.append(atomic_write(out / "report.md", _markdown(run, notes, made, [*pictures, *sheets], command)))
    html = page(f"Suite {run.suite.path.name}", notes, made, results, entries, sheets, command)
    written.append(atomic_write(out / "report.html", html))
    return [*written, *pictures, *sheets]


def tables(run: SuiteRun) -> str:
    """The worst-case tables as text, for a terminal."""
    worst = worst_tables(worst_case(run.results))
    return "\n\n".join(f"{table.title}\n\n{report.grid(table.rows)}" for table in worst)


def _cell_tables(run: SuiteRun) -> list[Table]:
    """One a model, a row a cell, with the checks that fired."""
    made: list[Table] = []
    for bench in run.benches:
        here = _of(bench, run.results)
        text = "\n\n".join([*([] if made else [report.DEFINITIONS]), *report.fired(here)])
        made.append(Table(f"Every cell: {bench.target.data.name}, {bench.target.name}", text, report.rows(here, CELL)))
    return made


def _of(bench: Bench, results: Sequence[Result]) -> list[Result]:
    return [result for result in results if CellKey(**result["spec"]).folder == bench.folder]


def _pictures(results: list[Result], entries: list[dict[str, Any]], out: Path) -> list[Path]:
    made = [suite_plots.risk(entries, out / "risk.png")]
    for place in suite_plots.places([result["spec"] for result in results]):
        here = [result for result in results if tuple(result["spec"][key] for key in suite_plots.PLACE) == place]
        name = slug("-".join(place))
        made += [
            suite_plots.heat(here, out / f"heat-{name}.png"),
            plots.roc(here, out / f"roc-{name}.png", log_x=True),
        ]
    return made


def _sheets(run: SuiteRun, results: list[Result], out: Path) -> list[Path]:
    return [path for bench in run.benches for path in suite_plots.sheets(bench, _of(bench, results), out)]


def _markdown(run: SuiteRun, notes: list[str], made: list[Table], pictures: list[Path], command: str) -> str:
    shown = ["\n\n".join(filter(None, [f"## {table.title}", table.text, report.grid(table.rows)])) for table in made]
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
    aware = any(result["knows_detector"] for result in store.measured(run.results))
    text = f"{models}. Detectors calibrated to a false-alarm rate of {run.suite.alpha:g}."
    return text if aware else f"{text} **{UNAWARE}**"


def _partial(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Which attacks were run on fewer images than the others."""
    fewer = dict.fromkeys(
        f"{attack['attack']} on {attack['images']} of {entry['n']} images ({entry['model']}, {budget(entry)})"
        for entry in entries
        for attack in entry["attacks"]
        if attack["images"] < entry["n"]
    )
    text = "; ".join(fewer)
    return [f"Run on fewer images, so that the others count as not broken by them: {text}."] if fewer else []


def _environment(run: SuiteRun) -> str:
    environments = {json.dumps(result["environment"], sort_keys=True): result["environment"] for result in run.results}
    lines = []
    for environment in environments.values():
        versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
        lines.append(
            f"Commit {environment['commit']}, {environment['device']}, {environment['threads']} threads; {versions}."
        )
    seconds = sum(result["seconds"] for result in store.measured(run.results))
    return "\n\n".join([f"{seconds / 60:.1f} minutes in all cells together.", *lines])


def _command(run: SuiteRun, out: Path, needs_data_dir: bool) -> str:
    command = shlex.join(["robustrecon", "bench", "--suite", str(run.suite.path), "--out", str(out)])
    return f'{command} --data-dir "$DATA_DIR"' if needs_data_dir else command
