"""Budgets that training did not see: a suite marks them, and a model's card tells where it should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..key import CellKey, budget
from ..model import BenchmarkModel
from ..runner import Bench
from ..worst_case import WorstCase
from .read import Suite, SuiteModel

TRAINED_NORM = "linf"  # of all adversaries that models are trained against here


def unmarked(model: SuiteModel, target: BenchmarkModel) -> str | None:
    """What to do about budgets beyond the one in the model's card that the suite does not mark; None where all are.

    A line rather than an error, since figures at such a budget are as good as others: it is their reader who must know.
    """
    radius = target.trained_eps
    if radius is None:
        return None
    budgets = dict.fromkeys((each.norm, each.eps) for each in model.attacks)
    beyond = [
        budget(norm, eps)
        for norm, eps in budgets
        if (norm != TRAINED_NORM and eps > 0) or eps > radius
        if (norm, eps) not in model.unseen
    ]
    if not beyond:
        return None
    return (
        f"{model.name or target.name} was trained against {budget(TRAINED_NORM, radius)}, not {', '.join(beyond)}: set "
        "unseen = true in their [[attack]] tables, so that reports say so"
    )


def marked(entries: Sequence[WorstCase], suite: Suite, benches: Sequence[Bench]) -> list[WorstCase]:
    """The worst cases, each of which knows whether the suite marks its budget as unseen."""
    budgets = unseen_budgets(suite, benches)
    return [
        replace(entry, unseen=(entry.norm, entry.eps) in budgets[CellKey.folder_of(entry.data, entry.model)])
        for entry in entries
    ]


def unseen_budgets(suite: Suite, benches: Sequence[Bench]) -> dict[Path, frozenset[tuple[str, float]]]:
    """The budgets that the suite marks as unseen, by the folder of each model's results."""
    return {bench.folder: model.unseen for model, bench in zip(suite.models, benches, strict=True)}
