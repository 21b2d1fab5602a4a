"""The tables of a suite's report that other papers' protocols ask for; what they say is computed in `protocols`."""

from __future__ import annotations

from collections.abc import Sequence

from ...statistics import Rate
from ..protocols import ACCEPTANCES, AtAcceptance, Protocols
from ..worst_case import WorstCase
from .text import Table, bounded
from .worst_tables import risk

ACCEPTANCE = f"""\
The worst case with the threshold where {" or ".join(map(str, ACCEPTANCES))} % of the clean images that are classified
correctly are accepted (Stutz et al. 2020, Pang et al. 2022), whatever alpha was, beside the robust risk at alpha. The
threshold is taken from the test images themselves. *Robust acc.*: of the images that are accepted, clean or under some
attack, the share that is never accepted with a wrong label. ‡: an attack that knows the detector worked towards the
laxer threshold at alpha, and may have stopped where it is accepted there and rejected here, so that the figures
flatter, perhaps by far; where they matter, run the suite with that alpha, 0.05 or 0.01."""
TRAMER = """\
Does the detector buy more than robust training would? A detector that is robust at eps implies a classifier, if a slow
one, that is robust at half of eps (Tramèr 2022). *With detector* is 1 − robust risk; *alone* is the accuracy of the
plain classifier, without rejection, over the same attacks and those on other detectors. Where it is alone at half of
eps about as good as with the detector at eps, the detector buys no more than that. A dash where no cell has half the
radius. All are upper bounds, since a better attack may exist, the more so where few attacks were run."""
MEAD = """\
Of the images that some attack, with this eps or a smaller one, turned into a wrong label: the share whose wrong labels
are rejected under *all* attacks (Granese et al. 2022), at the threshold of alpha; with its 95 % interval. A dash where
no attack succeeded."""

PLACE = ("data", "model", "detector", "budget", "n")


def protocol_tables(found: Sequence[Protocols]) -> list[Table]:
    """One a protocol, a row a model, detector and budget; none where nothing was measured."""
    if not found:
        return []
    return [_acceptance(found), _beside_classifier(found), _caught(found)]


def _acceptance(found: Sequence[Protocols]) -> Table:
    head = [f"{figure} at {each} %" for each in ACCEPTANCES for figure in ("robust risk", "robust acc.")]
    rows = [[*PLACE, "robust risk at alpha", *head]]
    for each in found:
        figures = [figure for at in each.at for figure in _at(at)]
        rows.append([*_place(each.worst), risk(each.worst), *figures])
    return Table("Threshold at a true acceptance", ACCEPTANCE, rows)


def _at(at: AtAcceptance | None) -> list[str]:
    if at is None:
        return ["–", "–"]
    doubt = " ‡" if at.stricter else ""
    return [f"{_rate(at.robust_risk)}{doubt}", f"{_rate(at.robust_accuracy)}{doubt}"]


def _beside_classifier(found: Sequence[Protocols]) -> Table:
    rows = [[*PLACE, "with detector at eps", "alone at eps", "alone at eps / 2"]]
    for each in found:
        low, high = each.worst.robust_risk_interval
        kept = bounded(1 - each.worst.robust_risk, (1 - high, 1 - low))
        alone = [_rate(rate) if rate else "–" for rate in (each.plain, each.plain_half)]
        rows.append([*_place(each.worst), kept, *alone])
    return Table("The detector beside the classifier alone", TRAMER, rows)


def _caught(found: Sequence[Protocols]) -> Table:
    rows = [[*PLACE, "attacks", "images broken", "caught under all attacks"]]
    for each in found:
        counts = [str(len(each.worst.attacks)), str(each.caught.n)]
        rows.append([*_place(each.worst), *counts, _rate(each.caught)])
    return Table("Caught under all attacks", MEAD, rows)


def _place(worst: WorstCase) -> list[str]:
    return [worst.data, worst.model, worst.detector, worst.budget, str(worst.n)]


def _rate(rate: Rate) -> str:
    return "–" if rate.value is None or rate.interval is None else bounded(rate.value, rate.interval)
