"""Checks of the numbers in recipes and options: each names the argument, what it was and what it must be."""

from __future__ import annotations

from ..types import InputError


def at_least(least: float, settings: object, *arguments: str) -> None:
    """Attributes of `settings` that must be `least` or more.

    Raises:
        InputError: one is less, or NaN.
    """
    for argument in arguments:
        if not (value := getattr(settings, argument)) >= least:
            wanted = "not be negative" if least == 0 else f"be at least {least}"
            raise InputError(f"{argument}: got {value!r}, must {wanted}")


def in_unit(settings: object, *arguments: str, below_1: bool = False) -> None:
    """Attributes of `settings` that must be in [0, 1], or in [0, 1).

    Raises:
        InputError: one is not.
    """
    for argument in arguments:
        value = getattr(settings, argument)
        if not 0 <= value <= 1 or (below_1 and value == 1):
            raise InputError(f"{argument}: got {value!r}, must be in [0, 1{')' if below_1 else ']'}")


def one_of(settings: object, argument: str, *choices: str) -> None:
    """An attribute of `settings` that must be one of `choices`.

    Raises:
        InputError: it is not.
    """
    if (value := getattr(settings, argument)) not in choices:
        raise InputError(f"{argument}: got {value!r}, must be {' or '.join(map(repr, choices))}")
