"""Detectors by name, several as one, and the conformal threshold over their scores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import getdoc
from textwrap import indent

from torch import nn

from ..types import InputError, unknown_name
from .any_of import AnyOf
from .base import Detector, Evidence, FittedDetector, FunctionDetector, Score, gathered
from .confidence import Energy, LogitMargin, MaximumSoftmaxProbability, MaxLogit
from .conformal import Calibration, calibrate, check_tells_apart, images_needed, saved_calibration
from .reconstruction import Cycle, FreeEnergy, GlobalError, LabelMargin

__all__ = [
    "DEFAULTS",
    "DETECTORS",
    "AnyOf",
    "Calibration",
    "Detector",
    "Evidence",
    "FittedDetector",
    "FunctionDetector",
    "Score",
    "any_of",
    "applicable",
    "as_detector",
    "calibrate",
    "check_methods",
    "check_tells_apart",
    "current_name",
    "former_name",
    "gathered",
    "images_needed",
    "listing",
    "load_detector",
    "parts",
    "saved_calibration",
    "saved_detector",
]

DETECTORS: dict[str, type[Detector]] = {
    detector.name: detector
    for detector in (
        LabelMargin,
        GlobalError,
        FreeEnergy,
        Cycle,
        MaximumSoftmaxProbability,
        MaxLogit,
        LogitMargin,
        Energy,
    )
}
DEFAULTS = ("label_margin", "global_error")
"""What a benchmark judges by where no detector is named: any model with class energies has what these two need."""

_ANY_OF = "any_of("
_RENAMED = {"marginal": "free_energy"}  # in files of earlier versions


def load_detector(name: str) -> Detector | AnyOf:
    """The detector called `name`, or the one called `any_of(NAME,NAME,...)`.

    Raises:
        InputError: unknown name; the message suggests the closest one.
    """
    name = name.strip()
    if name.startswith(_ANY_OF) and name.endswith(")"):
        return any_of(*name[len(_ANY_OF) : -1].split(","))
    if name not in DETECTORS:
        unknown_name("detector", name, [*DETECTORS, f"{_ANY_OF}NAME,NAME)"])
    return DETECTORS[name]()


def as_detector(given: str | Detector | AnyOf | Score) -> Detector | AnyOf:
    """A detector, or the one of that name, or a function of an `Evidence` as one.

    Raises:
        InputError: an unknown name, or something else than these.
    """
    if isinstance(given, str):
        return load_detector(given)
    if isinstance(given, (Detector, AnyOf)):
        return given
    if not callable(given) or isinstance(given, type):
        raise InputError(f"detector: got {given!r}, must be a detector, its name, or a function of an Evidence")
    return FunctionDetector(given)


def any_of(*detectors: str | Detector | Score) -> AnyOf:
    """The detector that rejects what any of these rejects: names, detectors, or functions of an `Evidence`.

    Raises:
        InputError: an unknown name, fewer than two detectors, or two of one name.
    """
    return AnyOf(part for detector in detectors for part in parts(as_detector(detector)))


def parts(detector: Detector | AnyOf) -> tuple[Detector, ...]:
    """The detectors that one is made of: itself, but for `any_of`."""
    return tuple(detector) if isinstance(detector, AnyOf) else (detector,)


def applicable(model: nn.Module) -> tuple[str, ...]:
    """The names of the detectors whose methods the model has."""
    return tuple(name for name, detector in DETECTORS.items() if not _missing(detector, model))


def check_methods(detector: Detector, model: nn.Module) -> None:
    """Whether a model has the methods that a detector needs.

    Raises:
        InputError: it lacks one; names the detectors that need logits alone.
    """
    if missing := _missing(detector, model):
        simple = ", ".join(name for name, known in DETECTORS.items() if not known.requires)
        raise InputError(
            f"detector: got {detector.name}, which needs {missing[0]}, must be another for {type(model).__name__}: it "
            f"has no {missing[0]}; {simple} need logits alone"
        )


def _missing(detector: Detector | type[Detector], model: nn.Module) -> list[str]:
    return [method for method in detector.requires if not callable(getattr(model, method, None))]


def saved_detector(stored: object, given: Detector | AnyOf | None, where: str) -> Detector | AnyOf:
    """The detector that a file calls `stored`, or the instance of it that is given.

    Raises:
        InputError: it is not in the catalogue, or the instance is of another name.
    """
    if not isinstance(stored, str):
        raise InputError(f"{where}: its card gives the detector as {stored!r}, must be a name")
    name = current_name(stored)
    if given is None:
        try:
            return load_detector(name)
        except InputError as error:
            raise InputError(
                f"{where}: was saved with a detector that this version does not know; pass an instance of it ({error})"
            ) from error
    if given.name != name:
        raise InputError(f"detector: got {given.name}, must be {name} for {where}")
    return given


def current_name(stored: str) -> str:
    """What the detector is called now that a file of an earlier version calls `stored`."""
    return _exchanged(stored, _RENAMED)


def former_name(name: str) -> str:
    """What earlier versions called a detector."""
    return _exchanged(name, {new: old for old, new in _RENAMED.items()})


def _exchanged(name: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), name)


def listing() -> str:
    """Every detector with what it computes and where it was published, as text."""
    lines = []
    for name, detector in DETECTORS.items():
        formula, _, source = (getdoc(detector) or "").partition("\n\n")
        lines += [f"{name}: {formula}", indent(source, "    ")]
    joint = f"{_ANY_OF}NAME,NAME): rejects what either rejects, each at its share of the false-alarm rate (Bonferroni)"
    return "\n".join([*lines, joint])
