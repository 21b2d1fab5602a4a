"""The report as one HTML page with curves to look into; it holds all that it needs and opens without a network."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.io import to_html

from ...plotting import COLOURS
from ..key import attack_title
from ..metrics import roc_of_successes
from .still import PLACE, curve, heat_axes, heat_values, places
from .suite_tables import Table
from .tables import Result, doubted

LINES = ("solid", "dash", "dot", "dashdot", "longdash")
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
    results: Sequence[Result],
    entries: Sequence[dict[str, Any]],
    sheets: Sequence[Path],
    command: str,
) -> str:
    """The page.

    Args:
        title: its heading.
        notes: paragraphs.
        tables: as in the Markdown report.
        results: of cells, with their `images`.
        entries: of the worst case.
        sheets: pictures (PNG) of what beat both classifier and detector.
        command: that makes the report again.
    """
    figures = [
        *(_risk(entries, place) for place in places(entries)),
        *(_heat(here) for here in _groups(results, PLACE)),
        *(_roc(here) for here in _groups(results, (*PLACE, "eps"))),
    ]
    drawn = [
        to_html(figure, full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        for index, figure in enumerate(figures)
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


def _groups(results: Sequence[Result], keys: Sequence[str]) -> list[list[Result]]:
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(tuple(result["spec"][key] for key in keys), []).append(result)
    return list(groups.values())


def _risk(entries: Sequence[dict[str, Any]], place: tuple[str, str, str]) -> go.Figure:
    """Robust risk against eps, with its interval."""
    figure = go.Figure()
    for index, detector in enumerate(dict.fromkeys(entry["detector"] for entry in entries)):
        line = curve(entries, place, detector)
        low, high = ([entry["robust_risk_interval"][end] for entry in line] for end in (0, 1))
        values, eps = [entry["robust_risk"] for entry in line], [entry["eps"] for entry in line]
        above = [top - value for top, value in zip(high, values, strict=True)]
        below = [value - bottom for bottom, value in zip(low, values, strict=True)]
        figure.add_scatter(
            x=eps,
            y=values,
            name=detector,
            mode="lines+markers",
            line_color=COLOURS[index % len(COLOURS)],
            error_y={"type": "data", "symmetric": False, "array": above, "arrayminus": below},
        )
    return figure.update_layout(
        title=f"Worst case over all attacks: {', '.join(place)}",
        xaxis_title=f"eps ({place[2]})",
        yaxis={"title": "robust risk", "range": [0, 1.02]},
        template="simple_white",
    )


def _heat(results: Sequence[Result]) -> go.Figure:
    """Undetected success by attack and detector, at an eps that a menu chooses."""
    attacks, detectors = heat_axes(results)
    radii = sorted({result["spec"]["eps"] for result in results})
    figure, spec = go.Figure(), results[0]["spec"]
    for index, eps in enumerate(radii):
        values, texts = heat_values(results, eps)
        figure.add_heatmap(
            z=[[None if value != value else value for value in row] for row in values.tolist()],
            x=detectors,
            y=attacks,
            text=texts,
            texttemplate="%{text}",
            colorscale="Cividis",
            zmin=0,
            zmax=1,
            visible=index == 0,
        )
    buttons = [
        {"label": f"eps {eps:g}", "method": "restyle", "args": ["visible", [other == eps for other in radii]]}
        for eps in radii
    ]
    return figure.update_layout(
        title=f"Undetected success: {', '.join(spec[key] for key in PLACE)}; † a check fired",
        updatemenus=[{"buttons": buttons, "x": 1, "xanchor": "right", "yanchor": "bottom", "y": 1.02}],
        yaxis_autorange="reversed",
        height=220 + 34 * len(attacks),
        template="simple_white",
    )


def _roc(results: Sequence[Result]) -> go.Figure:
    """ROC curves at one budget over a logarithmic axis: colour is the attack, line style the detector."""
    attacks, detectors = heat_axes(results)
    figure, spec = go.Figure(), results[0]["spec"]
    for result in results:
        points = roc_of_successes(result)
        if points is not None:
            fpr, tpr = (values.round(5) for values in points)
            attack, detector = attack_title(result["spec"]), result["spec"]["detector"]
            figure.add_scatter(
                x=fpr.clip(0.5 / result["spec"]["n"]).tolist(),  # a logarithmic axis has no 0
                y=tpr.tolist(),
                name=f"{doubted(attack, result['checks'])}, {detector}",
                mode="lines",
                line={
                    "color": COLOURS[attacks.index(attack) % len(COLOURS)],
                    "dash": LINES[detectors.index(detector) % len(LINES)],
                },
            )
    return figure.update_layout(
        title=f"ROC, clean against successful attacks: {', '.join(spec[key] for key in PLACE)} {spec['eps']:g}",
        xaxis={"title": "false positive rate (left end: none)", "type": "log"},
        yaxis={"title": "true positive rate", "range": [0, 1.02]},
        height=560,
        template="simple_white",
    )
