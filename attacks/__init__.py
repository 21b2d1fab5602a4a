"""The adversary: attacks on image classifiers behind one interface, and checks that show whether an attack failed.

from robustrecon import attacks
outcome = attacks.load("pgd", eps=0.3, steps=40)(model, x, y)

from robustrecon.attacks import PGD
outcome = PGD(eps=0.3, steps=40)(model, x, y)

Names are imported when they are first used, so that a caller who needs an error class does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapters.art import ArtFGSM, ArtPGD, art_estimator
    from .adapters.autoattack import ApgdCe, ApgdT, FabT, Square
    from .adapters.hop_skip_jump import HopSkipJump
    from .adapters.torchattacks import TorchattacksFGSM, TorchattacksPGD
    from .averaged import Averaged, draws_needed
    from .backward import ApproximateBackward, FrontEnd, front_ends
    from .base import Attack, Outcome
    from .binarization import PLANTED, BinarizationTest, binarization_test
    from .bpda import BPDA
    from .catalogue import (
        CATALOGUE,
        PRECISIONS,
        RENAMED_PARAMETERS,
        current_parameters,
        engine_of,
        engines_with_norm,
        has_parameter,
        import_factory,
        load,
    )
    from .checks import CHECKED, CHECKS, Check, check
    from .detector_aware.apgd import BestPoints, Evaluation
    from .detector_aware.base import DetectorAware
    from .detector_aware.hybrid import Hybrid
    from .detector_aware.matching import Matching
    from .detector_aware.multi_target import MultiTarget
    from .detector_aware.reconstructive import Reconstructive
    from .detector_aware.rejecting import ClassifierAttack, RejectingClassifier
    from .detector_aware.selective import OrthogonalPGD, SelectivePGD
    from .eot import EOT
    from .errors import InputError, NonFiniteLoss, nearest, unknown_name
    from .force_reject import ForceReject
    from .goals import Goal, Misclassified, Rejected, ScoredVictim, Targeted, Undetected, Victim
    from .images import check_images
    from .iterative import GradientAttack, IterativeAttack
    from .listing import Description, describe
    from .objective import AttackObjective
    from .own_apgd import OwnApgdCe, OwnApgdT
    from .own_square import OwnSquare
    from .parameters import Parameter, parameters_of, read_number, read_parameter
    from .pgd import FGSM, PGD
    from .precision import bfloat16_unit, in_precision, resolve_precision
    from .runtime import evaluating, frozen, frozen_eval, seed_everything, seeded
    from .threat import L1, L2, Linf, Threat, threat_model
    from .transfer import Transfer
    from .worst_case import (
        BACKWARD_SLOPES,
        DEAR,
        DEAR_IMAGES,
        DEFAULT_ATTACKS,
        NearestPoints,
        WorstCase,
        attack_remaining,
        cheapest_first,
        default_attacks,
    )

# No name may equal that of a submodule: importing the submodule would replace it.
_HOME = {
    "BACKWARD_SLOPES": "worst_case",
    "BPDA": "bpda",
    "CATALOGUE": "catalogue",
    "CHECKED": "checks",
    "CHECKS": "checks",
    "DEAR": "worst_case",
    "DEAR_IMAGES": "worst_case",
    "DEFAULT_ATTACKS": "worst_case",
    "EOT": "eot",
    "FGSM": "pgd",
    "L1": "threat",
    "L2": "threat",
    "PGD": "pgd",
    "PLANTED": "binarization",
    "PRECISIONS": "catalogue",
    "RENAMED_PARAMETERS": "catalogue",
    "ApgdCe": "adapters.autoattack",
    "ApgdT": "adapters.autoattack",
    "ApproximateBackward": "backward",
    "ArtFGSM": "adapters.art",
    "ArtPGD": "adapters.art",
    "Attack": "base",
    "AttackObjective": "objective",
    "Averaged": "averaged",
    "BestPoints": "detector_aware.apgd",
    "BinarizationTest": "binarization",
    "Check": "checks",
    "ClassifierAttack": "detector_aware.rejecting",
    "Description": "listing",
    "DetectorAware": "detector_aware.base",
    "Evaluation": "detector_aware.apgd",
    "FabT": "adapters.autoattack",
    "ForceReject": "force_reject",
    "FrontEnd": "backward",
    "Goal": "goals",
    "GradientAttack": "iterative",
    "HopSkipJump": "adapters.hop_skip_jump",
    "Hybrid": "detector_aware.hybrid",
    "InputError": "errors",
    "IterativeAttack": "iterative",
    "Linf": "threat",
    "Matching": "detector_aware.matching",
    "Misclassified": "goals",
    "MultiTarget": "detector_aware.multi_target",
    "NearestPoints": "worst_case",
    "NonFiniteLoss": "errors",
    "OrthogonalPGD": "detector_aware.selective",
    "Outcome": "base",
    "OwnApgdCe": "own_apgd",
    "OwnApgdT": "own_apgd",
    "OwnSquare": "own_square",
    "Parameter": "parameters",
    "Reconstructive": "detector_aware.reconstructive",
    "Rejected": "goals",
    "RejectingClassifier": "detector_aware.rejecting",
    "ScoredVictim": "goals",
    "SelectivePGD": "detector_aware.selective",
    "Square": "adapters.autoattack",
    "Targeted": "goals",
    "Threat": "threat",
    "TorchattacksFGSM": "adapters.torchattacks",
    "TorchattacksPGD": "adapters.torchattacks",
    "Transfer": "transfer",
    "Undetected": "goals",
    "Victim": "goals",
    "WorstCase": "worst_case",
    "art_estimator": "adapters.art",
    "attack_remaining": "worst_case",
    "bfloat16_unit": "precision",
    "binarization_test": "binarization",
    "cheapest_first": "worst_case",
    "check": "checks",
    "check_images": "images",
    "current_parameters": "catalogue",
    "default_attacks": "worst_case",
    "describe": "listing",
    "draws_needed": "averaged",
    "engine_of": "catalogue",
    "engines_with_norm": "catalogue",
    "evaluating": "runtime",
    "front_ends": "backward",
    "frozen": "runtime",
    "frozen_eval": "runtime",
    "has_parameter": "catalogue",
    "import_factory": "catalogue",
    "in_precision": "precision",
    "load": "catalogue",
    "nearest": "errors",
    "parameters_of": "parameters",
    "read_number": "parameters",
    "read_parameter": "parameters",
    "resolve_precision": "precision",
    "seed_everything": "runtime",
    "seeded": "runtime",
    "threat_model": "threat",
    "unknown_name": "errors",
}

__all__ = [
    "BACKWARD_SLOPES",
    "BPDA",
    "CATALOGUE",
    "CHECKED",
    "CHECKS",
    "DEAR",
    "DEAR_IMAGES",
    "DEFAULT_ATTACKS",
    "EOT",
    "FGSM",
    "L1",
    "L2",
    "PGD",
    "PLANTED",
    "PRECISIONS",
    "RENAMED_PARAMETERS",
    "ApgdCe",
    "ApgdT",
    "ApproximateBackward",
    "ArtFGSM",
    "ArtPGD",
    "Attack",
    "AttackObjective",
    "Averaged",
    "BestPoints",
    "BinarizationTest",
    "Check",
    "ClassifierAttack",
    "Description",
    "DetectorAware",
    "Evaluation",
    "FabT",
    "ForceReject",
    "FrontEnd",
    "Goal",
    "GradientAttack",
    "HopSkipJump",
    "Hybrid",
    "InputError",
    "IterativeAttack",
    "Linf",
    "Matching",
    "Misclassified",
    "MultiTarget",
    "NearestPoints",
    "NonFiniteLoss",
    "OrthogonalPGD",
    "Outcome",
    "OwnApgdCe",
    "OwnApgdT",
    "OwnSquare",
    "Parameter",
    "Reconstructive",
    "Rejected",
    "RejectingClassifier",
    "ScoredVictim",
    "SelectivePGD",
    "Square",
    "Targeted",
    "Threat",
    "TorchattacksFGSM",
    "TorchattacksPGD",
    "Transfer",
    "Undetected",
    "Victim",
    "WorstCase",
    "art_estimator",
    "attack_remaining",
    "bfloat16_unit",
    "binarization_test",
    "cheapest_first",
    "check",
    "check_images",
    "current_parameters",
    "default_attacks",
    "describe",
    "draws_needed",
    "engine_of",
    "engines_with_norm",
    "evaluating",
    "front_ends",
    "frozen",
    "frozen_eval",
    "has_parameter",
    "import_factory",
    "in_precision",
    "load",
    "nearest",
    "parameters_of",
    "read_number",
    "read_parameter",
    "resolve_precision",
    "seed_everything",
    "seeded",
    "threat_model",
    "unknown_name",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
