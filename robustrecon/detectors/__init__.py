"""Detectors by name: a score of (energies, logits), or several, and the conformal threshold over it."""

from __future__ import annotations

from inspect import getdoc
from textwrap import indent

from ..types import unknown_name
from .conformal import Calibration, calibrate, images_needed
from .joint import AnyOf, JointCalibration, calibrate_jointly
from .scores import Score, cycle, global_error, label_margin, marginal, wants_redrawn

__all__ = [
    "DEFAULTS",
    "SCORES",
    "AnyOf",
    "Calibration",
    "JointCalibration",
    "Score",
    "any_of",
    "calibrate",
    "calibrate_jointly",
    "images_needed",
    "listing",
    "load_score",
    "parts",
    "wants_redrawn",
]

SCORES: dict[str, Score] = {score.__name__: score for score in (label_margin, global_error, cycle, marginal)}
DEFAULTS = ("label_margin", "global_error")
"""What a benchmark judges by where no detector is named: any model has what these two need."""

_ANY_OF = "any_of("


def load_score(name: str) -> Score | AnyOf:
    """The score called `name`, or the detector called `any_of(NAME,NAME,...)`.

    Raises:
        InputError: unknown name; the message suggests the closest one.
    """
    name = name.strip()
    if name.startswith(_ANY_OF) and name.endswith(")"):
        return any_of(*name[len(_ANY_OF) : -1].split(","))
    if name not in SCORES:
        unknown_name("detector", name, [*SCORES, f"{_ANY_OF}NAME,NAME)"])
    return SCORES[name]


def any_of(*scores: str | Score) -> AnyOf:
    """The detector that rejects what any of these scores rejects; names of `SCORES`, or functions of your own.

    Raises:
        InputError: an unknown name, fewer than two scores, or one that is named twice.
    """
    found = [load_score(score) if isinstance(score, str) else score for score in scores]
    return AnyOf(tuple(part for score in found for part in parts(score)))


def listing() -> str:
    """Every detector with what it computes and where it was published, as text."""
    lines = []
    for name, score in SCORES.items():
        formula, _, source = (getdoc(score) or "").partition("\n\n")
        lines += [f"{name}: {formula}", indent(source, "    ")]
    joint = f"{_ANY_OF}NAME,NAME): rejects what either rejects, each at its share of the false-alarm rate (Bonferroni)"
    return "\n".join([*lines, joint])


def parts(detector: Score | AnyOf) -> tuple[Score, ...]:
    """The scores that a detector is made of."""
    return detector.scores if isinstance(detector, AnyOf) else (detector,)
