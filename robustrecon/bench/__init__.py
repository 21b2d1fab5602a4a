"""The benchmark: attacks on a defended model, measured cell by cell, stored, tabled and drawn."""

from .cell import Spec
from .metrics import measure
from .runner import draw_examples, run
from .subject import Subject, load_defended, load_subject

__all__ = ["Spec", "Subject", "draw_examples", "load_defended", "load_subject", "measure", "run"]
