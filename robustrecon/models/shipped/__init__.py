"""Trained models that come with the package, by names such as `robust/mnist`; a folder a family lies here.

Loading one checks it like any checkpoint. The seal in its card covers the card and the tensors' bytes, and the
header that says which bytes are which tensor must parse, leave no gap and fit the card's architecture, so that a list
of the files' own hashes would find no damage that this does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import checkpoint
from ...types import InputError, nearest

FOLDER = Path(__file__).parent
SUFFIX = ".safetensors"


def names() -> list[str]:
    """The names, sorted."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.glob(f"*/*{SUFFIX}"))


def file_of(name: str) -> Path:
    """Where the model called `name`, family/data, lies or would lie."""
    return FOLDER / f"{name}{SUFFIX}"


def locate(model: str | Path) -> Path:
    """The path of a model that is given by its path or by the name of a shipped one; what exists as a path is a path.

    Raises:
        InputError: neither; the message suggests the closest name.
    """
    path, name = Path(model), Path(model).as_posix()
    if path.exists():
        return path
    known = names()
    if name in known:
        return file_of(name)
    raise InputError(
        f"{model}: no such checkpoint{nearest(name, known)} (shipped: {', '.join(known) or 'none'}); must be the name "
        "of a shipped model, or a folder that `robustrecon train` wrote"
    )


def catalogue() -> list[dict[str, Any]]:
    """What there is to know of each shipped model before loading it: JSON values by column.

    Raises:
        InputError: a damaged file.
    """
    return [_described(name) for name in names()]


def listing(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `catalogue` as text, a line each."""
    width = max(len(row["name"]) for row in rows)
    return "\n".join(
        f"{row['name']:<{width}}  data {row['data']}, recipe {row['recipe']}, "
        f"test accuracy {row['test_accuracy']:.2%} (n = {row['n']}), style of {row['style_dim']}, "
        f"{row['parameters']:,} parameters, {row['bytes'] / 1e6:.1f} MB, sha256 {row['sha256'][:12]}"
        for row in rows
    )


def _described(name: str) -> dict[str, Any]:
    path = file_of(name)
    saved = checkpoint.load(path)
    card = saved.card
    return {
        "name": name,
        "data": card["data"]["name"],
        "recipe": card["recipe"]["name"],
        "test_accuracy": card["accuracy"]["test"],
        "n": card["accuracy"]["n"],
        "style_dim": card["architecture"]["style_dim"],
        "parameters": sum(tensor.numel() for tensor in saved.tensors.values()),
        "bytes": path.stat().st_size,
        "sha256": card["sha256"],
    }
