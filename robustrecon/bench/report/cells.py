"""Tables with a row a cell, and what is said around them; the tables are made from the DataFrame of the results."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd

from ..frame import frame_of
from ..key import CellKey, attack_title, budget, false_alarms
from ..result import Cell, failed, measured
from .text import bounded, decimals, doubted, grid, percent

Row: TypeAlias = Any  # of the frame, as `itertuples` gives it: an attribute a column
Columns: TypeAlias = Mapping[str, Callable[[Row], str]]

BLIND = (
    "Not every detector here was attacked by an attack that knows it. The others say what a detector sees of "
    "attacks on the classifier alone; an adversary who attacks both together does better, so read the robust risk "
    "as a lower bound. Add `--attack selective`."
)
AWARE = (
    "The attacks that know the detector are the ones to judge it by; an adversary may be better still, so read the "
    "robust risk as a lower bound."
)
DEFINITIONS = """\
- **aware**: whether the attack knows the detector.
- **clean acc.**, **clean rej.**: accuracy and rejection rate on the clean images.
- **acc.**: accuracy under attack; an image that was wrong when clean is not attacked and counts as wrong.
- **success (n)**: share, and number, of the images classified correctly when clean that end with a wrong label.
- **AUROC**: of the score, clean images against successful adversarial ones; **AUROC all**: against all of them.
- **TPR @ 5 %**: share of successful attacks with a score above what 5 % of the clean images exceed.
- **undetected**: share of all images that end with a wrong label and are accepted.
- **robust risk**: share of images that are wrong or rejected when clean, or end wrong and accepted; with its 95 %
  Clopper-Pearson interval.
- **checks**, **†**: signs that the attack failed rather than that the defence held; a dash where none fired."""


def title(row: Row) -> str:
    """What tables call the attack of a row."""
    engine, steps = (None if pd.isna(value) else value for value in (row.engine, row.steps))
    return attack_title(row.attack, engine, steps, row.parameters, row.precision)


def risk(row: Row) -> str:
    """The robust risk of a row, with its interval."""
    return bounded(row.robust_risk, (row.robust_risk_low, row.robust_risk_high))


COLUMNS: Columns = {
    "attack": lambda row: doubted(title(row), row.checks),
    "aware": lambda row: "yes" if row.knows_detector else "no",
    "budget": lambda row: budget(row.norm, row.eps),
    "detector": lambda row: row.detector,
    "clean acc.": lambda row: percent(row.clean_accuracy),
    "clean rej.": lambda row: percent(row.clean_rejection_rate),
    "acc.": lambda row: percent(row.accuracy),
    "success (n)": lambda row: f"{percent(row.success_rate)} ({row.successes})",
    "AUROC": lambda row: decimals(row.auroc_success),
    "AUROC all": lambda row: decimals(row.auroc_all),
    "TPR @ 5 %": lambda row: percent(row.tpr_at_fpr_5),
    "undetected": lambda row: percent(row.undetected_success),
    "robust risk": risk,
    "checks": lambda row: row.checks or "–",
}
WITH_N: Columns = {"n": lambda row: str(row.n), **COLUMNS}  # where n differs from cell to cell
WITH_PLACE: Columns = {  # where cells of several models stand in one table
    "data": lambda row: row.data,
    "model": lambda row: row.model,
    "alpha": lambda row: false_alarms(row.alpha, row.correct_only),
    **WITH_N,
}


def marking(columns: Columns, unseen: Collection[tuple[str, float]]) -> Columns:
    """The columns with budgets (norm, eps) marked that training did not see."""
    return {**columns, "budget": lambda row: budget(row.norm, row.eps, (row.norm, row.eps) in unseen)}


def rows(frame: pd.DataFrame, columns: Columns = COLUMNS) -> list[list[str]]:
    """A heading, and a row a cell."""
    return [list(columns), *([show(row) for show in columns.values()] for row in frame.itertuples(index=False))]


def table(cells: Sequence[Cell]) -> str:
    """A Markdown table with a row a cell; a cell that failed has none, see `failures`."""
    return grid(rows(frame_of(measured(cells))))


def summary(cells: Sequence[Cell]) -> str:
    """What the rows of a table have in common, in a line."""
    key = cells[0].key
    engines = dict.fromkeys(f"{cell.key.attack} by {_engine(cell.key)}" for cell in cells)
    return (
        f"{key.data}, {key.model}: the first {key.n} test images; detectors calibrated to a false-alarm "
        f"rate of {key.false_alarms}; {', '.join(engines)}."
    )


def caveat(cells: Sequence[Cell]) -> str:
    """How far the figures can be trusted."""
    met = {result.key.detector for result in measured(cells) if result.knows_detector}
    return AWARE if met == {cell.key.detector for cell in cells} else BLIND


def failures(cells: Sequence[Cell]) -> list[str]:
    """The cells that could not be measured and why, as a part of a report; none where there are none."""
    lines = [f"- {_described(cell.key)}: {cell.error}" for cell in failed(cells)]
    return ["Cells that FAILED, so that no figure here speaks of them:\n\n" + "\n".join(lines)] if lines else []


def fired(cells: Sequence[Cell]) -> list[str]:
    """The checks that fired, as a part of a report; none where none did."""
    lines = [
        f"- {_described(result.key)}: {check.name}: {check.message}"
        for result in measured(cells)
        for check in result.checks
    ]
    return ["Checks that fired, each a doubt about the row it names:\n\n" + "\n".join(lines)] if lines else []


def _described(key: CellKey) -> str:
    return f"{key.title}, {key.budget}, {key.detector} ({key.model} on {key.data}, n = {key.n})"


def _engine(key: CellKey) -> str:
    return "this library" if key.engine == "own" else key.engine or "the user"
