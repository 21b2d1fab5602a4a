"""Figures of a report as pictures, drawn by matplotlib."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ... import plotting
from .curves import Curves, HeatMap, Legend, Line

MARKERS = "osD^vPX"
MOST_ACROSS = 4  # panels side by side
LETTER = 0.08  # of a row's name, inches
LETTERS = 34  # of a line of a panel's title


def curves(figure: Curves, path: Path) -> Path:
    """Lines, a panel beside the other, in rows of four."""
    with mpl.rc_context(plotting.STYLE):
        across = min(len(figure.panels), MOST_ACROSS)
        down = -(-len(figure.panels) // across)
        drawn = Figure(figsize=(max(6.4, 0.8 + 3.6 * across), 0.8 + 3.6 * down), layout="constrained")
        grid = drawn.subplots(down, across, squeeze=False, sharey=True)
        axes = grid.flatten()
        for axis in axes[len(figure.panels) :]:
            axis.remove()
        for axis, panel in zip(axes, figure.panels, strict=False):
            for line in panel.lines:
                _line(axis, line, figure.points)
            axis.set(title=textwrap.fill(panel.title, LETTERS), xlabel=panel.x_title, ylim=(0, 1.02))
            axis.grid(alpha=0.25)
            if figure.log_x_from is not None:
                axis.set(xscale="log", xlim=(figure.log_x_from, 1))
            if figure.diagonal:
                chance = np.geomspace(1e-4, 1)
                axis.plot(chance, chance, color="0.8", linewidth=0.8)
                if figure.log_x_from is None:
                    axis.set(xlim=(-0.01, 1))
        for axis in grid[:, 0]:
            axis.set_ylabel(figure.y_title)
        handles = [_handle(entry, figure.points) for entry in figure.legend]
        labels = [entry.label for entry in figure.legend]
        drawn.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False)
        drawn.suptitle(figure.title)
        return plotting.write(drawn, path)


def heat(figure: HeatMap, path: Path) -> Path:
    """A heat map, a panel beside the other."""
    with mpl.rc_context(plotting.STYLE):
        names = LETTER * max(map(len, figure.rows))
        size = (
            names + 1.2 + (0.5 + 0.8 * len(figure.columns)) * len(figure.panels),
            1.6 + 0.32 * len(figure.rows),
        )
        drawn = Figure(figsize=(max(5.0, size[0]), max(2.8, size[1])), layout="constrained")
        axes = drawn.subplots(1, len(figure.panels), squeeze=False, sharey=True)[0]
        for axis, panel in zip(axes, figure.panels, strict=True):
            values = np.array(panel.values, dtype=float)  # None becomes not a number, which is left white
            image = axis.imshow(values, cmap=plotting.HEAT, vmin=0, vmax=1, aspect="auto")
            for (row, column), value in np.ndenumerate(values):
                colour = "black" if value > 0.5 else "white"
                axis.text(column, row, panel.texts[row][column], ha="center", va="center", fontsize=7, color=colour)
            axis.set_xticks(range(len(figure.columns)), figure.columns, rotation=30, ha="right")
            axis.set_yticks(range(len(figure.rows)), figure.rows)
            axis.set_title(panel.title)
        drawn.colorbar(image, ax=list(axes), label=figure.value_title)
        drawn.suptitle(figure.title)
        return plotting.write(drawn, path)


def _line(axis: Any, line: Line, points: bool) -> None:
    axis.plot(line.x, line.y, color=line.colour, **_look(line.style, points, line.width))
    if len(line.low) > 1:
        axis.fill_between(line.x, line.low, line.high, color=line.colour, alpha=0.18, linewidth=0)
    elif line.low:
        axis.vlines(line.x, line.low, line.high, color=line.colour, linewidth=1.2)


def _handle(entry: Legend, points: bool) -> Line2D:
    return Line2D([], [], color=entry.colour or "0.3", **_look(entry.style, points, plotting.THIN))


def _look(style: int, points: bool, width: float) -> Any:
    """Where points have markers they tell the lines apart, else the line style does."""
    if points:
        return {"marker": MARKERS[style % len(MARKERS)], "markersize": 2 + 2 * width, "linewidth": width}
    return {"linestyle": plotting.LINES[style % len(plotting.LINES)], "linewidth": width}
