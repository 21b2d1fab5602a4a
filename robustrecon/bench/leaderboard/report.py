"""The leaderboard as a table."""

from __future__ import annotations

from collections.abc import Sequence

from ..report import text
from ..report.worst_tables import risk, risk_least
from .board import Entry

HEAD = (
    "data",
    "budget",
    "defence",
    "detector",
    "alpha",
    "n",
    "clean acc.",
    "clean rej.",
    "robust risk",
    "on those that all attacks saw",
    "attacks that know the detector",
    "others",
    "checks fired",
)


def table(entries: Sequence[Entry]) -> str:
    """A row an entry, in the order in which they come."""
    return text.grid([HEAD, *map(_row, entries)])


def footnotes(entries: Sequence[Entry]) -> list[str]:
    """A line for each defence: whose it is, what it is, and what is to be known of its figures."""
    lines = {}
    for entry in entries:
        about = entry.defence
        data = ", trained on additional data" if about.additional_data else ""
        said = [f"**{about.name}**: {about.authors}", about.venue, f"{about.architecture}{data}", about.footnote]
        lines[about.name] = (
            "- " + ". ".join(part.rstrip(".") for part in said if part) + f". Results: `{entry.results}`."
        )
    return list(lines.values())


def _row(entry: Entry) -> list[str]:
    about, case = entry.defence, entry.case
    fired = ", ".join(sorted({note.check.name for note in case.checks if note.check})) or "none"
    aware = ", ".join(dict.fromkeys(attack.attack.split()[0] for attack in case.aware))  # without their parameters
    return [
        case.data,
        case.budget,
        f"[{about.name}]({about.link})" if about.link else about.name,
        case.detector,
        f"{case.alpha:g}",
        f"{case.n:,}",
        text.percent(case.clean_accuracy),
        text.percent(case.clean_rejection_rate),
        risk(case),
        f"{risk_least(case)}, n = {case.images_least:,}",
        aware,
        str(len(case.attacks) - len(case.aware)),
        fired,
    ]
