"""robustrecon: defend PyTorch image classifiers against adversarial examples by class-conditional reconstruction.

Names are imported when they are first used, so that `robustrecon --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench import BenchmarkResult, benchmark, load_results
    from .data import load_data
    from .defence import DefendedClassifier, load_defended
    from .figures.node_samples import visualize
    from .interop.art import from_art
    from .interop.onnx import export_onnx
    from .interop.sklearn import from_sklearn
    from .models import EnergyModel, StyleMemoryNet, load
    from .models.wrappers import LogitsOf, Normalized
    from .training import graft, train
    from .types import InputError, Verdict

__version__ = "0.1.0"

_MODULES = ("attacks", "figures")
_HOME = {
    "BenchmarkResult": "bench",
    "DefendedClassifier": "defence",
    "EnergyModel": "models",
    "InputError": "attacks",
    "LogitsOf": "models.wrappers",
    "Normalized": "models.wrappers",
    "StyleMemoryNet": "models",
    "Verdict": "types",
    "export_onnx": "interop.onnx",
    "from_art": "interop.art",
    "from_sklearn": "interop.sklearn",
    "graft": "training",
    "benchmark": "bench",
    "load": "models",
    "load_data": "data",
    "load_defended": "defence",
    "load_results": "bench",
    "train": "training",
    "visualize": "figures.node_samples",
}
__all__ = [  # noqa: RUF022 - in the order of use
    "load_data",
    "train",
    "load",
    "StyleMemoryNet",
    "EnergyModel",
    "graft",
    "Normalized",
    "LogitsOf",
    "from_sklearn",
    "from_art",
    "DefendedClassifier",
    "load_defended",
    "export_onnx",
    "benchmark",
    "BenchmarkResult",
    "load_results",
    "visualize",
    "Verdict",
    "InputError",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES, *_HOME]
