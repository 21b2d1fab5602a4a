"""Parameters of attacks as text: what each attack has, and reading a value as its parameter's type."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from .catalogue import factory_of
from .errors import InputError

_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Parameter:
    """A parameter of an attack.

    Attributes:
        name: as `load` takes it.
        type: of its values, such as `int` or `float | None`.
        default: its value where none is given.
    """

    name: str
    type: Any
    default: Any

    @property
    def type_name(self) -> str:
        """The type for a listing: "int", "float | None"."""
        return self.type.__name__ if isinstance(self.type, type) else str(self.type).replace("collections.abc.", "")


def parameters_of(name: str, engine: str | None = None) -> list[Parameter]:
    """The parameters that `load` takes for the attack called `name`; none for a factory that is not an attack's class.

    Raises:
        InputError: unknown name, or an engine that does not offer the attack.
    """
    factory, fixed = factory_of(name, engine)
    if not (isinstance(factory, type) and is_dataclass(factory)):
        return []
    hints = get_type_hints(factory)
    return [
        Parameter(each.name, hints[each.name], _default(each))
        for each in fields(factory)
        if each.init and each.name not in fixed
    ]


def read_parameter(name: str, parameter: str, text: str, engine: str | None = None) -> Any:
    """The value that a text says, of the type that the parameter of the attack called `name` has.

    A number may be a fraction, such as 2/255. Where the type is not known, the value is a number or a flag if it reads
    as one, else the text itself.

    Raises:
        InputError: it cannot be read as one; unknown attack.
    """
    kinds = {each.name: each.type for each in parameters_of(name, engine)}
    if parameter not in kinds:
        return _guessed(text)
    options = get_args(kinds[parameter]) if NoneType in get_args(kinds[parameter]) else (kinds[parameter],)
    if NoneType in options and text.strip().lower() == "none":
        return None
    kind = next(option for option in options if option is not NoneType)
    what, read = _READERS.get(kind, _READERS[Sequence] if get_args(kind) else ("a text", str))
    try:
        return read(text.strip())
    except ValueError:
        raise InputError(f"parameter of {name}: {parameter}: got {text!r}, must be {what}") from None


def read_number(text: str) -> float:
    """A number, or a fraction of two: "0.1", "8/255".

    Raises:
        ValueError: it is neither, or not finite.
    """
    above, slash, below = text.partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except ZeroDivisionError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def _default(of: Field[Any]) -> Any:
    if of.default_factory is not MISSING:
        return of.default_factory()
    return None if of.default is MISSING else of.default


def _flag(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError
    return _FLAGS[text.lower()]


def _guessed(text: str) -> Any:
    readers: Sequence[Callable[[str], Any]] = (int, read_number)
    for read in readers:
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


_READERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    bool: ("true or false", _flag),
    int: ("a whole number", int),
    float: ("a number or a fraction such as 2/255", read_number),
    str: ("a text", str),
    Sequence: ("names with commas between them", lambda text: [part.strip() for part in text.split(",")]),
}
