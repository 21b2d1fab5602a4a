"""Attacks by name: a description, the publication and the engines that offer each; known without importing torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import InputError, unknown_name

if TYPE_CHECKING:
    from .base import Attack

PRECISIONS = ("auto", "float32", "bfloat16")
"""What an attack can be asked to search in."""


@dataclass(frozen=True)
class Entry:
    """One attack of the catalogue.

    Attributes:
        description: what it does, in one line.
        citation: where it was published.
        engines: engine -> "module:class", imported when it is first used; the first is the default.
        fixed: arguments that the entry gives the class, and that `load` therefore does not take.
    """

    description: str
    citation: str
    engines: dict[str, str]
    fixed: Mapping[str, Any] = field(default_factory=dict)


def _three_engines(own: str, torchattacks: str, art: str) -> dict[str, str]:
    return {
        "torchattacks": f"{__package__}.adapters.torchattacks:{torchattacks}",
        "art": f"{__package__}.adapters.art:{art}",
        "own": f"{__package__}.pgd:{own}",
    }


def _on_classifier(description: str, citation: str, **engines: str) -> Entry:
    """An attack on the logits alone, whose class can attack the decision with rejection too."""
    places = {engine: f"{__package__}.{place}" for engine, place in engines.items()}
    return Entry(description, citation, places, {"with_rejection": False})


def _on_decision(name: str, plain: Entry) -> Entry:
    """The attack called `name` on the decision with rejection."""
    description = f"knows the detector: {name} on the decision with rejection"
    return Entry(description, plain.citation, plain.engines, {"with_rejection": True})


_CLASSIFIER_ATTACKS: dict[str, Entry] = {
    "apgd-ce": _on_classifier(
        "projected gradient ascent on the cross-entropy with adaptive step sizes",
        "Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free "
        "attacks. ICML 2020",
        torchattacks="adapters.autoattack:ApgdCe",
        own="own_apgd:OwnApgdCe",
    ),
    "apgd-t": _on_classifier(
        "projected gradient ascent on the targeted difference of logits ratio (own, and below 4 classes: on the "
        "difference of the two logits), for each likely wrong label in turn",
        "Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free "
        "attacks. ICML 2020",
        torchattacks="adapters.autoattack:ApgdT",
        own="own_apgd:OwnApgdT",
    ),
    "fab-t": _on_classifier(
        "search for the nearest misclassified image, for each likely wrong label in turn",
        "Croce, Hein: Minimally distorted adversarial examples with a fast adaptive boundary attack. ICML 2020",
        torchattacks="adapters.autoattack:FabT",
    ),
    "square": _on_classifier(
        "random search with squares, which uses logits only",
        "Andriushchenko, Croce, Flammarion, Hein: Square Attack: a query-efficient black-box adversarial attack via "
        "random search. ECCV 2020",
        torchattacks="adapters.autoattack:Square",
        own="own_square:OwnSquare",
    ),
    "hop-skip-jump": _on_classifier(
        "walk along the decision boundary from an image of another label, which uses decisions only",
        "Chen, Jordan, Wainwright: HopSkipJumpAttack: A Query-Efficient Decision-Based Attack. IEEE Symposium on "
        "Security and Privacy 2020",
        art="adapters.hop_skip_jump:HopSkipJump",
    ),
}

CATALOGUE: dict[str, Entry] = {
    "fgsm": Entry(
        "one step of size eps along the gradient, its sign for linf",
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
        "knows the detector: selective, each step orthogonal to the gradient of the other loss",
        "Bryniarski, Hingun, Pachuca, Wang, Carlini: Evading Adversarial Example Detection Defenses with Orthogonal "
        "Projected Gradient Descent. ICLR 2022",
        {"own": f"{__package__}.detector_aware.selective:OrthogonalPGD"},
    ),
    "reconstructive": Entry(
        "knows the detector: loss and score in one sum whose weight is searched, or in alternating steps",
        "Qin, Frosst, Sabour, Raffel, Cottrell, Hinton: Detecting and Diagnosing Adversarial Images with "
        "Class-Conditional Capsule Reconstructions. ICLR 2020",
        {"own": f"{__package__}.detector_aware.reconstructive:Reconstructive"},
    ),
    "matching": Entry(
        "knows the detector: match the logits, style and drawing of a clean image of another class",
        "Tramèr, Carlini, Brendel, Madry: On Adaptive Attacks to Adversarial Example Defenses. NeurIPS 2020",
        {"own": f"{__package__}.detector_aware.matching:Matching"},
    ),
    "multi-target": Entry(
        "knows the detector: ascend the margins of logits and score at once, for every wrong label in turn",
        "Tramèr, Carlini, Brendel, Madry: On Adaptive Attacks to Adversarial Example Defenses. NeurIPS 2020; step "
        "sizes of Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse "
        "parameter-free attacks. ICML 2020",
        {"own": f"{__package__}.detector_aware.multi_target:MultiTarget"},
    ),
    "hybrid": Entry(
        "knows the detector: multi-target, then a random search with squares from where it ended",
        "Suya, Chi, Evans, Tian: Hybrid Batch Attacks: Finding Black-box Adversarial Examples with Limited Queries. "
        "USENIX Security 2020; squares of Andriushchenko, Croce, Flammarion, Hein: Square Attack: a query-efficient "
        "black-box adversarial attack via random search. ECCV 2020",
        {"own": f"{__package__}.detector_aware.hybrid:Hybrid"},
    ),
    "worst-case": Entry(
        "knows the detector: all attacks, the cheap ones first, each on the images that remain",
        "Croce, Hein: Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free "
        "attacks. ICML 2020",
        {"own": f"{__package__}.worst_case:WorstCase"},
    ),
    "force-reject": Entry(
        "knows the detector: ascend its score until the image is rejected, with the right or a wrong label; success is "
        "a rejection, denial of service",
        "Chen, Raghuram, Choi, Wu, Liang, Jha: Stratified Adversarial Robustness with Rejection. ICML 2023",
        {"own": f"{__package__}.force_reject:ForceReject"},
    ),
    "selective": Entry(
        "knows the detector: ascend the loss until misclassified, then descend the detector's score",
        "Bryniarski, Hingun, Pachuca, Wang, Carlini: Evading Adversarial Example Detection Defenses with Orthogonal "
        "Projected Gradient Descent. ICLR 2022",
        {"own": f"{__package__}.detector_aware.selective:SelectivePGD"},
    ),
    "eot": Entry(
        "pgd on the mean of several passes, for models that draw random numbers",
        "Athalye, Engstrom, Ilyas, Kwok: Synthesizing Robust Adversarial Examples. ICML 2018; Athalye, Carlini, "
        "Wagner: Obfuscated Gradients Give a False Sense of Security. ICML 2018",
        {"own": f"{__package__}.eot:EOT"},
    ),
    "bpda": Entry(
        "pgd with the identity as the backward pass of parts without a useful gradient",
        "Athalye, Carlini, Wagner: Obfuscated Gradients Give a False Sense of Security. ICML 2018",
        {"own": f"{__package__}.bpda:BPDA"},
    ),
    **_CLASSIFIER_ATTACKS,
    **{f"{name}-rejecting": _on_decision(name, plain) for name, plain in _CLASSIFIER_ATTACKS.items()},
}

# Old name -> new name, of parameters in suites and results that were written before they were renamed.
RENAMED_PARAMETERS: dict[str, str] = {"deepen": "extra_restarts", "searched": "search_fraction"}


def current_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of an attack as an old suite or an old result names them, under the names of today.

    Raises:
        InputError: a parameter is there under both names.
    """
    for old, new in RENAMED_PARAMETERS.items():
        if old in parameters and new in parameters:
            raise InputError(f"parameters: got {old} and {new}, which are the same; must be {new} alone")
    return {RENAMED_PARAMETERS.get(name, name): value for name, value in parameters.items()}


