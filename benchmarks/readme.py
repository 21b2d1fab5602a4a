"""Write the README's tables from the files in results/: `python -m benchmarks.readme`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from robustrecon.bench import store
from robustrecon.bench.frame import frame_of
from robustrecon.bench.key import budget
from robustrecon.bench.report import cells, text, worst_tables
from robustrecon.bench.report.cells import Row
from robustrecon.bench.report.suite import SuiteReport
from robustrecon.files import atomic_write

from .speed.report import SpeedReport
from .speed.tables import tables

ROOT = Path(__file__).resolve().parents[1]
DETECTORS = ("label_margin", "global_error")
WORST_CASE = """\
With 95 % Clopper-Pearson intervals. †: all attacks that know the detector tripped a failure check, so the figure may be
too low. A better attack may exist: the figures are lower bounds, and better attacks are welcome. How many images each
attack saw and broke, the curves, and the broken images: [results/robust](results/robust/report.md). `make robust
DATA_DIR=...` makes it again from the shipped networks. What each round of training adds:
[networks](results/robust/networks.md); what each part of the recipe adds: [ablation](results/robust/ablation.md)."""


def worst_case_table(results: Path) -> str:
    """The headline: the worst case over all attacks of every suite's report under results/robust."""
    rows = [
        [
            "data",
            "network",
            "detector",
            "budget",
            "n",
            "clean acc.",
            "clean rej.",
            "robust risk",
            "on those that all attacks saw",
            "attacks",
        ]
    ]
    for path in sorted((results / "robust").rglob("report.json"), key=lambda path: (len(path.parts), path)):
        for entry in SuiteReport.from_json(json.loads(path.read_text())).worst_case:
            rows.append(
                [
                    entry.data,
                    entry.model,
                    entry.detector,
                    entry.budget,
                    str(entry.n),
                    text.percent(entry.clean_accuracy),
                    text.percent(entry.clean_rejection_rate),
                    worst_tables.risk(entry),
                    f"{worst_tables.risk_least(entry)}, n = {entry.images_least}",
                    f"{len(entry.attacks)}, {len(entry.aware)} aware",
                ]
            )
    if len(rows) == 1:
        return "No suite has been run in full yet: `make robust` does."
    return f"{text.grid(rows)}\n\n{WORST_CASE}"


def results_tables(results: Path) -> str:
    """For each model and data set of single runs a table with a row for each attack and budget."""
    paths = results.glob("*/*/*/*.json")  # results/DATA/MODEL/DETECTOR; suites have folders of their own, deeper
    folders = sorted({path.parent.parent for path in paths if store.read(path) is not None})
    parts = []
    for folder in folders:
        found = store.read_folder(folder).results
        mixed = {(result.key.weights, result.key.n, result.key.alpha) for result in found}
        if len(mixed) > 1:
            raise SystemExit(f"{folder}: holds results of different weights, n or alpha, must be of one: {mixed}")
        parts += [f"**{cells.summary(found)}**", _pivot(list(frame_of(found).itertuples(index=False)))]
    return "\n\n".join(parts)


def speed_table(results: Path) -> str:
    """The tables of results/speed.json."""
    return tables(SpeedReport.from_json((results / "speed.json").read_text()))


def _pivot(rows: Sequence[Row]) -> str:
    """A row an attack and budget, three columns a detector."""
    by_key: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows:
        by_key.setdefault((cells.title(row), budget(row.norm, row.eps)), {})[row.detector] = row
    head = ["attack", "aware", "budget", "accuracy"]  # and a dagger where a check fired
    for detector in DETECTORS:
        head += [f"{detector}: AUROC", "undetected", "robust risk"]
    made = [head]
    for (attack, radius), found in by_key.items():
        first = found[DETECTORS[0]]
        title = text.doubted(attack, [row for row in found.values() if row.checks])
        shown = [title, "yes" if first.knows_detector else "no", radius, text.percent(first.accuracy)]
        for detector in DETECTORS:
            row = found[detector]
            shown += [text.decimals(row.auroc_success), text.percent(row.undetected_success), cells.risk(row)]
        made.append(shown)
    return text.grid(made)


def rewritten(readme: str, results: Path) -> str:
    """The README with its marked blocks replaced by what the results say."""
    blocks = {"worst case": worst_case_table, "results": results_tables, "speed": speed_table}
    for name, made in blocks.items():
        start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
        head, _, rest = readme.partition(start)
        _, _, tail = rest.partition(end)
        readme = f"{head}{start}\n\n{made(results)}\n\n{end}{tail}"
    return readme


if __name__ == "__main__":
    path = ROOT / "README.md"
    atomic_write(path, rewritten(path.read_text(), ROOT / "results"))
    print(path)
