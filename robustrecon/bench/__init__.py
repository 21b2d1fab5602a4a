"""The benchmark: attacks on a defended model, measured cell by cell, stored, tabled and drawn."""

from .cell import Spec
from .metrics import measure
from .plan import Plan, Planned
from .runner import draw_examples, run

__all__ = ["Plan", "Planned", "Spec", "draw_examples", "measure", "run"]
