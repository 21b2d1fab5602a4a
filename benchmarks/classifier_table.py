"""The table of several classifiers beside one drawer: each alone, undefended and by its own confidence, and grafted."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from robustrecon.bench import store
from robustrecon.bench.key import radius
from robustrecon.bench.report import text, worst_tables
from robustrecon.bench.result import CellResult
from robustrecon.bench.worst_case import WorstCase, worst_case

from .graft_tables import calibration, undefended

UNDEFENDED_BY = "pgd"
ALONE, GRAFTED = "logit_margin", "label_margin"  # the detectors
HEAD = (
    "classifier",
    "clean acc.",
    "L∞ eps",
    "undefended: error under PGD-40",
    "own confidence: robust risk",
    "grafted: clean rej.",
    "grafted: robust risk",
    "n",
    "attacks on the graft",
)
NOTE = f"""\
All classifiers have the same drawer beside them, `robust/mnist`, and nothing was trained
for it. *Own confidence*: the classifier alone under `{ALONE}`; *grafted*: under `{GRAFTED}`. Robust risk: share of the
images that are wrong or rejected when clean, or that an attack with this eps or a smaller one turns into a wrong label
that is accepted; with 95 % Clopper-Pearson intervals. n: images attacked, alone and grafted. †: no attack that knows
the detector passed its checks, so the figure may be too low. Lower bounds: a better attack may exist, and rows with
fewer attacks are the more optimistic. Robust risk does not count images that an attack has rejected."""


@dataclass(frozen=True)
class Pair:
    """Where the cells of a classifier are, below the folder of results.

    Attributes:
        alone: of the classifier by itself.
        grafted: of it beside the drawer.
    """

    alone: str
    grafted: str


_SUITE = "grafted/classifiers/mnist-test/benchmarks.grafts-digits"
PAIRS = {
    "digit-recognizer-py": Pair(
        f"grafted/mnist-test/benchmarks.grafted-classifier/{ALONE}",
        f"grafted/mnist-test/benchmarks.grafted-grafted/{GRAFTED}",
    ),
    **{
        title: Pair(f"{_SUITE}_{name}/{ALONE}", f"{_SUITE}_{name}_grafted/{GRAFTED}")
        for title, name in {
            "scikit-learn, logistic regression": "logistic",
            "scikit-learn, MLP": "mlp",
            "torchvision, MobileNetV3-Small": "mobilenet",
            "torchvision, ShuffleNet V2": "shufflenet",
        }.items()
    },
}


def table(results: Path, pairs: Mapping[str, Pair] = PAIRS) -> str:
    """A row a classifier and radius, from the cells that there are; a classifier without any is left out."""
    rows, every = [list(HEAD)], []
    for title, pair in pairs.items():
        alone, grafted = (store.read_folder(results / place).results for place in (pair.alone, pair.grafted))
        every += [*alone, *grafted]
        worst_alone, worst_grafted = _by_eps(alone), _by_eps(grafted)
        for eps in sorted(worst_alone.keys() | worst_grafted.keys()):
            by_itself, beside = worst_alone.get(eps), worst_grafted.get(eps)
            # The logits of both are the same.
            most = max((entry for entry in (by_itself, beside) if entry), key=lambda entry: entry.n)
            rows.append(
                [
                    title,
                    text.percent(most.clean_accuracy),
                    radius(eps),
                    _undefended(alone, eps),
                    worst_tables.risk(by_itself) if by_itself else "–",
                    text.percent(beside.clean_rejection_rate) if beside else "–",
                    worst_tables.risk(beside) if beside else "–",
                    ", ".join(f"{each.n:,}" if each else "–" for each in (by_itself, beside)),
                    f"{len(beside.attacks)}, {len(beside.aware)} aware" if beside else "–",
                ]
            )
    if len(rows) == 1:
        return "Not measured yet: `robustrecon bench --suite benchmarks/grafted-classifiers.toml` does."
    note = f"MNIST test images. {calibration(every)} {NOTE}"
    return f"{text.grid(rows)}\n\n{textwrap.fill(note, 120, break_on_hyphens=False)}"


def _by_eps(cells: list[CellResult]) -> dict[float, WorstCase]:
    return {entry.eps: entry for entry in worst_case([cell for cell in cells if cell.key.norm == "linf"])}


def _undefended(alone: list[CellResult], eps: float) -> str:
    """The error of the label alone, as if nothing were ever rejected."""
    for cell in alone:
        if (cell.key.attack, cell.key.norm, cell.key.eps) == (UNDEFENDED_BY, "linf", eps):
            metrics = undefended(cell).metrics
            interval = metrics.intervals["robust_risk"]
            assert interval is not None
            return text.bounded(metrics.robust_risk, interval)
    return "–"
