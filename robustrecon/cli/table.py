"""`robustrecon table`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Format, checked_format


def table(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of results, or one above it.")],
    format: Format = None,
) -> None:
    """Print a table of stored results, a row a cell; nothing is attacked.

    csv and json have every figure in full precision; latex is for the package booktabs.
    """
    from ..types import InputError

    chosen = checked_format(format)
    if not folder.is_dir():
        raise InputError(f"folder: no folder {folder}")
    from ..bench import load_results
    from ..bench.report import formats

    frame = load_results(folder)
    if frame.empty:
        raise InputError(f"folder: {folder} holds no results of `robustrecon bench`")
    print(formats.of_frame(frame, chosen))
