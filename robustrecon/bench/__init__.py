"""The benchmark: attacks on a defended model, measured cell by cell, stored, tabled and drawn."""

from .cell import Spec
from .metrics import measure
from .runner import Plan, draw_examples, run

__all__ = ["Plan", "Spec", "draw_examples", "measure", "run"]
