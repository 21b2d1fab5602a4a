"""The report as one HTML page with curves to look into; it holds all that it needs and opens without a network."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from plotly.graph_objects import Figure
from plotly.io import to_html

from . import interactive
from .curves import Curves, HeatMap
from .text import Table

# A page that could not fetch anything if it tried.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
p { max-width: 75rem }
img { max-width: 100%; display: block; margin: 1rem 0 }
pre { overflow-x: auto; background: #f4f4f4; padding: .7rem }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .5rem; text-align: left; vertical-align: top }
td { white-space: nowrap }
td.long { white-space: normal; min-width: 11em }
th { border-bottom: 2px solid #888 }
.figure { overflow-x: auto }
.figure > div { min-width: 640px }
"""
LONG = 22  # letters, beyond which a cell of a table may break into lines


def page(
    title: str,
    notes: Sequence[str],
    tables: Sequence[Table],
    figures: Sequence[Curves | HeatMap],
    sheets: Sequence[Path],
    command: str,
) -> str:
    """The page.

    Args:
        title: its heading.
        notes: paragraphs.
        tables: as in the Markdown report.
        figures: to look into.
        sheets: pictures (PNG) of what broke both classifier and detector.
        command: that makes the report again.
    """
    made = [
        interactive.heat(figure) if isinstance(figure, HeatMap) else interactive.curves(figure) for figure in figures
    ]
    drawn = [
        f'<div class="figure">{_plotly(figure, with_library=index == 0)}</div>' for index, figure in enumerate(made)
    ]
    parts = [
        f"<h1>{escape(title)}</h1>",
        *map(_paragraphs, notes),
        *(f"<h2>{escape(table.title)}</h2>{_paragraphs(table.text)}{_table(table.rows)}" for table in tables),
        "<h2>Curves</h2><p>A click on a name hides its curve, two clicks show it alone; drag to look closer.</p>",
        *drawn,
        *(["<h2>Undetected successes</h2>", *map(_picture, sheets)] if sheets else []),
        f"<h2>Again</h2><pre>{escape(command)}</pre>",
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _plotly(figure: Figure, with_library: bool) -> str:
    config = {"displaylogo": False, "responsive": True}
    return to_html(figure, full_html=False, include_plotlyjs=with_library, config=config)


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(path.stem)}" src="data:image/png;base64,{data}">'


def _paragraphs(text: str) -> str:
    return "\n".join(map(_paragraph, filter(None, text.split("\n\n"))))


def _paragraph(text: str) -> str:
    """A paragraph of Markdown, of which reports use emphasis and lists."""
    strong = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(text), flags=re.DOTALL)
    emphasised = re.sub(r"\*(.+?)\*", r"<em>\1</em>", strong)
    listed = re.sub(r"(^|\n)- ", r"<br>– ", emphasised)
    return f"<p>{listed}</p>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    lines += ["".join(map(_cell, row)) for row in body]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(text: str) -> str:
    kind = ' class="long"' if len(text) > LONG else ""
    return f"<td{kind}>{escape(text)}</td>"
