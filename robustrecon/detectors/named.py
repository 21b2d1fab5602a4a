"""Detectors from their names, several as one, and what each needs of its model."""

from __future__ import annotations

from importlib import import_module
from inspect import getdoc
from textwrap import indent
from typing import TypedDict

from torch import nn

from ..types import InputError
from .base import Detector, FittedDetector, FunctionDetector, Score, check_layer
from .catalogue import ON_A_LAYER, PLACES, check_name, current_name, is_own, names_in, without_layer, without_share
from .combination import AnyOf
from .features import FeatureDetector
from .imported import import_detector

_NEEDS = {"class_energies": "class energies", "reconstruct": "reconstructions"}
_NOTHING = "logits alone"


def _found(place: str) -> type[Detector]:
    module, _, name = place.partition(":")
    found: type[Detector] = getattr(import_module(f".{module}", __package__), name)
    return found


DETECTORS: dict[str, type[Detector]] = {name: _found(place) for name, place in PLACES.items()}


def load_detector(name: str) -> Detector | AnyOf:
    """The detector called `name`, with a layer or without, `any_of(NAME,NAME,...)`, or `module:factory` of one's own.

    Raises:
        InputError: unknown name; the message suggests the closest one. One of the user's own that cannot be made.
    """
    if is_own(name):
        return import_detector(name)
    check_name(name)
    several = names_in(name)
    if several is not None:
        return any_of(*several)
    known, layer = without_layer(name)
    detector = DETECTORS[known]
    return detector(layer) if issubclass(detector, FeatureDetector) else detector()


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

    Each has the same share of the false-alarm rate, or as many as its name says: "3*label_margin"; see `AnyOf`.

    Raises:
        InputError: an unknown name, fewer than two detectors, or two of one name.
    """
    found: list[Detector] = []
    shares: list[int] = []
    for given in detectors:
        name, share = without_share(given) if isinstance(given, str) else (given, 1)
        detector = as_detector(name)
        found += parts(detector)
        shares += [share * own for own in shares_of(detector)]
    return AnyOf(found, shares)


def parts(detector: Detector | AnyOf) -> tuple[Detector, ...]:
    """The detectors that one is made of: itself, but for `any_of`."""
    return tuple(detector) if isinstance(detector, AnyOf) else (detector,)


def shares_of(detector: Detector | AnyOf) -> tuple[int, ...]:
    """The shares of the false-alarm rate that the `parts` of a detector have."""
    return detector.shares if isinstance(detector, AnyOf) else (1,)


def applicable(model: nn.Module) -> tuple[str, ...]:
    """The names of the detectors that the model has the methods for, without training images or several passes."""
    simple = {
        name: detector
        for name, detector in DETECTORS.items()
        if not issubclass(detector, FittedDetector) and not detector.several_passes
    }
    return tuple(name for name, detector in simple.items() if not _missing(detector, model))


def check_methods(detector: Detector, model: nn.Module) -> None:
    """Whether a model has the methods, and the layer, that a detector needs.

    Raises:
        InputError: it lacks one; names the detectors that need logits alone, or the layers nearest in name.
    """
    if isinstance(detector, FeatureDetector) and detector.layer is not None:
        check_layer(model, detector.layer)
    if missing := _missing(detector, model):
        simple = ", ".join(name for name in DETECTORS if describe(name)["needs"] == [_NOTHING])
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


class Description(TypedDict):
    """What there is to know of a detector before it is used.

    `needs` says what it asks for; a model has `requires` for it, beside its logits.
    """

    name: str
    formula: str
    source: str
    needs: list[str]
    requires: list[str]
    differentiable: bool


def describe(name: str) -> Description:
    """The detector of the catalogue called `name`.

    Raises:
        InputError: unknown name.
    """
    check_name(name)
    detector = DETECTORS[without_layer(name)[0]]
    formula, _, source = (getdoc(detector) or "").partition("\n\n")
    needs = [_NEEDS.get(method, method) for method in detector.requires]
    if issubclass(detector, FittedDetector):
        needs.append("training images")
    return Description(
        name=name,
        formula=formula,
        source=source,
        needs=needs or [_NOTHING],
        requires=list(detector.requires),
        differentiable=detector.differentiable,
    )


def listing() -> str:
    """Every detector with what it computes and where it was published, as text."""
    lines = []
    for known in map(describe, DETECTORS):
        has = "a gradient" if known["differentiable"] else "no gradient: attacks that follow it refuse it"
        needs = f"needs {' and '.join(known['needs'])}; its score has {has}"
        lines += [f"{known['name']}: {known['formula']}", indent(f"{needs}\n{known['source']}", "    ")]
    on_a_layer = (
        f"NAME(LAYER), of {', '.join(ON_A_LAYER)}: the same score of what a layer of the network gives, such as\n"
        "    knn(conv2); by default, of what the last linear layer takes"
    )
    joint = (
        "any_of(NAME,NAME): rejects what either rejects, each at its share of the false-alarm rate (Bonferroni);\n"
        "    any_of(NAME,0*NAME) gives the first all but the least that calibrates the second"
    )
    return "\n".join([*lines, on_a_layer, joint])
