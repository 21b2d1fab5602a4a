"""Errors, the nearest known name to a misspelt one, and the check for losses that are not finite."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from torch import Tensor


class InputError(ValueError):
    """An argument that the caller can mend: the message names it, what it was and what it must be."""


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient is not finite, so there is nothing to ascend."""


def nonfinite(loss: Tensor, grad: Tensor) -> Tensor:
    """(B,) bool: the images whose loss (B,) or gradient (B, C, H, W) is not finite; does not wait for the device."""
    return ~(loss.detach() + grad.flatten(1).sum(1)).isfinite()


def raise_if_nonfinite(attack_name: str, flags: Tensor) -> None:
    """Stop an attack that has nothing to follow; waits for the device.

    Args:
        attack_name: the attack, for the message.
        flags: (B,) bool, the images whose loss or gradient is not finite.

    Raises:
        NonFiniteLoss: a flag is set; says which attack and how many images.
    """
    if count := int(flags.sum()):
        raise NonFiniteLoss(f"{attack_name}: the loss or its gradient is not finite on {count} of {len(flags)} images")


def unknown_name(argument: str, name: str, known: Iterable[str]) -> NoReturn:
    """Raise InputError for a name that is in no catalogue, with the closest one that is."""
    names = sorted(known)
    raise InputError(f"{argument}: unknown name {name!r}{nearest(name, names)} (known: {', '.join(names)})")


def nearest(name: str, known: Iterable[str]) -> str:
    """For an error's message: a question after the closest known name, or nothing where none is close."""
    close = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
