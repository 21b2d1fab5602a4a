"""A classifier that rejects what it cannot explain: made, calibrated, saved, and loaded."""

from .classifier import DefendedClassifier
from .fitting import check_fits_to, fit_to, unfitted
from .loading import load_defended
from .reject_class import RejectClass
from .saving import SAVED_KIND

__all__ = [
    "SAVED_KIND",
    "DefendedClassifier",
    "RejectClass",
    "check_fits_to",
    "fit_to",
    "load_defended",
    "unfitted",
]
