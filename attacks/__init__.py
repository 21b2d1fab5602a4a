"""The adversary: attacks on image classifiers behind one interface, and signs that an attack failed.

from robustrecon import attacks
outcome = attacks.load("pgd", eps=0.3, steps=40)(model, x, y)

Names are imported when they are first used, so that a caller who needs an error class does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import Attack, IterativeAttack, Outcome
    from .catalogue import CATALOGUE, engine_of, load, takes
    from .checks import CHECKS, Check, check
    from .errors import InputError, NonFiniteLoss, nearest, unknown_name
    from .goals import Goal, Misclassified, ScoredVictim, Targeted, Undetected, Victim
    from .images import check_images
    from .runtime import evaluating, frozen, frozen_eval, seed_everything, seeded
    from .threat import L2, Linf, Threat, threat_model

_HOME = {
    "CATALOGUE": "catalogue",
    "CHECKS": "checks",
    "L2": "threat",
    "Attack": "base",
    "Check": "checks",
    "Goal": "goals",
    "InputError": "errors",
    "IterativeAttack": "base",
    "Linf": "threat",
    "Misclassified": "goals",
    "NonFiniteLoss": "errors",
    "Outcome": "base",
    "ScoredVictim": "goals",
    "Targeted": "goals",
    "Threat": "threat",
    "Undetected": "goals",
    "Victim": "goals",
    "check": "checks",
    "check_images": "images",
    "engine_of": "catalogue",
    "evaluating": "runtime",
    "frozen": "runtime",
    "frozen_eval": "runtime",
    "load": "catalogue",
    "nearest": "errors",
    "seed_everything": "runtime",
    "seeded": "runtime",
    "takes": "catalogue",
    "threat_model": "threat",
    "unknown_name": "errors",
}

__all__ = [
    "CATALOGUE",
    "CHECKS",
    "L2",
    "Attack",
    "Check",
    "Goal",
    "InputError",
    "IterativeAttack",
    "Linf",
    "Misclassified",
    "NonFiniteLoss",
    "Outcome",
    "ScoredVictim",
    "Targeted",
    "Threat",
    "Undetected",
    "Victim",
    "check",
    "check_images",
    "engine_of",
    "evaluating",
    "frozen",
    "frozen_eval",
    "load",
    "nearest",
    "seed_everything",
    "seeded",
    "takes",
    "threat_model",
    "unknown_name",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
