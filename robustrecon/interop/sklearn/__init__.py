"""scikit-learn, both ways: its classifiers as modules that give logits, and defended classifiers as its estimators."""

from .classifier import DefendedClassifierEstimator
from .imported import SklearnClassifier, from_sklearn
from .outliers import ReconstructionDetector

__all__ = ["DefendedClassifierEstimator", "ReconstructionDetector", "SklearnClassifier", "from_sklearn"]
