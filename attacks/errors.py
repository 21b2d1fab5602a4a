"""The error for an argument that the caller can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NoReturn


class InputError(ValueError):
    """The message names the argument, what it was and what it must be."""


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is not finite: there is nothing to ascend."""


def unknown_name(argument: str, name: str, known: Iterable[str]) -> NoReturn:
    """Raise the error for a name that is in no catalogue, with the closest one that is."""
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(f"{argument}: unknown name {name!r}{hint} (known: {', '.join(names)})")
