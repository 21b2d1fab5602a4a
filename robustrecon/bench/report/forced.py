"""The table and the curves of forced rejection in a suite's report."""

from __future__ import annotations

from collections.abc import Sequence

from ..forced import ForcedRejection
from ..key import budget
from ..suite.forced import ForcedResult, described
from .curves import Curves, Legend, Line, Panel, colour, nested
from .text import Table, bounded, percent

FORCED = """\
Total error (Chen et al. 2023): the share of images that are wrong or rejected when clean, or that `force-reject` has
rejected by a change of at most that fraction of eps, or that `selective` turns into a wrong label that is accepted
within eps. At 0 it is the robust risk under that one attack, so the worst case above is the one to read for it; at 1 it
is the error of a classifier for which every rejection is an error. *Rejected at eps*: of the images that are right and
accepted when clean, those rejected within eps; with its 95 % interval. Lower bounds: a better attack may exist."""


def forced_tables(results: Sequence[ForcedResult], unseen: Sequence[bool]) -> list[Table]:
    """One of all curves, a row a model, detector and budget, a column a fraction of eps; none where there is no curve.

    `unseen` says of each result whether the suite marks its budget.
    """
    found = [(each, each.curve, mark) for each, mark in zip(results, unseen, strict=True) if each.curve is not None]
    if not found:
        return []
    fractions = found[0][1].fractions
    rows = [["data", "model", "detector", "budget", "n", *(f"{at:g} eps" for at in fractions), "rejected at eps"]]
    for each, curve, mark in found:
        place = [each.data, each.model, each.detector, budget(each.norm, each.eps, mark), str(len(curve))]
        rows.append([*place, *(percent(curve.total_error(at)[0]) for at in fractions), _rejected(curve)])
    return [Table("Forced rejection", FORCED, rows)]


def forced_curves(results: Sequence[ForcedResult]) -> Curves | None:
    """Total error against the fraction of eps, with its interval: a panel a model and budget, a line a detector."""
    found = [(each, each.curve) for each in results if each.curve is not None]
    if not found:
        return None
    detectors = list(dict.fromkeys(each.detector for each, _ in found))
    places = dict.fromkeys((each.data, each.model, each.norm, each.eps) for each, _ in found)
    panels = []
    for data, model, norm, eps in places:
        lines = [
            _line(each.detector, detectors.index(each.detector), curve)
            for each, curve in found
            if (each.data, each.model, each.norm, each.eps) == (data, model, norm, eps)
        ]
        panels.append(
            Panel(f"{data}, {model}, {budget(norm, eps)}", "a rejection within this × eps is an error", nested(lines))
        )
    return Curves(
        title="Forced rejection",
        y_title="total error",
        panels=tuple(panels),
        legend=tuple(Legend(name, colour(index), index) for index, name in enumerate(detectors)),
        points=True,
    )


def forced_failures(results: Sequence[ForcedResult]) -> list[str]:
    """The curves that could not be measured and why, as a part of a report; none where there are none."""
    lines = [f"- {described(each)}: {each.error}" for each in results if each.curve is None]
    return ["Curves of forced rejection that FAILED:\n\n" + "\n".join(lines)] if lines else []


def _line(detector: str, index: int, curve: ForcedRejection) -> Line:
    errors = [curve.total_error(at) for at in curve.fractions]
    return Line(
        label=detector,
        x=curve.fractions,
        y=tuple(value for value, _ in errors),
        colour=colour(index),
        style=index,
        low=tuple(low for _, (low, _) in errors),
        high=tuple(high for _, (_, high) in errors),
    )


def _rejected(curve: ForcedRejection) -> str:
    value, interval = curve.rejection(curve.fractions[-1])
    return "–" if value is None or interval is None else bounded(value, interval)
