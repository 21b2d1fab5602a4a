"""Cells in each of the formats that the command line prints."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from ..attack_tests import AttackTest
from ..fields import Json
from ..frame import frame_of
from ..result import Cell, measured
from ..worst_case import worst_case
from . import cells as report
from . import terminal, text


def of_cells(cells: Sequence[Cell], format: str, tests: Sequence[AttackTest] = ()) -> str:
    """Cells of one model, with the worst case over them: what `robustrecon bench` prints.

    Args:
        cells: of one run.
        format: table, markdown, csv, json or latex.
        tests: of the attacks; in csv and LaTeX they have no place.
    """
    if format == "table":
        return "\n\n".join([terminal.printed(cells), *_tested(tests)])
    if format == "json":
        found: dict[str, Json] = {
            "cells": [cell.summary() for cell in cells],
            "worst_case": [e.to_json() for e in worst_case(cells)],
        }
        if tests:
            found["binarization_tests"] = [test.to_json() for test in tests]
        return json.dumps(found, indent=2)
    if format == "markdown":
        parts = [report.summary(cells), report.table(cells), report.DEFINITIONS, report.caveat(cells)]
        return "\n\n".join([*parts, *report.failures(cells), *_tested(tests)])
    return of_frame(frame_of(measured(cells)), format, report.COLUMNS)


def _tested(tests: Sequence[AttackTest]) -> list[str]:
    """What the tests of the attacks say, as a part of a report; none where none was run."""
    return ["\n".join(f"- {test}" for test in tests)] if tests else []


def of_frame(frame: pd.DataFrame, format: str, columns: report.Columns = report.WITH_PLACE) -> str:
    """A table of stored results, a row a cell: what `robustrecon table` prints.

    Args:
        frame: of `load_results`.
        format: table, markdown, csv, json or latex; csv and json have every figure in full precision.
        columns: of a Markdown or LaTeX table.
    """
    if format == "table":
        return "\n\n".join([*terminal.tables(frame), terminal.LEGEND])
    if format == "json":
        rows: str = frame.to_json(orient="records", indent=2, double_precision=15)
        return rows
    if format == "csv":
        written: str = frame.to_csv(index=False)
        return written.rstrip("\n")
    rows_of = report.rows(frame, columns)
    return text.latex(rows_of) if format == "latex" else text.grid(rows_of)
