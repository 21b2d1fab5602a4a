"""The tables of a suite's report that are of the worst case, for Markdown, HTML, a terminal and the README alike."""

from __future__ import annotations

from collections.abc import Sequence

from ..key import budget, radius
from ..worst_case import AttackCount, WorstCase
from .curves import place_of_entry
from .text import Table, bounded, doubted, percent

WORST_CASE = """\
**Robust risk**, the headline: the share of images that are wrong or rejected when clean, or that at least one of all
attacks, with this eps or a smaller one, turns into a wrong label that is accepted; with its 95 % Clopper-Pearson
interval. *Strongest* is the attack that by itself broke the most images. Where some attacks were run on fewer images
than the others, the last column is of those that all attacks saw. †: no attack knows the detector, or all attacks that
know it tripped a failure check, so the risk may be too low. A better attack may exist: the figures are lower bounds."""
BROKEN = """\
Of the images that were classified correctly and accepted when clean: how many each attack turned into an accepted wrong
label, and in brackets how many of those no other attack did."""


def worst_tables(entries: Sequence[WorstCase]) -> list[Table]:
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
    for norm, eps in sorted({(entry.norm, entry.eps) for entry in entries}):
        rows = [head]
        here = [entry for entry in entries if (entry.norm, entry.eps) == (norm, eps)]
        for entry in here:
            failed = f", {len(entry.failed)} FAILED" if entry.failed else ""
            rows.append(
                [
                    entry.data,
                    model_of(entry, here),
                    entry.detector,
                    str(entry.n),
                    percent(entry.clean_accuracy),
                    percent(entry.clean_rejection_rate),
                    risk(entry),
                    strongest(entry.attacks),
                    f"{len(entry.attacks)} ({len(entry.aware)} aware){failed}",
                    f"{risk_least(entry)}, N = {entry.images_least}",
                ]
            )
        made.append(Table(f"Worst case, {budget_of(here)}", WORST_CASE if not made else "", rows))
    return made


def budget_of(entries: Sequence[WorstCase]) -> str:
    """The budget that worst cases have in common, marked where training did not see it for any of them."""
    return budget(entries[0].norm, entries[0].eps, all(entry.unseen for entry in entries))


def model_of(entry: WorstCase, entries: Sequence[WorstCase]) -> str:
    """The model of one of them, marked where training did not see the budget for this but for another."""
    partly = entry.unseen and not all(each.unseen for each in entries)
    return f"{entry.model}{', budget unseen' * partly}"


def strongest(attacks: Sequence[AttackCount]) -> str:
    """The attack that broke the most images; a dash where none broke any."""
    best = max(attacks, key=lambda attack: attack.broken)
    return doubted(best.attack, best.checks) if best.broken else "–"


def broken_tables(entries: Sequence[WorstCase]) -> list[Table]:
    """One a data set, model and norm: a row an attack and eps, a column a detector."""
    made: list[Table] = []
    for place in dict.fromkeys(map(place_of_entry, entries)):
        here = [entry for entry in entries if place_of_entry(entry) == place]
        detectors = list(dict.fromkeys(entry.detector for entry in here))
        found: dict[tuple[str, str], dict[str, AttackCount]] = {}
        for entry in here:
            for attack in entry.attacks:
                found.setdefault((_radius(entry), attack.attack), {})[entry.detector] = attack
        rows = [["eps", "attack", "aware", "images", *detectors]]
        for (eps, title), by_detector in found.items():
            first = next(iter(by_detector.values()))
            aware = "yes" if first.knows_detector else "no"
            figures = [_broken(by_detector.get(detector)) for detector in detectors]
            rows.append([eps, title, aware, str(first.images), *figures])
        made.append(Table(f"What each attack broke: {', '.join(place)}", BROKEN if not made else "", rows))
    return made


def _radius(entry: WorstCase) -> str:
    return f"{radius(entry.eps)}{' (unseen)' * entry.unseen}"


def _broken(attack: AttackCount | None) -> str:
    return "–" if attack is None else doubted(f"{attack.broken} ({attack.only})", attack.checks)


def risk(entry: WorstCase) -> str:
    """The robust risk of a worst case for a table, with its interval, and a dagger where nothing vouches for it."""
    return doubted(bounded(entry.robust_risk, entry.robust_risk_interval), doubts(entry))


def doubts(entry: WorstCase) -> Sequence[AttackCount]:
    """The attacks of a worst case that nothing vouches for; none where one of them vouches."""
    return [] if any(attack.vouches for attack in entry.attacks) else entry.attacks


def risk_least(entry: WorstCase) -> str:
    """The same over the images that all its attacks were run on."""
    return bounded(entry.robust_risk_least, entry.robust_risk_least_interval)
