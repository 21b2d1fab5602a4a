"""The adversary: attacks on image classifiers behind one interface, and signs that an attack failed.

import attacks
outcome = attacks.load("pgd", eps=0.3, steps=40)(model, x, y)
"""

from .base import Attack, IterativeAttack, Outcome
from .catalogue import CATALOGUE, engine_of, load, takes
from .checks import CHECKS, Check, check
from .errors import InputError, NonFiniteLoss
from .goals import Goal, Misclassified, ScoredVictim, Targeted, Undetected, Victim
from .threat import L2, Linf, Threat, threat

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
    "engine_of",
    "load",
    "takes",
    "threat",
]
