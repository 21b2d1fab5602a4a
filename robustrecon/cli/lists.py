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


def list_attacks() -> None:
    """List the attacks with their engines and publications, and the checks of attack failure that each undergoes."""
    from ..attacks import CATALOGUE, CHECKS

    for name, entry in CATALOGUE.items():
        print(f"{name}: {entry.description}")
        print(f"    engines: {', '.join(entry.engines)}")
        print(f"    {entry.citation}")
    print("\nchecks of attack failure:")
    for name, explanation in CHECKS.items():
        print(f"    {name}: {explanation}")


def list_detectors() -> None:
    """List the detectors with what they compute and where they were published."""
    from ..detectors import listing

    print(listing())
