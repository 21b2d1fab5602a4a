"""Attacks by name: what each is, who published it, and the engines that offer it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .base import Attack
from .errors import InputError, unknown_name

DEFAULT_ENGINE = "torchattacks"


@dataclass(frozen=True)
class Entry:
    """One attack of the catalogue.

    Attributes:
        description: what it does, in a line.
        citation: where it was published.
        engines: engine -> "module:class", imported when it is asked for.
    """

    description: str
    citation: str
    engines: dict[str, str]


def _three_engines(own: str, torchattacks: str, art: str) -> dict[str, str]:
    return {
        "torchattacks": f"attacks.adapters.torchattacks:{torchattacks}",
        "art": f"attacks.adapters.art:{art}",
        "own": f"attacks.pgd:{own}",
    }


CATALOGUE: dict[str, Entry] = {
    "fgsm": Entry(
        "one step of the size of the budget along the sign of the gradient",
        "Goodfellow, Shlens, Szegedy: Explaining and Harnessing Adversarial Examples. ICLR 2015",
        _three_engines("FGSM", "TorchattacksFGSM", "ArtFGSM"),
    ),
    "pgd": Entry(
        "projected gradient ascent on the cross-entropy from a random start",
        "Madry, Makelov, Schmidt, Tsipras, Vladu: Towards Deep Learning Models Resistant to Adversarial "
        "Attacks. ICLR 2018",
        _three_engines("PGD", "TorchattacksPGD", "ArtPGD"),
    ),
}


def load(name: str, engine: str | None = None, **parameters: Any) -> Attack:
    """Make the attack called `name`.

    Args:
        name: a name of `CATALOGUE`, or `module:factory` for an attack of your own: a subclass of `Attack`, or a
            function that makes one.
        engine: "torchattacks" (the default), "art" or "own"; an attack of your own has no engines.
        **parameters: of the attack: eps, norm, steps, alpha, random_start, restarts, seed, batch_size.

    Raises:
        InputError: unknown name or engine, a parameter that the attack does not have or that is out of range.
    """
    factory = _user_factory(name) if ":" in name else _factory(name, engine)
    accepted = inspect.signature(factory).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    for parameter in parameters:
        if parameter not in accepted and not takes_all:
            unknown_name(f"parameter of {name}", parameter, accepted)
    attack = factory(**parameters)
    if not isinstance(attack, Attack):
        raise InputError(f"attack: {name} made a {type(attack).__name__}, must make an attacks.Attack")
    return attack




def _factory(name: str, engine: str | None) -> Callable[..., Any]:
    if name not in CATALOGUE:
        unknown_name("attack", name, CATALOGUE)
    engines = CATALOGUE[name].engines
    engine = engine or DEFAULT_ENGINE
    if engine not in engines:
        unknown_name("engine", engine, engines)
    return _import(engines[engine])


def _user_factory(name: str) -> Callable[..., Any]:
    try:
        return _import(name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"attack: {name!r} cannot be imported ({error}), must be module:factory") from error


def _import(place: str) -> Callable[..., Any]:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
