"""A classifier that rejects what it cannot explain: made, calibrated, saved, and loaded."""

from .about import About, RobustRisk
from .classifier import DefendedClassifier
from .fitting import check_fits_to, fit_to, unfitted
from .loading import load_defended
from .monitor import Monitor, Window, rejections_expected
from .reject_class import RejectClass
from .saving import SAVED_KIND

__all__ = [
    "SAVED_KIND",
    "About",
    "DefendedClassifier",
    "Monitor",
    "RejectClass",
    "RobustRisk",
    "Window",
    "check_fits_to",
    "fit_to",
    "load_defended",
    "rejections_expected",
    "unfitted",
]
