"""The benchmark: attacks on a defended model, measured cell by cell, stored, tabled and drawn.

Names are imported when they are first used, so that a wrong option of the command line is answered without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import BenchmarkResult, benchmark
    from .forced import ForcedRejection, forced_rejection
    from .frame import load_results
    from .key import CellKey
    from .metrics import measure
    from .model import BenchmarkModel, load_benchmark_model
    from .plan import AttackConfig, BenchmarkPlan
    from .result import CellFailure, CellResult
    from .runner import run

# No name may equal that of a submodule: importing the submodule would replace it.
_HOME = {
    "AttackConfig": "plan",
    "BenchmarkModel": "model",
    "BenchmarkPlan": "plan",
    "BenchmarkResult": "call",
    "CellFailure": "result",
    "CellKey": "key",
    "CellResult": "result",
    "ForcedRejection": "forced",
    "benchmark": "call",
    "forced_rejection": "forced",
    "load_benchmark_model": "model",
    "load_results": "frame",
    "measure": "metrics",
    "run": "runner",
}

__all__ = [
    "AttackConfig",
    "BenchmarkModel",
    "BenchmarkPlan",
    "BenchmarkResult",
    "CellFailure",
    "CellKey",
    "CellResult",
    "ForcedRejection",
    "benchmark",
    "forced_rejection",
    "load_benchmark_model",
    "load_results",
    "measure",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
