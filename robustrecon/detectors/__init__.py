"""Detectors by name, several as one, and the conformal threshold over their scores.

Names are imported when they are first used, so that a wrong detector's name is answered without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Detector, Evidence, FittedDetector, FunctionDetector, Score, gathered
    from .catalogue import DEFAULTS, PLACES, check_name, current_name, former_name, is_own
    from .combination import AnyOf
    from .conformal import (
        Calibration,
        benjamini_hochberg,
        calibrate,
        check_tells_apart,
        images_needed,
        saved_calibration,
    )
    from .named import (
        DETECTORS,
        any_of,
        applicable,
        as_detector,
        check_methods,
        describe,
        listing,
        load_detector,
        parts,
        saved_detector,
        shares_of,
    )

# No name may equal that of a submodule: importing the submodule would replace it.
_HOME = {
    "DEFAULTS": "catalogue",
    "DETECTORS": "named",
    "PLACES": "catalogue",
    "AnyOf": "combination",
    "Calibration": "conformal",
    "Detector": "base",
    "Evidence": "base",
    "FittedDetector": "base",
    "FunctionDetector": "base",
    "Score": "base",
    "any_of": "named",
    "applicable": "named",
    "as_detector": "named",
    "benjamini_hochberg": "conformal",
    "calibrate": "conformal",
    "check_methods": "named",
    "check_name": "catalogue",
    "check_tells_apart": "conformal",
    "current_name": "catalogue",
    "describe": "named",
    "former_name": "catalogue",
    "gathered": "base",
    "images_needed": "conformal",
    "is_own": "catalogue",
    "listing": "named",
    "load_detector": "named",
    "parts": "named",
    "saved_calibration": "conformal",
    "saved_detector": "named",
    "shares_of": "named",
}

__all__ = [
    "DEFAULTS",
    "DETECTORS",
    "PLACES",
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
    "benjamini_hochberg",
    "calibrate",
    "check_methods",
    "check_name",
    "check_tells_apart",
    "current_name",
    "describe",
    "former_name",
    "gathered",
    "images_needed",
    "is_own",
    "listing",
    "load_detector",
    "parts",
    "saved_calibration",
    "saved_detector",
    "shares_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
