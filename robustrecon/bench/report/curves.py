"""What the figures of a report show, without how it is drawn: the same for the still and the interactive report."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from ...plotting import COLOURS, THIN, widths
from ..key import radius
from ..metrics import roc_of_successes
from ..result import CellResult
from ..worst_case import WorstCase
from .text import doubted

T = TypeVar("T", bound=Hashable)
Place: TypeAlias = tuple[str, str, str]
"""(data set, model, norm)"""


@dataclass(frozen=True)
class Line:
    """A line of a panel.

    Attributes:
        label: its name.
        x, y: its points.
        colour: as "#rrggbb".
        style: which of a renderer's line styles, or of its markers.
        width: in points.
        low, high: ends of the interval at each point; empty where there is none.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: str
    style: int = 0
    width: float = THIN
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Panel:
    """Lines with axes of their own."""

    title: str
    x_title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Legend:
    """An entry of a legend: a colour, or a style without a colour."""

    label: str
    colour: str = ""
    style: int = 0


@dataclass(frozen=True)
class Curves:
    """A figure of lines, such as ROC curves.

    Attributes:
        title: of all panels.
        y_title: of all panels; y goes from 0 to 1.
        panels: from left to right.
        legend: what colours and styles mean.
        log_x_from: the left end of a logarithmic x axis that ends at 1; None for a linear axis.
        diagonal: whether y = x is drawn, which is chance in a ROC.
        points: whether each point has a marker.
    """

    title: str
    y_title: str
    panels: tuple[Panel, ...]
    legend: tuple[Legend, ...]
    log_x_from: float | None = None
    diagonal: bool = False
    points: bool = False


@dataclass(frozen=True)
class HeatPanel:
    """Values of a heat map (rows of columns), None where there is no cell, and the text on each."""

    title: str
    values: tuple[tuple[float | None, ...], ...]
    texts: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class HeatMap:
    """A figure of shares from 0 to 1, a colour each: a panel a budget, a row an attack, a column a detector."""

    title: str
    value_title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    panels: tuple[HeatPanel, ...]


def place_of(result: CellResult) -> Place:
    """The data set, model and norm of a result."""
    return result.key.data, result.key.model, result.key.norm


def place_of_entry(entry: WorstCase) -> Place:
    """The data set, model and norm of a worst case."""
    return entry.data, entry.model, entry.norm


def roc_curves(results: Sequence[CellResult], log_x: bool = False) -> Curves:
    """ROC curves of one model, clean against successful adversarial images: a panel an attack.

    Colour is the budget, line style the detector. `log_x` shows the false positive rate on a logarithmic axis, where
    a detector must be good.
    """
    key = results[0].key
    titles = _distinct([result.key.title for result in results])
    ordered = sorted(results, key=lambda result: (result.key.norm, result.key.eps))
    budgets = _distinct([result.key.budget for result in ordered])
    detectors = _distinct([result.key.detector for result in results])
    lines: dict[str, list[Line]] = {title: [] for title in titles}
    for result in results:
        points = roc_of_successes(result.images, result.metrics.threshold)
        if points is not None:
            fpr, tpr = (tuple(values.tolist()) for values in points)
            lines[result.key.title].append(
                Line(
                    label=doubted(f"{result.key.budget}, {result.key.detector}", result.checks),
                    x=fpr,
                    y=tpr,
                    colour=colour(budgets.index(result.key.budget)),
                    style=detectors.index(result.key.detector),
                )
            )
    return Curves(
        title=f"{key.data}, {key.model}, n = {key.n}",
        y_title="true positive rate, successful attacks",
        panels=tuple(Panel(title, "false positive rate", nested(lines[title])) for title in titles),
        legend=(
            *(Legend(budget, colour(index)) for index, budget in enumerate(budgets)),
            *(Legend(detector, style=index) for index, detector in enumerate(detectors)),
        ),
        log_x_from=1 / max(result.key.n for result in results) if log_x else None,
        diagonal=True,
    )


def risk_curves(entries: Sequence[WorstCase]) -> Curves:
    """Robust risk of the worst case against eps, with its interval: a panel a model and norm, a line a detector."""
    detectors = _distinct([entry.detector for entry in entries])
    panels = []
    for place in _distinct([place_of_entry(entry) for entry in entries]):
        here = [entry for entry in entries if place_of_entry(entry) == place]
        lines = []
        for index, detector in enumerate(detectors):
            line = sorted((entry for entry in here if entry.detector == detector), key=lambda entry: entry.eps)
            if line:
                lines.append(
                    Line(
                        label=detector,
                        x=tuple(entry.eps for entry in line),
                        y=tuple(entry.robust_risk for entry in line),
                        colour=colour(index),
                        style=index,
                        low=tuple(entry.robust_risk_interval[0] for entry in line),
                        high=tuple(entry.robust_risk_interval[1] for entry in line),
                    )
                )
        panels.append(Panel(f"{place[0]}, {place[1]}", f"eps ({place[2]})", nested(lines)))
    return Curves(
        title="Worst case over all attacks",
        y_title="robust risk",
        panels=tuple(panels),
        legend=tuple(Legend(detector, colour(index), index) for index, detector in enumerate(detectors)),
        points=True,
    )


def heat_map(results: Sequence[CellResult]) -> HeatMap:
    """Undetected success of one model under one norm: a panel an eps, a row an attack, a column a detector."""
    key = results[0].key
    attacks = _distinct([result.key.title for result in results])
    detectors = _distinct([result.key.detector for result in results])
    panels = []
    for eps in sorted({result.key.eps for result in results}):
        at = {(result.key.title, result.key.detector): result for result in results if result.key.eps == eps}
        grid = [[at.get((attack, detector)) for detector in detectors] for attack in attacks]
        panels.append(
            HeatPanel(
                title=f"eps {radius(eps)}",
                values=tuple(
                    tuple(result.metrics.undetected_success if result else None for result in row) for row in grid
                ),
                texts=tuple(tuple(_share(result) for result in row) for row in grid),
            )
        )
    title = f"{key.data}, {key.model}, {key.norm}; †: a check fired; white: not run"
    return HeatMap(title, "undetected success", tuple(attacks), tuple(detectors), tuple(panels))


def nested(lines: Sequence[Line]) -> tuple[Line, ...]:
    """The lines of a panel, so wide that those which coincide are all seen."""
    return tuple(replace(line, width=width) for line, width in zip(lines, widths(len(lines)), strict=True))


def _share(result: CellResult | None) -> str:
    return "" if result is None else doubted(f"{100 * result.metrics.undetected_success:.0f} %", result.checks)


def colour(index: int) -> str:
    """That of the line of this index."""
    return COLOURS[index % len(COLOURS)]


def _distinct(values: Sequence[T]) -> list[T]:
    return list(dict.fromkeys(values))
