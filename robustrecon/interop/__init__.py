"""Models and detectors of other libraries: classifiers as modules that give logits, detectors as this library's."""