def load(name: str, engine: str | None = None, **parameters: Any) -> Attack:
    """Make the attack called `name`.

    Args:
        name: a name of `CATALOGUE`, or `module:factory` for an attack of your own: a subclass of `Attack`, or a
            function that makes one.
        engine: "torchattacks", "art" or "own"; by default the first that offers it. None for an attack of your own.
        **parameters: arguments of the attack's class, such as eps, norm, steps, alpha, restarts or seed.

    Raises:
        InputError: unknown name or engine, a parameter that the attack does not have or that is out of range.
    """
    from .base import Attack

    factory, fixed = factory_of(name, engine)
    accepted = _parameters(factory, fixed)
    for parameter in parameters:
        if accepted is not None and parameter not in accepted:
            unknown_name(f"parameter of {name}", parameter, accepted)
    try:
        attack = factory(**parameters, **fixed)
    except TypeError as error:
        if name in CATALOGUE:
            raise
        raise InputError(f"attack: {name} cannot be made ({error}), must be module:factory") from error
    if not isinstance(attack, Attack):
        raise InputError(f"attack: {name} made a {type(attack).__name__}, must make an attacks.Attack")
    return attack


def engine_of(name: str, engine: str | None = None) -> str | None:
    """The engine that `load` uses: `engine`, or else the first of the entry; None for an attack of your own.

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


def engines_with_norm(name: str, norm: str) -> list[str]:
    """The engines that offer the attack called `name` in this norm, the default first; none for one of your own."""
    if name not in CATALOGUE:
        return []
    classes: dict[str, Any] = {engine: factory_of(name, engine)[0] for engine in CATALOGUE[name].engines}
    return [engine for engine, found in classes.items() if norm in found.norms]


def has_parameter(name: str, parameter: str, engine: str | None = None) -> bool:
    """Whether `load` takes this parameter, such as `steps`, for the attack called `name`; does not make the attack.

    Raises:
        InputError: unknown name, or an engine that does not offer the attack.
    """
    accepted = _parameters(*factory_of(name, engine))
    return accepted is None or parameter in accepted


def factory_of(name: str, engine: str | None = None) -> tuple[Callable[..., Any], Mapping[str, Any]]:
    """What makes the attack called `name`, and the arguments that its entry fixes.

    Raises:
        InputError: unknown name, an engine that does not offer the attack, or a module that cannot be imported.
    """
    chosen = engine_of(name, engine)
    if chosen is not None:
        entry = CATALOGUE[name]
        return _import(entry.engines[chosen]), entry.fixed
    return import_factory("attack", name), {}


def _parameters(factory: Callable[..., Any], fixed: Mapping[str, Any]) -> set[str] | None:
    """The names of a factory's parameters without the fixed ones; None where it takes any."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # it cannot be called, or has no signature
        return None
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return None if any_name else set(parameters) - set(fixed)


def import_factory(argument: str, place: str) -> Callable[..., Any]:
    """The user's own `module:factory`.

    Raises:
        InputError: it cannot be imported; names the argument.
    """
    try:
        return _import(place)
    except Exception as error:  # the user's module may raise anything when it is imported
        raise InputError(f"{argument}: {place!r} cannot be imported ({error}), must be module:factory") from error


def _import(place: str) -> Callable[..., Any]:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
