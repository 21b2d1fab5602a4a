"""`robustrecon table`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

FORMATS = ("md", "csv", "latex")


def table(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of results, or one above it.")],
    format: Annotated[
        str, typer.Option(help="md (Markdown), csv (every figure, full precision) or latex (for booktabs).")
    ] = "md",
) -> None:
    """Print a table of stored results, a row a cell; nothing is attacked."""
    from ..types import InputError, unknown_name

    if format not in FORMATS:
        unknown_name("format", format, FORMATS)
    if not folder.is_dir():
        raise InputError(f"folder: no folder {folder}")
    from ..bench import load_results
    from ..bench.report import cells, text

    frame = load_results(folder)
    if frame.empty:
        raise InputError(f"folder: {folder} holds no results of `robustrecon bench`")
    if format == "csv":
        frame.to_csv(sys.stdout, index=False)
    else:
        rows = cells.rows(frame, cells.WITH_PLACE)
        print(text.latex(rows) if format == "latex" else text.grid(rows))
