"""Attacks by name: what each is, who published it, and the engines that offer it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .base import Attack
from .errors import InputError, unknown_name


@dataclass(frozen=True)
class Entry:
    """One attack of the catalogue.

    Attributes:
        description: what it does, in a line.
        citation: where it was published.
        engines: engine -> "module:class", imported when it is asked for; the first is the default.
    """

    description: str
    citation: str
    engines: dict[str, str]


def _three_engines(own: str, torchattacks: str, art: str) -> dict[str, str]:
    return {
        "torchattacks": f"{__package__}.adapters.torchattacks:{torchattacks}",
        "art": f"{__package__}.adapters.art:{art}",
        "own": f"{__package__}.pgd:{own}",
    }


def _with_rejecting(description: str, citation: str, engine: str, place: str) -> list[Entry]:
    """The attack on the plain logits, and the one on the decision with rejection."""
    return [
        Entry(description, citation, {engine: f"{__package__}.adapters.{place}"}),
        Entry(f"knows the detector: {description}", citation, {engine: f"{__package__}.adapters.{place}Rejecting"}),
    ]


_BOTH: dict[str, list[Entry]] = {
    "apgd-ce": _with_rejecting(
        "projected gradient ascent on the cross-entropy, its step sizes adapting",
        "Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free "
        "attacks. ICML 2020",
        "torchattacks",
        "autoattack:ApgdCe",
    ),
    "apgd-t": _with_rejecting(
        "projected gradient ascent on a ratio of differences of logits, for each likely wrong label in turn",
        "Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free "
        "attacks. ICML 2020",
        "torchattacks",
        "autoattack:ApgdT",
    ),
    "fab-t": _with_rejecting(
        "the nearest misread image, for each likely wrong label in turn",
        "Croce, Hein: Minimally distorted adversarial examples with a fast adaptive boundary attack. ICML 2020",
        "torchattacks",
        "autoattack:FabT",
    ),
    "square": _with_rejecting(
        "random search with squares, by logits alone",
        "Andriushchenko, Croce, Flammarion, Hein: Square Attack: a query-efficient black-box adversarial attack via "
        "random search. ECCV 2020",
        "torchattacks",
        "autoattack:Square",
    ),
    "hop-skip-jump": _with_rejecting(
        "along the boundary from an image of another label, by decisions alone",
        "Chen, Jordan, Wainwright: HopSkipJumpAttack: A Query-Efficient Decision-Based Attack. IEEE Symposium on "
        "Security and Privacy 2020",
        "art",
        "hop_skip_jump:HopSkipJump",
    ),
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
    "orthogonal": Entry(
        "as selective, each step without its component along the other gradient",
        "Bryniarski, Hingun, Pachuca, Wang, Carlini: Evading Adversarial Example Detection Defenses with Orthogonal "
        "Projected Gradient Descent. ICLR 2022",
        {"own": f"{__package__}.detector_aware.selective:OrthogonalPGD"},
    ),
    "reconstructive": Entry(
        "knows the detector: loss and score in one sum with a searched weight, or in alternating steps",
        "Qin, Frosst, Sabour, Raffel, Cottrell, Hinton: Detecting and Diagnosing Adversarial Images with "
        "Class-Conditional Capsule Reconstructions. ICLR 2020",
        {"own": f"{__package__}.detector_aware.reconstructive:Reconstructive"},
    ),
    "matching": Entry(
        "knows the detector: logits, style and drawing towards those of a clean image of another class",
        "Tramèr, Carlini, Brendel, Madry: On Adaptive Attacks to Adversarial Example Defenses. NeurIPS 2020",
        {"own": f"{__package__}.detector_aware.matching:Matching"},
    ),
    "multi-target": Entry(
        "knows the detector: lead among the logits and be accepted, for every wrong label in turn",
        "Tramèr, Carlini, Brendel, Madry: On Adaptive Attacks to Adversarial Example Defenses. NeurIPS 2020; step "
        "sizes of Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse "
        "parameter-free attacks. ICML 2020",
        {"own": f"{__package__}.detector_aware.multi_target:MultiTarget"},
    ),
    "hybrid": Entry(
        "knows the detector: as multi-target, then a random search with squares from where it ended",
        "Suya, Chi, Evans, Tian: Hybrid Batch Attacks: Finding Black-box Adversarial Examples with Limited Queries. "
        "USENIX Security 2020; squares of Andriushchenko, Croce, Flammarion, Hein: Square Attack: a query-efficient "
        "black-box adversarial attack via random search. ECCV 2020",
        {"own": f"{__package__}.detector_aware.hybrid:Hybrid"},
    ),
    "worst-case": Entry(
        "knows the detector: the whole list of attacks, the cheap ones first, on the images that still stand",
        "Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free "
        "attacks. ICML 2020",
        {"own": f"{__package__}.worst_case:WorstCase"},
    ),
    "selective": Entry(
        "knows the detector: up the loss until misread, then down the detector's score",
        "Bryniarski, Hingun, Pachuca, Wang, Carlini: Evading Adversarial Example Detection Defenses with Orthogonal "
        "Projected Gradient Descent. ICLR 2022",
        {"own": f"{__package__}.detector_aware.selective:SelectivePGD"},
    ),
    "eot": Entry(
        "pgd on the mean over several passes, for models that draw random numbers",
        "Athalye, Engstrom, Ilyas, Kwok: Synthesizing Robust Adversarial Examples. ICML 2018; Athalye, Carlini, "
        "Wagner: Obfuscated Gradients Give a False Sense of Security. ICML 2018",
        {"own": f"{__package__}.eot:EOT"},
    ),
    "bpda": Entry(
        "pgd with the identity as the backward pass of parts that have no useful gradient",
        "Athalye, Carlini, Wagner: Obfuscated Gradients Give a False Sense of Security. ICML 2018",
        {"own": f"{__package__}.bpda:BPDA"},
    ),
    **{name: plain for name, (plain, _) in _BOTH.items()},
    **{f"{name}-rejecting": knowing for name, (_, knowing) in _BOTH.items()},
}


def load(name: str, engine: str | None = None, **parameters: Any) -> Attack:
    """Make the attack called `name`.

    Args:
        name: a name of `CATALOGUE`, or `module:factory` for an attack of your own: a subclass of `Attack`, or a
            function that makes one.
        engine: "torchattacks", "art" or "own"; by default the first that offers it. None for an attack of your own.
        **parameters: of the attack: eps, norm, steps, alpha, random_start, restarts, seed, batch_size.

    Raises:
        InputError: unknown name or engine, a parameter that the attack does not have or that is out of range.
    """
    factory = _factory(name, engine)
    accepted = _parameters(factory)
    for parameter in parameters:
        if accepted is not None and parameter not in accepted:
            unknown_name(f"parameter of {name}", parameter, accepted)
    try:
        attack = factory(**parameters)
    except TypeError as error:
        if name in CATALOGUE:
            raise
        raise InputError(f"attack: {name} cannot be made ({error}), must be module:factory") from error
    if not isinstance(attack, Attack):
        raise InputError(f"attack: {name} made a {type(attack).__name__}, must make an attacks.Attack")
    return attack


def engine_of(name: str, engine: str | None = None) -> str | None:
    """The engine that `load` would take: the one asked for, or else the first; None for an attack of your own.

    Raises:
        InputError: unknown name, or an engine that does not offer the attack.
    """
    if ":" in name:
        return None
    if name not in CATALOGUE:
        unknown_name("attack", name, CATALOGUE)
    engines = CATALOGUE[name].engines
    if engine is not None and engine not in engines:
        unknown_name("engine", engine, engines)
    return engine or next(iter(engines))


def takes(name: str, parameter: str, engine: str | None = None) -> bool:
    """Whether the attack called `name` has this parameter: `steps`, say."""
    accepted = _parameters(_factory(name, engine))
    return accepted is None or parameter in accepted


def _factory(name: str, engine: str | None) -> Callable[..., Any]:
    chosen = engine_of(name, engine)
    if chosen is not None:
        return _import(CATALOGUE[name].engines[chosen])
    try:
        return _import(name)
    except Exception as error:  # whatever the user's module raises when it is imported
        raise InputError(f"attack: {name!r} cannot be imported ({error}), must be module:factory") from error


def _parameters(factory: Callable[..., Any]) -> set[str] | None:
    """The names of a factory's parameters; None where it takes any."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # nothing that can be called, or that tells what it takes
        return None
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return None if takes_any else set(parameters)


def _import(place: str) -> Callable[..., Any]:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
