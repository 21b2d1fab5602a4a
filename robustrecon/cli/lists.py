"""`robustrecon models`, `robustrecon attacks` and `robustrecon detectors`."""

from __future__ import annotations

import json

from .options import Json


def list_models(as_json: Json = False) -> None:
    """List the trained models that come with the package, for --model and `robustrecon.load`."""
    from dataclasses import asdict

    from ..models import shipped

    models = shipped.catalogue()
    print(json.dumps([asdict(model) for model in models], indent=2) if as_json else shipped.listing(models))


def list_attacks(as_json: Json = False) -> None:
    """List the attacks with their engines, norms, parameters and publications, and the checks that each undergoes."""
    from ..attacks import CATALOGUE, CHECKS, describe

    attacks = [describe(name) for name in CATALOGUE]
    if as_json:
        print(json.dumps({"attacks": [attack.to_json() for attack in attacks], "checks": CHECKS}, indent=2))
        return
    print(*attacks, sep="\n")
    print("\nThe first engine is the default; all attacks have the parameters restarts and batch_size too.")
    print("\nchecks of attack failure:")
    for name, explanation in CHECKS.items():
        print(f"    {name}: {explanation}")


def list_detectors(as_json: Json = False) -> None:
    """List the detectors with what they compute, what they need of a model and where they were published."""
    from ..detectors import DETECTORS, describe, listing

    print(json.dumps([describe(name) for name in DETECTORS], indent=2) if as_json else listing())
