"""The Adversarial Robustness Toolbox (ART), both ways: its classifiers and detectors here, this library's there.

`DefendedClassifier.to_art` makes a classifier of ART.
"""

from .evasion import ReconstructionDetector
from .imported import from_art

__all__ = ["ReconstructionDetector", "from_art"]
