"""The experiments of the style-memory paper: each a function that returns arrays, which know how to be drawn.

`reconstruction`, `misclassified`, `neighbours`, `interpolation`, `style_transfer` and `leakage` of (model, data, ...).
What they are made with is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..types import unknown_name

if TYPE_CHECKING:
    from .base import Drawable, Measure, draw
    from .interpolations import Interpolation, interpolation
    from .judge import Judge, train_judge
    from .leaks import Leakage, leakage
    from .making import make, report
    from .mistakes import Misclassified, misclassified
    from .neighbourhoods import Neighbours, neighbours
    from .reconstructions import Reconstruction, reconstruction
    from .transfers import StyleTransfer, style_transfer

FIGURES = ("reconstruction", "misclassified", "neighbours", "interpolation", "style_transfer", "leakage")

_HOME = {
    "reconstruction": "reconstructions",
    "misclassified": "mistakes",
    "neighbours": "neighbourhoods",
    "interpolation": "interpolations",
    "style_transfer": "transfers",
    "leakage": "leaks",
    "Reconstruction": "reconstructions",
    "Misclassified": "mistakes",
    "Neighbours": "neighbourhoods",
    "Interpolation": "interpolations",
    "StyleTransfer": "transfers",
    "Leakage": "leaks",
    "Drawable": "base",
    "Measure": "base",
    "draw": "base",
    "Judge": "judge",
    "train_judge": "judge",
    "make": "making",
    "report": "making",
}
__all__ = [  # noqa: RUF022 - in the order of use
    "FIGURES",
    "reconstruction",
    "misclassified",
    "neighbours",
    "interpolation",
    "style_transfer",
    "leakage",
    "train_judge",
    "make",
    "report",
    "chosen",
    "draw",
    "Drawable",
    "Measure",
    "Judge",
    "Reconstruction",
    "Misclassified",
    "Neighbours",
    "Interpolation",
    "StyleTransfer",
    "Leakage",
]


def chosen(names: Sequence[str] | None) -> list[str]:
    """These figures, each once; all of them where none is named.

    Raises:
        InputError: an unknown name.
    """
    for name in names or ():
        if name not in FIGURES:
            unknown_name("figure", name, FIGURES)
    return list(dict.fromkeys(names or FIGURES))


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
