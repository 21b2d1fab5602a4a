"""The report of chains of attacks: worst-case.json and worst-case.md, with a picture, all from the stored results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ... import provenance
from ...files import atomic_write
from ..chain.result import SHARD, ChainResult
from ..chain.run import ChainRun
from ..key import radius
from ..suite.unseen import marked
from ..worst_case import WorstCase
from . import still
from .curves import risk_curves
from .suite import UNAWARE, FailedCell, SuiteReport
from .text import Table, bounded, doubted, grid, percent
from .worst_tables import budget_of, model_of, risk

WORST_CASE = """\
**Robust risk**: the share of images that are wrong or rejected when clean, or that some attack, with this eps or a
smaller one, turns into a wrong label that is accepted; with its 95 % Clopper-Pearson interval. *At risk when clean* is
the first part of it. †: no attack that knows the detector was checked without a failure check firing, so the risk may
be too low. A better attack may exist: the figures are lower bounds."""
STAGES = f"""\
At each eps the attacks run in the order of the table, each on the images that the ones before, and all at smaller eps,
left; so *broke* counts what only this attack was needed for, and says nothing of how strong an attack is on its own.
*Checks* looks for signs that an attack failed, on the first {SHARD} images and for the attacks that know the detector;
a dash where none fired, *not run* where there was no image for them, or the attack does not know the detector."""


def write(run: ChainRun, out: str | Path, command: str) -> list[Path]:
    """Write the report of chains that were run to the folder `out`.

    Args:
        run: from `run_worst_cases`.
        out: folder of all results.
        command: that makes the report again.

    Returns:
        The files: worst-case.json, worst-case.md, and the picture.
    """
    out = Path(out)
    found = entries(run)
    content = SuiteReport(
        suite=run.suite.path.name,
        command=command,
        commit=provenance.commit(),
        alpha=run.suite.alpha,
        correct_only=run.suite.correct_only,
        worst_case=tuple(found),
        failed=tuple(failed(run)),
        cells=tuple(str(result.key.path) for result in run.results),
    )
    text = json.dumps(content.to_json(), indent=2, allow_nan=False)
    picture = out / "worst-case.png"
    parts = [
        f"# Worst case of {run.suite.path.name}",
        _summary(run),
        *failures(run),
        *(f"## {table.title}\n\n{table.text}\n\n{grid(table.rows)}".replace("\n\n\n\n", "\n\n") for table in _all(run)),
        *_fired(found),
        f"![robust risk]({picture.name})",
        f"## Again\n\n```sh\n{command}\n```",
        _environment(run.results),
    ]
    return [
        atomic_write(out / "worst-case.json", f"{text}\n"),
        atomic_write(out / "worst-case.md", "\n\n".join(parts) + "\n"),
        still.curves(risk_curves(found), picture),
    ]


def entries(run: ChainRun) -> list[WorstCase]:
    """All worst cases, in the order of the suite."""
    return [entry for result in results(run) for entry in result.entries]


def results(run: ChainRun) -> list[ChainResult]:
    """What the chains found; their worst cases know whether the suite marks their budget as unseen."""
    return [replace(result, entries=tuple(marked(result.entries, run.suite, run.benches))) for result in run.results]


def tables(run: ChainRun) -> str:
    """The robust risks as text, for a terminal."""
    return "\n\n".join(f"{table.title}\n\n{grid(table.rows)}" for table in _risks(results(run)))


def failed(run: ChainRun) -> list[FailedCell]:
    """The attacks that failed, on all images or in some of the shards."""
    return [
        FailedCell(cell, note.error)
        for result in run.results
        for entry in result.entries
        for note in entry.failed
        for cell in result.key.cells
        if cell.eps == entry.eps and cell.title == note.attack
    ]


def failures(run: ChainRun) -> list[str]:
    """What is to be said of attacks that failed; nothing where none did."""
    lines = [f"- {each.key.title}, {each.key.budget}, {each.key.detector}: {each.error}" for each in failed(run)]
    return ["\n".join(["Attacks that FAILED, and are tried again the next time:", "", *lines])] if lines else []


def _all(run: ChainRun) -> list[Table]:
    return [*_risks(results(run)), *_stages(results(run))]


def _risks(results: Sequence[ChainResult]) -> list[Table]:
    """One a budget, a row a model and detector."""
    made: list[Table] = []
    found = [(entry, percent(result.clean_risk)) for result in results for entry in result.entries]
    for norm, eps in sorted({(entry.norm, entry.eps) for entry, _ in found}):
        rows = [["data", "model", "detector", "n", "clean acc.", "clean rej.", "at risk when clean", "robust risk"]]
        here = [(entry, clean) for entry, clean in found if (entry.norm, entry.eps) == (norm, eps)]
        together = [entry for entry, _ in here]
        for entry, clean in here:
            # A risk of 1 cannot be too low.
            whole = entry.robust_risk == 1
            figure = bounded(entry.robust_risk, entry.robust_risk_interval) if whole else risk(entry)
            rates = [percent(rate) for rate in (entry.clean_accuracy, entry.clean_rejection_rate)]
            rows.append([entry.data, model_of(entry, together), entry.detector, str(entry.n), *rates, clean, figure])
        made.append(Table(f"Worst case, {budget_of(together)}", WORST_CASE if not made else "", rows))
    return made


def _stages(results: Sequence[ChainResult]) -> list[Table]:
    """One a chain, a row an attack and eps."""
    made: list[Table] = []
    for result in results:
        first = result.key.cells[0]
        rows = [["eps", "attack", "aware", "images", "broke", "seconds", "checks"]]
        for entry in result.entries:
            for attack in entry.attacks:
                checks = ", ".join(attack.checks) or ("–" if attack.checked else "not run")
                figures = [str(attack.images), str(attack.broken), f"{attack.seconds or 0:.1f}", checks]
                aware = "yes" if attack.knows_detector else "no"
                rows.append([radius(entry.eps), doubted(attack.attack, attack.checks), aware, *figures])
        title = f"Attack by attack: {first.data}, {first.model}, {first.detector}, {first.norm}"
        made.append(Table(title, STAGES if not made else "", rows))
    return made


def _fired(found: Sequence[WorstCase]) -> list[str]:
    """What the checks that fired saw."""
    lines = [
        f"- {note.attack}, {entry.budget}, {entry.detector}: {note.check.name}: {note.check.message}"
        for entry in found
        for note in entry.checks
        if note.check is not None
    ]
    return ["\n".join(["## Checks that fired", "", *lines])] if lines else []


def _summary(run: ChainRun) -> str:
    models = "; ".join(
        f"{result.key.cells[0].model} with {result.key.cells[0].detector}, {result.key.cells[0].norm}, on the first "
        f"{result.key.n} test images of {result.key.cells[0].data}"
        for result in run.results
    )
    aware = any(attack.knows_detector for entry in entries(run) for attack in entry.attacks)
    said = f"{models}. Detectors calibrated to a false-alarm rate of {run.suite.false_alarms}."
    return said if aware else f"{said} **{UNAWARE}**"


def _environment(results: Sequence[ChainResult]) -> str:
    lines = dict.fromkeys(str(result.environment) for result in results)
    seconds = sum(result.seconds for result in results)
    return "\n\n".join([f"{seconds / 60:.1f} minutes in all attacks together.", *lines])
