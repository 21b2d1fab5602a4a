"""A detector of the user's own, by the name of what makes it."""

from __future__ import annotations

import inspect

from ..attacks import import_factory
from ..types import InputError
from .base import Detector, FunctionDetector
from .catalogue import check_own_name
from .combination import AnyOf


def import_detector(place: str) -> Detector | AnyOf:
    """The detector of `module:factory`: a `Detector`, a subclass, a function of one `Evidence`, or what makes one.

    Raises:
        InputError: it cannot be imported or made, or is something else.
    """
    check_own_name(place)
    found: object = import_factory("detector", place)
    if isinstance(found, type) or _takes_nothing(found):
        try:
            found = found()  # type: ignore[operator]
        except Exception as error:  # the user's code may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(f"detector: {place} cannot be made ({reason}), must need no arguments") from error
    if isinstance(found, (Detector, AnyOf)):
        if not isinstance(getattr(found, "name", None), str):
            found.name = place
        return found
    if not callable(found):
        raise InputError(
            f"detector: {place} is a {type(found).__name__}, must be a Detector, a subclass, or a function of one "
            "Evidence"
        )
    return FunctionDetector(found)


def _takes_nothing(found: object) -> bool:
    """Whether it is a function without parameters, which makes a detector."""
    return inspect.isfunction(found) and not inspect.signature(found).parameters
