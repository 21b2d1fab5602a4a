"""The benchmark: attacks on a defended model, measured cell by cell, stored, tabled and drawn."""

from .key import CellKey
from .metrics import measure
from .plan import AttackConfig, BenchmarkPlan
from .runner import run

__all__ = ["AttackConfig", "BenchmarkPlan", "CellKey", "measure", "run"]
