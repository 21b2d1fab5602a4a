"""What of a run is kept beside the weights, as named tensors: optimiser, objective, and weights before averaging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..models import model_weights
from ..types import InputError
from .objectives import Objective

_OPTIMIZER = "optimizer."
_OBJECTIVE = "objective."
_UNAVERAGED = "unaveraged."


def training_state(
    model: nn.Module, averaged: nn.Module | None, objective: Objective, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """All that a run needs to go on, but for the weights of its result."""
    tensors = {_OBJECTIVE + name: value for name, value in objective.own_state().items()}
    for number, moments in optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            tensors[f"{_OPTIMIZER}{number}.{key}"] = torch.as_tensor(value)
    if averaged is not None:
        tensors |= {_UNAVERAGED + name: value for name, value in model.state_dict().items()}
    return tensors


def without_training_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of a checkpoint's tensors is of use after training."""
    state = (_OBJECTIVE, _OPTIMIZER, _UNAVERAGED)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(state)}


def unaveraged_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that are trained where the result is their average."""
    return model_weights(tensors, _UNAVERAGED)


def objective_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The objective's own state."""
    return model_weights(tensors, _OBJECTIVE)


def optimizer_state(tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A state dict for `optimizer`, which keeps its own groups.

    Raises:
        InputError: there is none among the tensors.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in model_weights(tensors, _OPTIMIZER).items():
        number, key = name.split(".")
        state.setdefault(int(number), {})[key] = tensor
    if not state:
        raise InputError("resume: the checkpoint lacks the optimiser's state; train anew")
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}


@torch.no_grad()
def update_average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights a step towards the model's; buffers are the model's."""
    torch._foreach_lerp_(list(averaged.parameters()), list(model.parameters()), 1 - decay)
    for mine, other in zip(averaged.buffers(), model.buffers(), strict=True):
        mine.copy_(other)
