"""Errors that a caller can mend, and the nearest known name to a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NoReturn


class InputError(ValueError):
    """An argument that the caller can mend: the message names it, what it was and what it must be."""


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is not finite: there is nothing to ascend."""


def unknown_name(argument: str, name: str, known: Iterable[str]) -> NoReturn:
    """Raise InputError for a name that is in no catalogue, with the closest one that is."""
    names = sorted(known)
    raise InputError(f"{argument}: unknown name {name!r}{nearest(name, names)} (known: {', '.join(names)})")


def nearest(name: str, known: Iterable[str]) -> str:
    """For an error's message: a question after the closest known name, or nothing where none is close."""
    close = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
