"""Results on disk: one JSON a cell, whole or absent, numbers as numbers; beside it the images that beat us."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..detectors import SCORES
from ..files import atomic_write
from .key import CellKey

REQUIRED = {
    "spec",
    "clean",
    "attack",
    "detection",
    "robust_risk",
    "intervals",
    "knows_detector",
    "checks",
    "environment",
    "images",
}
FAILED = {"spec", "status", "error", "environment"}


def write(root: Path, spec: CellKey, result: dict[str, Any]) -> Path:
    """Store a cell's result, or its failure, under `root`; the per-image columns take a line each."""
    summary = json.dumps({"spec": spec.as_dict(), **without_images(result)}, indent=2, allow_nan=False)
    if is_failed(result):
        return atomic_write(root / spec.path, f"{summary}\n")
    columns = ",\n".join(f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in result["images"].items())
    return atomic_write(root / spec.path, f'{summary[:-2]},\n  "images": {{\n{columns}\n  }}\n}}\n')


def failure(spec: CellKey, error: Exception, environment: dict[str, Any]) -> dict[str, Any]:
    """What is stored of a cell that could not be measured."""
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return {"spec": spec.as_dict(), "status": "failed", "error": message, "environment": environment}


def is_failed(result: dict[str, Any]) -> bool:
    """Whether this is the record of a cell that could not be measured."""
    return result.get("status") == "failed"


def measured(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are not failures."""
    return [result for result in results if not is_failed(result)]


def find(root: Path, spec: CellKey) -> dict[str, Any] | None:
    """The stored result of exactly this cell, or None; a failure is none."""
    result = find_any(root, spec)
    return None if result is None or is_failed(result) else result


def find_any(root: Path, spec: CellKey) -> dict[str, Any] | None:
    """The stored result, or failure, of exactly this cell, or None."""
    result = read(root / spec.path)
    if result is None or {"data_fingerprint": spec.data_fingerprint, **result["spec"]} != spec.as_dict():
        return None
    return result


def read(path: Path) -> dict[str, Any] | None:
    """A stored result or failure, or None where there is none or something else."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(result, dict) or not (result.keys() >= REQUIRED or result.keys() == FAILED):
        return None
    known = {field.name for field in fields(CellKey)}
    return result if {*result["spec"], "parameters", "data_fingerprint"} == known else None


def read_all(folder: Path) -> list[dict[str, Any]]:
    """Every result stored below `folder`, in the order of a table."""
    return measured(_read_any(folder))


def read_failures(folder: Path) -> list[dict[str, Any]]:
    """Every failure stored below `folder`, in the order of a table."""
    return [result for result in _read_any(folder) if is_failed(result)]


def _read_any(folder: Path) -> list[dict[str, Any]]:
    results = [result for path in folder.rglob("*.json") if (result := read(path)) is not None]
    return sorted(results, key=lambda result: _order(result["spec"]))


def write_undetected(root: Path, spec: CellKey, index: Tensor, x: Tensor) -> None:
    """Store adversarial images x (M, C, H, W) of the test images `index` (M,), exactly, beside the cell's file."""
    path = _undetected(root, spec)
    if not len(index):
        path.unlink(missing_ok=True)  # of an earlier run
        return
    buffer = io.BytesIO()
    np.savez_compressed(buffer, index=index.numpy(), x=x.numpy())
    atomic_write(path, buffer.getvalue())


def read_undetected(root: Path, spec: CellKey) -> tuple[Tensor, Tensor] | None:
    """(index, x) as they were stored with a cell, or None where there are none."""
    try:
        with np.load(_undetected(root, spec), allow_pickle=False) as arrays:
            return torch.from_numpy(arrays["index"]), torch.from_numpy(arrays["x"])
    except (OSError, ValueError, KeyError):
        return None


def _undetected(root: Path, spec: CellKey) -> Path:
    return (root / spec.path).with_suffix(".npz")


def without_images(result: dict[str, Any]) -> dict[str, Any]:
    """A result without what happened to each image."""
    return {key: value for key, value in result.items() if key != "images"}


def _order(spec: dict[str, Any]) -> tuple[Any, ...]:
    known = list(SCORES)
    detector = known.index(spec["detector"]) if spec["detector"] in known else len(known)
    return (
        *(spec[key] for key in ("data", "model", "attack", "norm", "eps")),
        detector,
        spec["detector"],
        spec["seed"],
    )
