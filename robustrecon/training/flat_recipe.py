"""Recipes in the flat form that older cards have, without options of model and objective, in today's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SCHEDULE = ("name", "epochs", "batch_size", "learning_rate", "schedule", "least_steps", "average")
_MODEL_OPTIONS = ("style_dim", "style_encoder", "width", "blocks")
_RENAMED = {
    "alpha": "reconstruction_weight",
    "contrast": "energy_weight",
    "warp": "distortion",
    "gap": "margin_gap",
    "trades": "beta",
}
_ENERGY_OPTIONS = ("noise", "alpha", "contrast", "wrong_labels", "eps", "ramp", "attack_steps", "warp", "style_noise")
_OBJECTIVE_OPTIONS = {
    "style-memory": ("noise", "alpha", "decoder_input"),
    "contrastive": (*_ENERGY_OPTIONS, "clean_share", "gap"),
    "trades": (*_ENERGY_OPTIONS, "trades"),
}


def is_flat(stored: Mapping[str, Any]) -> bool:
    """Whether a card's recipe is of the older form."""
    return "objective_options" not in stored


def from_flat(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A flat recipe in today's form; options that its objective did not read are left out."""
    if stored.get("objective", "paper") == "paper":
        objective = "style-memory"
    else:
        objective = "trades" if stored.get("trades") else "contrastive"
    return {
        **_taken(stored, _SCHEDULE),
        "model": "style-memory",
        "model_options": _taken(stored, _MODEL_OPTIONS),
        "objective": objective,
        "objective_options": _taken(stored, _OBJECTIVE_OPTIONS[objective]),
    }


def _taken(stored: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {_RENAMED.get(name, name): stored[name] for name in names if name in stored}
