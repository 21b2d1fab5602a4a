"""Results on disk: one JSON file a cell, whole or absent; beside it images with an accepted wrong label.

A JSON file that is not a result counts as absent; if it looks like one, a line on stderr says why it is none. The
images (.npz) are for a report's pictures only. Where they are absent or unreadable, a report shows fewer pictures, and
a run attacks that cell again for its images (`has_images`) and leaves the stored figures as they are.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..detectors import PLACES
from ..files import atomic_write
from .fields import WrongJson
from .key import CellKey
from .result import Cell, CellFailure, CellResult, cell_from_json, failed, measured


def write(root: Path, cell: Cell) -> Path:
    """Store a cell's result, or its failure, under `root`; the per-image columns take a line each."""
    summary = json.dumps(cell.summary(), indent=2, allow_nan=False)
    path = root / cell.key.path
    if isinstance(cell, CellFailure):
        return atomic_write(path, f"{summary}\n")
    columns = ",\n".join(
        f"    {json.dumps(name)}: {json.dumps(column)}" for name, column in cell.images.to_json().items()
    )
    return atomic_write(path, f'{summary[:-2]},\n  "images": {{\n{columns}\n  }}\n}}\n')


def find(root: Path, key: CellKey) -> CellResult | None:
    """The stored result of exactly this cell, or None; a failure is none."""
    cell = find_any(root, key)
    return cell if isinstance(cell, CellResult) else None


def find_any(root: Path, key: CellKey) -> Cell | None:
    """The stored result, or failure, of exactly this cell, or None."""
    for path in key.paths:
        cell = read(root / path)
        if cell is not None and _same(cell.key, key):
            return cell
    return None


def read(path: Path) -> Cell | None:
    """A stored result or failure, or None where there is none; says on stderr that a result is damaged."""
    try:
        return _parse(path)
    except WrongJson as error:
        _say_once(f"{path}: is not a result ({error}), left out")
    except (OSError, ValueError, RecursionError):
        pass
    return None


@dataclass(frozen=True)
class Stored:
    """Everything that is stored below a folder.

    Attributes:
        results: in the order of a table.
        failures: of cells that could not be measured, in the same order.
        unreadable: JSON files that are damaged or only look like a result; other JSON is passed over.
    """

    results: list[CellResult]
    failures: list[CellFailure]
    unreadable: list[Path]


def read_folder(folder: Path) -> Stored:
    """Everything that is stored below `folder`."""
    cells: list[Cell] = []
    unreadable = []
    for path in sorted(folder.rglob("*.json")):
        try:
            cell = _parse(path)
        except (OSError, ValueError, RecursionError):
            unreadable.append(path)
        else:
            cells += [cell] if cell else []
    ordered = sorted(cells, key=lambda cell: _order(cell.key))
    return Stored(measured(ordered), failed(ordered), unreadable)


@cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


def _parse(path: Path) -> Cell | None:
    """A result or failure; None where the file's JSON is not meant as one."""
    found = json.loads(path.read_text())
    return cell_from_json(found) if isinstance(found, dict) and "spec" in found else None


def _same(stored: CellKey, key: CellKey) -> bool:
    """Whether they are of one cell; one that was stored without a fingerprint of the data matches any."""
    return stored == (key if stored.data_fingerprint else replace(key, data_fingerprint=None))


def _order(key: CellKey) -> tuple[object, ...]:
    known = list(PLACES)
    detector = known.index(key.detector) if key.detector in known else len(known)
    return (key.data, key.model, key.attack, key.norm, key.eps, detector, key.detector, key.seed)


def write_images(root: Path, key: CellKey, index: Tensor, x: Tensor) -> None:
    """Store adversarial images x (M, C, H, W) of the test images `index` (M,), exactly, beside the cell's file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, index=index.numpy(), x=x.numpy())
    atomic_write((root / key.path).with_suffix(".npz"), buffer.getvalue())


def read_images(root: Path, key: CellKey) -> tuple[Tensor, Tensor] | None:
    """(index, x) as they were stored with a cell, or None where there are none, or the file is not whole."""
    for path in key.paths:
        try:
            with np.load((root / path).with_suffix(".npz"), allow_pickle=False) as arrays:
                return torch.from_numpy(arrays["index"]), torch.from_numpy(arrays["x"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            continue
    return None


def remove_images(root: Path, key: CellKey) -> None:
    """Remove the images of a cell, which an earlier run may have left."""
    for path in key.paths:
        (root / path).with_suffix(".npz").unlink(missing_ok=True)


def has_images(root: Path, result: CellResult) -> bool:
    """Whether the images of a result are stored, or there never were any."""
    flags = result.flags
    return not (flags.correct & flags.undetected).any() or read_images(root, result.key) is not None


def summaries(cells: Sequence[Cell]) -> str:
    """Cells as JSON text, without what happened to each image."""
    return json.dumps([cell.summary() for cell in cells], indent=2)
