"""Cells in each of the formats that the command line prints."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from ..frame import frame_of
from ..result import Cell, measured
from ..worst_case import worst_case
from . import cells as report
from . import terminal, text


def of_cells(cells: Sequence[Cell], format: str) -> str:
    """Cells of one model, with the worst case over them: what `robustrecon bench` prints.

    Args:
        cells: of one run.
        format: table, markdown, csv, json or latex.
    """
    if format == "table":
        return terminal.printed(cells)
    if format == "json":
        found = {"cells": [cell.summary() for cell in cells], "worst_case": [e.to_json() for e in worst_case(cells)]}
        return json.dumps(found, indent=2)
    if format == "markdown":
        parts = [report.summary(cells), report.table(cells), report.DEFINITIONS, report.caveat(cells)]
        return "\n\n".join([*parts, *report.failures(cells)])
    return of_frame(frame_of(measured(cells)), format, report.COLUMNS)


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
