"""The report as one HTML page with curves to look into; it holds all that it needs and opens without a network."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

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
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
img { max-width: 100%; display: block; margin: 1rem 0 }
pre { overflow-x: auto; background: #f4f4f4; padding: .7rem }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; display: block; overflow-x: auto }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: left; white-space: nowrap }
th { border-bottom: 2px solid #888 }
"""


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
        to_html(figure, full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        for index, figure in enumerate(made)
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
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
    )
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


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
    tags = ("th", *("td" for _ in rows[1:]))
    lines = ("".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in zip(tags, rows, strict=True))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
