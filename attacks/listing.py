"""What there is to know of each attack before it is run, as values and as text."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from .base import Attack
from .catalogue import CATALOGUE, factory_of
from .parameters import Parameter, parameters_of

COMMON = tuple(Attack.__dataclass_fields__)
"""Parameters that every attack has."""


@dataclass(frozen=True)
class EngineDescription:
    """An engine of an attack: its norms, and the parameters that it has beside `COMMON`."""

    name: str
    norms: tuple[str, ...]
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Description:
    """An attack of the catalogue: what it does and where it was published, and its engines, the default first."""

    name: str
    description: str
    citation: str
    knows_detector: bool
    needs_gradient: bool
    engines: tuple[EngineDescription, ...]

    def to_json(self) -> dict[str, Any]:
        """As `robustrecon attacks --json` prints it: a parameter is its name, type and default."""
        values = asdict(self)
        for engine, shown in zip(self.engines, values["engines"], strict=True):
            shown["parameters"] = [
                {"name": each.name, "type": each.type_name, "default": each.default} for each in engine.parameters
            ]
        return values

    def __str__(self) -> str:
        every = dict.fromkeys(norm for engine in self.engines for norm in engine.norms)
        fewer = [f"{each.name}: {', '.join(each.norms)}" for each in self.engines if len(each.norms) < len(every)]
        norms = ", ".join(every) + (f" ({'; '.join(fewer)})" if fewer else "")
        own = dict.fromkeys(f"{each.name}={each.default}" for engine in self.engines for each in engine.parameters)
        lines = [
            f"engines: {', '.join(engine.name for engine in self.engines)}; norms: {norms}",
            *([f"parameters: {', '.join(own)}"] if own else []),
            self.citation,
        ]
        body = (textwrap.fill(line, 100, initial_indent=" " * 4, subsequent_indent=" " * 8) for line in lines)
        return "\n".join([f"{self.name}: {self.description}", *body])


def describe(name: str) -> Description:
    """The attack of the catalogue called `name`.

    Raises:
        InputError: unknown name.
    """
    default: Any = factory_of(name)[0]
    entry = CATALOGUE[name]
    classes: dict[str, Any] = {engine: factory_of(name, engine)[0] for engine in entry.engines}
    return Description(
        name,
        entry.description,
        entry.citation,
        default.knows_detector or entry.fixed.get("with_rejection", False),
        default.needs_gradient,
        tuple(
            EngineDescription(
                engine, found.norms, tuple(each for each in parameters_of(name, engine) if each.name not in COMMON)
            )
            for engine, found in classes.items()
        ),
    )
