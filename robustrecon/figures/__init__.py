"""The experiments of the style-memory paper: each is a function of (model, data, ...) that returns a `Drawable`.

`FIGURES` is the registry. A new figure is one module with such a function, and one line here, by which `make`, the
command line and `figures.NAME(...)` find it. A function with a parameter `judge` gets the independent classifier from
`make`. Modules are imported when they are first used, so that `robustrecon --help` does not wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..types import unknown_name

if TYPE_CHECKING:
    from .base import Drawable, Measure, draw
    from .judge import Judge, train_judge
    from .making import make, report

# By name, module:function. A module must not have the name of a figure: Python would put it in the function's place.
FIGURES = {
    "reconstruction": "reconstructions:reconstruction",
    "misclassified": "mistakes:misclassified",
    "neighbours": "neighbourhoods:neighbours",
    "interpolation": "interpolations:interpolation",
    "style_transfer": "transfers:style_transfer",
    "leakage": "leaks:leakage",
}

_MODULES = {
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
    "load",
    "make",
    "report",
    "selected",
    "train_judge",
    "draw",
    "Drawable",
    "Measure",
    "Judge",
]


def load(name: str) -> Callable[..., Drawable]:
    """The function that makes the figure `name`.

    Raises:
        InputError: an unknown name; the message suggests the nearest one.
    """
    if name not in FIGURES:
        unknown_name("figure", name, FIGURES)
    module, _, function = FIGURES[name].partition(":")
    return getattr(import_module(f".{module}", __name__), function)


def selected(names: Sequence[str] | None) -> list[str]:
    """These figures without repetition, or all figures when none is named.

    Raises:
        InputError: an unknown name; the message suggests the nearest one.
    """
    for name in names or ():
        if name not in FIGURES:
            unknown_name("figure", name, FIGURES)
    return list(dict.fromkeys(names or FIGURES))


def __getattr__(name: str) -> Any:
    if name in FIGURES:
        return load(name)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *FIGURES, *_MODULES]
