"""The benchmark: attacks on a defended model, measured cell by cell, stored, tabled and drawn."""

from .key import Spec
from .metrics import measure
from .plan import Plan, Planned
from .runner import run

__all__ = ["Plan", "Planned", "Spec", "measure", "run"]
