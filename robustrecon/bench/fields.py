"""JSON at the boundary: values are read with their types checked, so that nothing inside is of an unknown type."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, TypeVar

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
Interval: TypeAlias = tuple[float, float]

T = TypeVar("T")


class WrongJson(ValueError):
    """A JSON value that is not what it must be; the message names the key."""


class Fields:
    """A JSON object whose values are read by key and type.

    Args:
        value: what `json.loads` gave.
        name: of the object, for messages.

    Raises:
        WrongJson: it is not an object; every method raises it for a missing key or a value of another type.
    """

    def __init__(self, value: object, name: str = "the file") -> None:
        if not isinstance(value, dict):
            raise WrongJson(f"{name}: got {_short(value)}, must be an object")
        self.values: Mapping[str, object] = value
        self.name = name

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def text(self, key: str) -> str:
        return self._value(key, text)

    def maybe_text(self, key: str) -> str | None:
        return self._maybe(key, text)

    def whole(self, key: str) -> int:
        return self._value(key, whole)

    def maybe_whole(self, key: str) -> int | None:
        return self._maybe(key, whole)

    def number(self, key: str) -> float:
        return self._value(key, number)

    def maybe_number(self, key: str) -> float | None:
        return self._maybe(key, number)

    def flag(self, key: str) -> bool:
        return self._value(key, flag)

    def inner(self, key: str) -> Fields:
        return Fields(self._value(key, _any), key)

    def several(self, key: str, kind: Callable[[object], T]) -> tuple[T, ...]:
        """The items of a list, each read by `kind`: `whole`, `number`, `text` or a class's `from_json`."""
        return self._value(key, lambda value: tuple(map(kind, _items(value))))

    def mapping(self, key: str, kind: Callable[[object], T]) -> dict[str, T]:
        """The values of an object by key, each read by `kind`."""
        return {name: kind(value) for name, value in self.inner(key).values.items()}

    def interval(self, key: str) -> Interval:
        return self._value(key, interval)

    def _maybe(self, key: str, kind: Callable[[object], T]) -> T | None:
        """A value that may be null."""
        return self._value(key, optional(kind))

    def _value(self, key: str, kind: Callable[[object], T]) -> T:
        if key not in self.values:
            raise WrongJson(f"{self.name}: has no {key}")
        try:
            return kind(self.values[key])
        except WrongJson as error:
            raise WrongJson(f"{key}: {error}") from None


def optional(kind: Callable[[object], T]) -> Callable[[object], T | None]:
    """Reads null too."""
    return lambda value: None if value is None else kind(value)


def interval(value: object) -> Interval:
    """Two numbers."""
    items = _items(value)
    if len(items) != 2:
        raise WrongJson(f"got {len(items)} items, must be 2")
    return number(items[0]), number(items[1])


def json_value(value: object) -> Json:
    """Any JSON value, such as an attack's parameter."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    raise WrongJson(f"got {_short(value)}, must be a JSON value")


def _any(value: object) -> object:
    return value


def text(value: object) -> str:
    if not isinstance(value, str):
        raise WrongJson(f"got {_short(value)}, must be a text")
    return value


def whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise WrongJson(f"got {_short(value)}, must be a whole number")
    return value


def number(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise WrongJson(f"got {_short(value)}, must be a finite number")
    return float(value)


def flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongJson(f"got {_short(value)}, must be true or false")
    return value


def _items(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        raise WrongJson(f"got {_short(value)}, must be a list")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
