"""Figures of a report to look into, drawn by plotly: the same figures as the pictures."""

from __future__ import annotations

import textwrap

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .curves import Curves, HeatMap, Line

SYMBOLS = ("circle", "square", "diamond", "triangle-down", "triangle-up", "cross", "x")  # still.MARKERS
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MOST_ACROSS = 3  # panels side by side
HEIGHT = 360  # of a row of panels, pixels
MARKER = 3  # pixels, and more on a wider line
PIXELS = 4 / 3  # a point
LETTERS = 34  # of a line of a panel's title


def curves(figure: Curves) -> go.Figure:
    """Lines; a line's name stands once in the legend, for all panels that have it."""
    across = min(len(figure.panels), MOST_ACROSS)
    down = -(-len(figure.panels) // across)
    drawn = make_subplots(
        rows=down, cols=across, subplot_titles=[_wrapped(panel.title) for panel in figure.panels], shared_yaxes=True
    )
    shown: set[str] = set()
    for index, panel in enumerate(figure.panels):
        row, column = index // across + 1, index % across + 1
        for line in panel.lines:
            first = line.label not in shown
            drawn.add_trace(_line(line, figure, first), row=row, col=column)
            shown.add(line.label)
        axis = {"title": panel.x_title} if figure.log_x_from is None else {"title": panel.x_title, "type": "log"}
        drawn.update_xaxes(axis, row=row, col=column)
        drawn.update_yaxes(range=[0, 1.02], title=figure.y_title if column == 1 else None, row=row, col=column)
    return drawn.update_layout(title=figure.title, height=120 + HEIGHT * down, template="simple_white")


def heat(figure: HeatMap) -> go.Figure:
    """A heat map, whose panel a menu chooses."""
    drawn = go.Figure()
    for index, panel in enumerate(figure.panels):
        drawn.add_heatmap(
            z=panel.values,
            x=figure.columns,
            y=figure.rows,
            text=panel.texts,
            texttemplate="%{text}",
            colorscale="Cividis",
            zmin=0,
            zmax=1,
            colorbar={"title": {"text": figure.value_title, "side": "right"}},
            visible=index == 0,
        )
    buttons = [
        {"label": panel.title, "method": "restyle", "args": ["visible", [other is panel for other in figure.panels]]}
        for panel in figure.panels
    ]
    return drawn.update_layout(
        title=figure.title,
        updatemenus=[{"buttons": buttons, "x": 1, "xanchor": "right", "yanchor": "bottom", "y": 1.02}],
        yaxis_autorange="reversed",
        height=220 + 34 * len(figure.rows),
        template="simple_white",
    )


def _wrapped(title: str) -> str:
    return "<br>".join(textwrap.wrap(title, LETTERS, break_long_words=False))


def _line(line: Line, figure: Curves, first: bool) -> go.Scatter:
    left = figure.log_x_from
    x = line.x if left is None else [max(value, left / 2) for value in line.x]  # a logarithmic axis has no 0
    error = None
    if line.low:
        above = [high - value for high, value in zip(line.high, line.y, strict=True)]
        below = [value - low for low, value in zip(line.low, line.y, strict=True)]
        error = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    return go.Scatter(
        x=[round(value, 5) for value in x],
        y=[round(value, 5) for value in line.y],
        name=line.label,
        legendgroup=line.label,
        showlegend=first,
        mode="lines+markers" if figure.points else "lines",
        line={
            "color": line.colour,
            "dash": DASHES[0 if figure.points else line.style % len(DASHES)],
            "width": PIXELS * line.width,
        },
        marker={"symbol": SYMBOLS[line.style % len(SYMBOLS)], "size": MARKER + 2 * PIXELS * line.width},
        error_y=error,
    )
