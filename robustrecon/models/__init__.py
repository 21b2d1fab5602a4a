"""Models by name, and loading them from checkpoints."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .. import checkpoint, provenance
from ..types import InputError, nearest
from . import shipped
from .base import TRAINED_ON, WEIGHTS, EnergyModel
from .class_conditioned import ClassConditionedAutoencoder
from .egc import EGC
from .generative_convnet import GenerativeConvNet
from .generative_gradient import GenerativeGradientCNN
from .grafted import Grafted
from .style_memory import StyleMemoryNet

__all__ = [
    "EGC",
    "MODELS",
    "TRAINED_ON",
    "WEIGHTS",
    "ClassConditionedAutoencoder",
    "EnergyModel",
    "GenerativeConvNet",
    "GenerativeGradientCNN",
    "StyleMemoryNet",
    "architecture",
    "build",
    "class_names",
    "load",
    "load_with_card",
    "model_weights",
    "read",
    "trained_on",
]

MODELS: dict[str, type[EnergyModel]] = {
    model.name: model
    for model in (StyleMemoryNet, ClassConditionedAutoencoder, EGC, GenerativeConvNet, GenerativeGradientCNN)
}


def architecture(model: EnergyModel) -> dict[str, Any]:
    """The name and the options that a card holds, from which `build` makes the model again."""
    return {"name": model.name, **model.config}


def build(
    described: Mapping[str, Any],
    weights: Mapping[str, Tensor] | None = None,
    classifier: nn.Module | str | None = None,
) -> EnergyModel:
    """The model that `architecture` described, with its weights, in evaluation mode.

    Args:
        described: `name`, one of `MODELS`, and options of its class; options that are missing have their defaults.
        weights: the model's state dict; random weights by default.
        classifier: that of a graft, or the `module:factory` that makes it, where the description does not say it.

    Raises:
        InputError: an unknown architecture or option, an option out of its range, or weights of another architecture.
    """
    if not isinstance(described, Mapping) or not isinstance(described.get("name"), str):
        raise InputError(f"architecture: got {described!r}, must be an object with the `name` of an architecture")
    name, options = described["name"], {key: value for key, value in described.items() if key != "name"}
    if name == Grafted.name:
        from .grafting import rebuilt  # which builds the parts with this function

        return rebuilt(options, weights, classifier)
    if classifier is not None:
        raise InputError(f"classifier: got {classifier}, must be left out for {name}, which is no graft")
    if name not in MODELS:
        version = provenance.versions().get("robustrecon", "not installed")
        raise InputError(
            f"architecture: this version of robustrecon ({version}) does not know {name!r}{nearest(name, MODELS)} "
            f"(known: {', '.join(sorted(MODELS))}); a newer version may know it"
        )
    _check_options(MODELS[name], options)
    try:
        model = MODELS[name](**options)
    except TypeError as error:
        raise InputError(f"architecture: {name} cannot be built from {options} ({error})") from error
    if weights is not None:
        try:
            model.load_state_dict({key: value.float() for key, value in weights.items()})
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"weights: do not match the card's architecture ({reason[:200]})") from error
    return model.eval()


def _check_options(model: type[EnergyModel], options: Mapping[str, Any]) -> None:
    """Raise for options that the constructor of `model` does not have."""
    parameters = inspect.signature(model).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            raise InputError(
                f"architecture: {model.name} has no option {option!r}{nearest(option, parameters)} "
                f"(known: {', '.join(parameters)}); a newer version of robustrecon may have it"
            )


def load(path: str | Path, classifier: nn.Module | str | None = None) -> EnergyModel:
    """Load a trained model: a folder that `robustrecon train` wrote, a .safetensors file, or a shipped model's name.

    Args:
        path: the folder, file or name; also one that `robustrecon graft` wrote.
        classifier: that of a graft, or the `module:factory` that makes it, instead of what its card says. What a card
            says is imported and called: load no graft of people whose code you would not run.

    Raises:
        InputError: no such checkpoint, or one that is damaged, foreign, a pickle, of an architecture or a format that
            this version does not know, or with weights of another architecture than its card's.
    """
    return load_with_card(path, classifier)[0]


def load_with_card(path: str | Path, classifier: nn.Module | str | None = None) -> tuple[EnergyModel, dict[str, Any]]:
    """The model that `load` returns, and the card of its checkpoint."""
    saved = read(path)
    if "architecture" not in saved.card:
        raise InputError(f"{path}: its card has no architecture, so it holds no model")
    try:
        model = build(saved.card["architecture"], model_weights(saved.tensors), classifier)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    fingerprint = saved.card.get("data", {}).get("fingerprint")
    model.trained_on = saved.tensors.get(TRAINED_ON, shipped.sketches().get(fingerprint))
    return model, saved.card


def trained_on(model: nn.Module) -> Tensor | None:
    """The sketch of the images that a model, or one that it wraps, was trained on; None where it is not known."""
    found = (getattr(part, TRAINED_ON, None) for part in model.modules())
    return next((sketch for sketch in found if isinstance(sketch, Tensor)), None)


def class_names(stored: object, model: nn.Module, where: str | Path) -> tuple[str, ...] | None:
    """The class names that a card or a user gives; None where there are none.

    Args:
        stored: names in label order, or None.
        model: they must be as many as its `n_classes`, where it says so.
        where: what gives them, for the message.

    Raises:
        InputError: something else than names, or fewer or more than the model has classes.
    """
    if stored is None:
        return None
    names = tuple(stored) if isinstance(stored, (list, tuple)) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{where}: gives the class names as {str(stored)[:60]}, must be a list with a name a label")
    n_classes = getattr(model, "n_classes", len(names))
    if len(names) != n_classes:
        raise InputError(f"{where}: names {len(names)} classes, must name the model's {n_classes}")
    return names


def read(path: str | Path) -> checkpoint.Checkpoint:
    """The checkpoint of a model, given as `load` takes it, or of a calibrated classifier."""
    return checkpoint.load(shipped.locate(path))


def model_weights(tensors: Mapping[str, Tensor], prefix: str = WEIGHTS) -> dict[str, Tensor]:
    """The tensors of a checkpoint whose names begin with `prefix`, without it; the model's by default."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
