"""A classifier that rejects what it cannot explain: made, calibrated, saved, and loaded."""

from .classifier import DefendedClassifier
from .loading import load_defended
from .saving import SAVED_KIND

__all__ = ["SAVED_KIND", "DefendedClassifier", "load_defended"]
