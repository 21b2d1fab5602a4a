"""What all pictures share: colours, line styles, fonts, and writing a figure whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from .files import atomic_write

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito 2008
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
HEAT = "cividis"  # Nuñez, Anderton, Renslow 2018: perceived alike with and without colour blindness
STYLE: Any = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 130}

THIN, WIDEST = 1.4, 3.2  # of lines, points


def widths(n: int) -> list[float]:
    """Of n lines that are drawn one after the other: the first is the widest, so that lines which coincide are seen."""
    step = (WIDEST - THIN) / max(1, n - 1)
    return [THIN + step * (n - 1 - index) for index in range(n)]


def write(figure: Figure, path: Path) -> Path:
    """Write a figure as what the path ends in, .png or .svg, whole or not at all; the same bytes every time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    kind = path.suffix.removeprefix(".")
    figure.savefig(buffer, format=kind, metadata={"png": {"Software": None}, "svg": {"Date": None}}[kind])
    return atomic_write(path, buffer.getvalue())
