"""Results on disk: one JSON a cell, whole or absent, numbers as numbers."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..detectors import SCORES
from ..files import atomic_write
from .cell import Spec

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


def write(root: Path, spec: Spec, result: dict[str, Any]) -> Path:
    """Store a cell's result under `root`; the per-image columns take a line each."""
    summary = json.dumps({"spec": spec.as_dict(), **without_images(result)}, indent=2, allow_nan=False)
    columns = ",\n".join(f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in result["images"].items())
    return atomic_write(root / spec.path, f'{summary[:-2]},\n  "images": {{\n{columns}\n  }}\n}}\n')


def find(root: Path, spec: Spec) -> dict[str, Any] | None:
    """The stored result of exactly this cell, or None."""
    result = read(root / spec.path)
    return result if result is not None and result["spec"] == spec.as_dict() else None


def read(path: Path) -> dict[str, Any] | None:
    """A stored result, or None where there is none or something else."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(result, dict) and result.keys() >= REQUIRED
    return result if whole and set(result["spec"]) == {field.name for field in fields(Spec)} else None


def read_all(folder: Path) -> list[dict[str, Any]]:
    """Every result stored below `folder`, in the order of a table."""
    results = [result for path in folder.rglob("*.json") if (result := read(path)) is not None]
    return sorted(results, key=lambda result: _order(result["spec"]))


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
