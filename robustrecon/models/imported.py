"""A model of the user's own, by the name of what makes it, and its weights from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..attacks import import_factory
from ..types import InputError
from .wrappers import LogitsOf, Normalized


def import_model(argument: str, place: str) -> nn.Module:
    """The model of `module:factory`: a module, or what a function or a class without arguments makes.

    Raises:
        InputError: it cannot be imported, its factory fails or makes something else than a `torch.nn.Module`; names
            the argument.
    """
    found: object = import_factory(argument, place)
    if callable(found) and not isinstance(found, nn.Module):
        try:
            found = found()
        except Exception as error:  # the user's code may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(f"{argument}: {place} cannot be made ({reason}), must need no arguments") from error
    if not isinstance(found, nn.Module):
        raise InputError(f"{argument}: {place} made a {type(found).__name__}, must make a torch.nn.Module")
    return found


def classifier_module(classifier: nn.Module | str) -> nn.Module:
    """The classifier itself, or what its "module:factory" makes.

    Raises:
        InputError: it is neither, or cannot be made.
    """
    found = import_model("classifier", classifier) if isinstance(classifier, str) else classifier
    if not isinstance(found, nn.Module):
        raise InputError(f"classifier: got {type(found).__name__}, must be a torch.nn.Module that gives logits")
    return found


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Take on the weights in a file: .safetensors, or what `torch.save(model.state_dict(), path)` wrote.

    Reading runs no code from the file. Weights of a model that is in a `Normalized` or a `LogitsOf` are that model's.

    Raises:
        InputError: no such file, one that holds anything but tensors, or weights that do not fit.
    """
    weights = _read(Path(path))
    inner = model
    while isinstance(inner, (Normalized, LogitsOf)) and not weights.keys() & inner.state_dict().keys():
        inner = inner.model
    try:
        inner.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"weights: {path} does not fit {type(inner).__name__} ({reason[:300]})") from error


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise InputError(f"weights: no file {path}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"weights: {path} is not a whole safetensors file ({error})") from error
    except Exception as error:  # a damaged file may raise anything
        raise InputError(
            f"weights: {path} cannot be read as weights alone ({type(error).__name__}), must be .safetensors, or a "
            "state dict, as torch.save(model.state_dict(), path) writes it"
        ) from error
    found = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InputError(f"weights: {path} holds a {type(found).__name__}, must hold tensors by name, a state dict")
    return found
