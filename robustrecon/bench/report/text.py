"""Numbers and tables as text: for Markdown, LaTeX and a terminal."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100  # columns of a terminal

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "–": "--",
        "†": r"$\dagger$",
    }
)


@dataclass(frozen=True)
class Table:
    """A table of a report, the same in Markdown and in HTML.

    Attributes:
        title: its heading.
        text: what is to be said of it.
        rows: of text, the heading first.
    """

    title: str
    text: str
    rows: list[list[str]]


def percent(value: float | None) -> str:
    """A rate for a table; a dash where there is none."""
    return "–" if value is None or value != value else f"{100 * value:.1f} %"


def bounded(value: float, interval: Sequence[float]) -> str:
    """A rate with its interval for a table."""
    low, high = interval
    return f"{percent(value)} [{100 * low:.1f}, {100 * high:.1f}]"


def decimals(value: float | None, digits: int = 4) -> str:
    """An AUROC for a table; a dash where there is none."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def doubted(title: str, checks: Sequence[object] | str) -> str:
    """A title with a dagger where checks fired."""
    return f"{title} †" if checks else title


def grid(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of a heading and rows, padded so that it also reads well as plain text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def aligned(rows: Sequence[Sequence[str]], width: int = WIDTH) -> str:
    """A heading and rows in columns for a terminal; the widest cells go on in a second line where they must."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > width and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in rows:
        cells = [textwrap.wrap(cell, size) or [""] for cell, size in zip(row, widths, strict=True)]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(part.ljust(size) for part, size in zip(parts, widths, strict=True)).rstrip())
    lines.insert(1, "  ".join("-" * size for size in widths))
    return "\n".join(lines)


def latex(rows: Sequence[Sequence[str]]) -> str:
    """A LaTeX table of a heading and rows, with the rules of the package booktabs."""
    head, *body = [" & ".join(cell.translate(_LATEX) for cell in row) + r" \\" for row in rows]
    columns = "l" * len(rows[0])
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}"])
