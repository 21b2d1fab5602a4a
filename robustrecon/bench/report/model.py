"""The report of one model on one data set: report.md with its ROC curves, from all results that belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...files import atomic_write
from .. import store
from ..key import CellKey
from ..result import Cell, measured
from . import still
from .cells import DEFINITIONS, caveat, failures, fired, summary, table
from .curves import roc_curves


def write(root: Path, key: CellKey, log_x: bool = False) -> list[Path]:
    """Write `report.md` and `roc.png` from all results under `root` that can stand beside that of `key`.

    They are those for the same data, model, weights, images and false-alarm rate.
    """
    folder = root / key.folder
    stored = store.read_folder(folder)
    found: list[Cell] = [*stored.results, *stored.failures]
    cells = [cell for cell in found if _shared(cell.key) == _shared(key)]
    written = [atomic_write(folder / "report.md", markdown(cells, (folder / "examples.png").exists()))]
    results = measured(cells)
    return [*written, still.curves(roc_curves(results, log_x), folder / "roc.png")] if results else written


def markdown(cells: Sequence[Cell], examples: bool = True) -> str:
    """The report of one model on one data set; `examples` says whether there is a sheet of them."""
    key = cells[0].key
    parts = [
        f"# {key.model} on {key.data}",
        summary(cells),
        table(cells),
        f"**{caveat(cells)}**",
        DEFINITIONS,
        *failures(cells),
        *fired(cells),
        "![ROC curves](roc.png)",
        *(["![Examples](examples.png)"] if examples else []),
        *{cell.environment.precision: str(cell.environment) for cell in reversed(cells)}.values(),
    ]
    return "\n\n".join(parts) + "\n"


def _shared(key: CellKey) -> tuple[str, int, str]:
    return key.weights, key.n, key.false_alarms
