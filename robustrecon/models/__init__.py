"""Models by name, and loading them from checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from .. import checkpoint
from ..types import InputError, unknown_name
from . import shipped
from .base import EnergyModel
from .style_memory import StyleMemoryNet

__all__ = ["MODELS", "EnergyModel", "StyleMemoryNet", "build", "load", "load_with_card", "read"]

MODELS: dict[str, type[EnergyModel]] = {model.name: model for model in (StyleMemoryNet,)}
WEIGHTS = "model."


def architecture(model: EnergyModel) -> dict[str, Any]:
    """What a card says of a model so that `build` can make it again."""
    return {"name": model.name, **model.config}


def build(described: Mapping[str, Any], weights: Mapping[str, Tensor] | None = None) -> EnergyModel:
    """A model from what its card says of it, with its weights, in evaluation mode.

    Raises:
        InputError: an unknown architecture, or weights that are not of it.
    """
    arguments = dict(described)
    name = arguments.pop("name", "")
    if name not in MODELS:
        unknown_name("architecture", name, MODELS)
    try:
        model = MODELS[name](**arguments)
    except TypeError as error:
        raise InputError(f"architecture: {name} cannot be built from {arguments} ({error})") from error
    if weights is not None:
        try:
            model.load_state_dict({key: value.float() for key, value in weights.items()})
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"weights: do not match the card's architecture ({reason[:200]})") from error
    return model.eval()


def load(path: str | Path) -> EnergyModel:
    """Load a trained model: a folder that `robustrecon train` wrote, a .safetensors file, or a shipped model's name.

    Raises:
        InputError: no checkpoint there, or one that is damaged, foreign, a pickle, or does not match its card.
    """
    return load_with_card(path)[0]


def load_with_card(path: str | Path) -> tuple[EnergyModel, dict[str, Any]]:
    """`load`, and the card that came with the model."""
    saved = read(path)
    if "architecture" not in saved.card:
        raise InputError(f"{path}: its card names no architecture; this is not a model of the catalogue")
    return build(saved.card["architecture"], model_weights(saved.tensors)), saved.card


def read(path: str | Path) -> checkpoint.Checkpoint:
    """The checkpoint of whatever `load` takes, or of a calibrated classifier."""
    return checkpoint.load(shipped.locate(path))


def model_weights(tensors: Mapping[str, Tensor], prefix: str = WEIGHTS) -> dict[str, Tensor]:
    """The model's own tensors among those of a checkpoint, or others that were stored under `prefix`."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
