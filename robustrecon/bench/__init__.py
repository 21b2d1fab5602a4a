"""The benchmark: attacks on a defended model, measured cell by cell, stored, tabled and drawn."""

from .frame import load_results
from .key import CellKey
from .metrics import measure
from .model import BenchmarkModel, load_benchmark_model
from .plan import AttackConfig, BenchmarkPlan
from .result import CellFailure, CellResult
from .runner import run

__all__ = [
    "AttackConfig",
    "BenchmarkModel",
    "BenchmarkPlan",
    "CellFailure",
    "CellKey",
    "CellResult",
    "load_benchmark_model",
    "load_results",
    "measure",
    "run",
]
