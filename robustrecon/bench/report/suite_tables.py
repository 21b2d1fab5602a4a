"""The tables of a suite's report that are of the worst case, for Markdown, HTML, a terminal and the README alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import still as suite_plots
from . import tables as report
from .tables import doubted, percent

WORST_CASE = """\
**Robust risk**, the headline: the share of images that are wrong or rejected when clean, or that at least one of all
attacks, with this eps or a smaller one, turns into a wrong label that is accepted; with its 95 % Clopper-Pearson
interval. *Strongest* is the attack that by itself broke the most images. Where some attacks were run on fewer images
than the others, the last column is of those that all attacks saw. A risk has a † where no attack knows the detector, or
a check fired for each that does. An adversary may be better than all of these: the figures are lower bounds."""
BROKE = """\
Of the images that were classified correctly and accepted when clean: how many each attack turned into an accepted wrong
label, and in brackets how many no other attack did."""


@dataclass(frozen=True)
class Table:
    """A table of the report, the same in Markdown and in HTML: `rows` with the heading first."""

    title: str
    text: str
    rows: list[list[str]]


def worst_tables(entries: Sequence[dict[str, Any]]) -> list[Table]:
    """One a budget, a row a model and detector."""
    head = [
        "data",
        "model",
        "detector",
        "n",
        "clean acc.",
        "clean rej.",
        "robust risk",
        "strongest",
        "attacks",
        "on the first N, which all attacks saw",
    ]
    made: list[Table] = []
    for norm, eps in sorted({(entry["norm"], entry["eps"]) for entry in entries}):
        rows = [head]
        for entry in entries:
            if (entry["norm"], entry["eps"]) == (norm, eps):
                aware = sum(attack["knows_detector"] for attack in entry["attacks"])
                failed = f", {len(entry['failed'])} FAILED" if entry["failed"] else ""
                rows.append(
                    [
                        entry["data"],
                        entry["model"],
                        entry["detector"],
                        str(entry["n"]),
                        percent(entry["clean_accuracy"]),
                        percent(entry["clean_rejection_rate"]),
                        risk(entry),
                        _strongest(entry["attacks"]),
                        f"{len(entry['attacks'])} ({aware} aware){failed}",
                        f"{risk_least(entry)}, N = {entry['images_least']}",
                    ]
                )
        made.append(Table(f"Worst case, {norm} {eps:g}", WORST_CASE if not made else "", rows))
    return made


def _strongest(attacks: Sequence[dict[str, Any]]) -> str:
    """The attack that broke the most images; a dash where none broke any."""
    best = max(attacks, key=lambda attack: attack["broke"])
    return doubted(best["attack"], best["checks"]) if best["broke"] else "–"


def broke_tables(entries: Sequence[dict[str, Any]]) -> list[Table]:
    """One a data set, model and norm: a row an attack and eps, a column a detector."""
    made: list[Table] = []
    for place in suite_plots.places(entries):
        here = [entry for entry in entries if tuple(entry[key] for key in suite_plots.PLACE) == place]
        detectors = list(dict.fromkeys(entry["detector"] for entry in here))
        found: dict[tuple[float, str], dict[str, dict[str, Any]]] = {}
        for entry in here:
            for attack in entry["attacks"]:
                found.setdefault((entry["eps"], attack["attack"]), {})[entry["detector"]] = attack
        rows = [["eps", "attack", "aware", "images", *detectors]]
        for (eps, title), by_detector in found.items():
            first = next(iter(by_detector.values()))
            aware = "yes" if first["knows_detector"] else "no"
            figures = [_broke(by_detector.get(detector)) for detector in detectors]
            rows.append([f"{eps:g}", title, aware, str(first["images"]), *figures])
        made.append(Table(f"What each attack broke: {', '.join(place)}", BROKE if not made else "", rows))
    return made


def _broke(attack: dict[str, Any] | None) -> str:
    return "–" if attack is None else doubted(f"{attack['broke']} ({attack['only']})", attack["checks"])


def risk(entry: dict[str, Any]) -> str:
    """The robust risk of a worst case for a table, with its interval, and a dagger where nothing vouches for it."""
    aware = [attack for attack in entry["attacks"] if attack["knows_detector"]]
    doubts = [] if any(not attack["checks"] for attack in aware) else entry["attacks"]
    return doubted(report.bounded(entry["robust_risk"], entry["robust_risk_interval"]), doubts)


def risk_least(entry: dict[str, Any]) -> str:
    """The same over the images that all its attacks were run on."""
    return report.bounded(entry["robust_risk_least"], entry["robust_risk_least_interval"])
