"""Cells for a terminal of 100 columns: a table for each model, data set and norm, and what its columns mean."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pandas as pd

from ..frame import frame_of
from ..key import false_alarms, radius
from ..result import Cell, measured
from ..worst_case import WorstCase, worst_case
from .cells import Columns, caveat, failures, title
from .text import WIDTH, aligned, decimals, doubted
from .worst_tables import doubts, strongest

LEGEND = """\
aware        whether the attack knows the detector
acc.         accuracy under attack, in %; images that are wrong when clean count as wrong
AUROC        how well the score tells successful adversarial images from clean ones: 1 is always,
             0.5 is not at all
undetected   share of all images, in %, that end with a wrong label and are accepted
robust risk  share of images, in %, that are wrong or rejected when clean, or end wrong and
             accepted; with its 95 % interval; the lower the better
†            a check fired: the attack may have failed, and the figures beside it may be too good;
             of a worst case: no attack that knows the detector passed its checks"""
SHARED = ["data", "model", "weights", "n", "alpha", "correct_only", "norm"]  # what the rows of one table have in common

COLUMNS: Columns = {
    "attack": lambda row: doubted(title(row), row.checks),
    "aware": lambda row: "yes" if row.knows_detector else "no",
    "eps": lambda row: radius(row.eps),
    "detector": lambda row: row.detector,
    "acc.": lambda row: _percent(row.accuracy),
    "AUROC": lambda row: decimals(row.auroc_success, 3),
    "undetected": lambda row: _percent(row.undetected_success),
    "robust risk": lambda row: _risk(row.robust_risk, (row.robust_risk_low, row.robust_risk_high)),
}


def printed(cells: Sequence[Cell]) -> str:
    """What a benchmark prints of its cells."""
    worst = [entry for entry in worst_case(cells) if len(entry.attacks) > 1]
    said = textwrap.fill(caveat(cells), WIDTH)
    parts = [*tables(frame_of(measured(cells))), *([worst_table(worst)] if worst else []), LEGEND, said]
    return "\n\n".join([*parts, *failures(cells)])


def tables(frame: pd.DataFrame) -> list[str]:
    """A heading with the clean figures, and a row an attack, radius and detector; one for each model, data and norm."""
    made = []
    for (data, model, _, n, alpha, correct_only, norm), rows in frame.groupby(SHARED, sort=False):
        clean = rows.drop_duplicates("detector")
        rejected = ", ".join(f"{row.detector} {_percent(row.clean_rejection_rate)} %" for row in clean.itertuples())
        bound = false_alarms(alpha, correct_only)
        lines = (
            f"{data}, {model}: {norm}, the first {n} test images, false-alarm rate at most {bound}",
            f"clean: accuracy {_percent(clean.clean_accuracy.iloc[0])} %, rejected by {rejected}",
        )
        heading = "\n".join(textwrap.fill(line, WIDTH) for line in lines)
        body = [[show(row) for show in COLUMNS.values()] for row in rows.itertuples(index=False)]
        made.append(f"{heading}\n\n{aligned([list(COLUMNS), *body])}")
    return made


def worst_table(entries: Sequence[WorstCase]) -> str:
    """The worst case over all attacks, a row a radius and detector."""
    rows = [["eps", "detector", "attacks", "strongest", "robust risk"]]
    for entry in entries:
        found = [radius(entry.eps), entry.detector, str(len(entry.attacks)), strongest(entry.attacks)]
        rows.append([*found, doubted(_risk(entry.robust_risk, entry.robust_risk_interval), doubts(entry))])
    return f"Worst case of each image over all attacks with this eps or a smaller one:\n\n{aligned(rows)}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _risk(value: float, interval: Sequence[float]) -> str:
    low, high = map(_percent, interval)
    return f"{_percent(value)} [{low}, {high}]"
