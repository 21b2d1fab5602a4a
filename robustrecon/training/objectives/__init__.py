"""Objectives by name: what a network is trained to minimise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TypeAlias

from ...models import EnergyModel
from ...models.base import offers
from ...types import InputError, unknown_name
from .base import Objective, ObjectiveOptions
from .ccat import CCATObjective
from .contrastive import ContrastiveObjective
from .egc import EGCObjective
from .generative_convnet import GenerativeConvNetObjective
from .generative_gradient import GenerativeGradientObjective
from .pair import PairObjective
from .style_memory import StyleMemoryObjective
from .trades import TradesObjective

__all__ = ["OBJECTIVES", "Objective", "ObjectiveOptions", "OptionValue", "build", "options_of"]

OptionValue: TypeAlias = str | int | float | bool

OBJECTIVES: dict[str, type[Objective]] = {
    "style-memory": StyleMemoryObjective,
    "contrastive": ContrastiveObjective,
    "trades": TradesObjective,
    "ccat": CCATObjective,
    "pair": PairObjective,
    "generative-convnet": GenerativeConvNetObjective,
    "egc": EGCObjective,
    "generative-gradient": GenerativeGradientObjective,
}


def options_of(name: str, values: Mapping[str, OptionValue]) -> ObjectiveOptions:
    """The options of the objective called `name`, with defaults for those that `values` does not have.

    Raises:
        InputError: an unknown objective or option, or a value out of its range.
    """
    if name not in OBJECTIVES:
        unknown_name("objective", name, OBJECTIVES)
    kind = OBJECTIVES[name].Options
    known = [field.name for field in fields(kind)]
    for option in values:
        if option not in known:
            unknown_name(f"objective_options of {name}", option, known)
    return kind(**values)


def build(name: str, model: EnergyModel, values: Mapping[str, OptionValue]) -> Objective:
    """The objective called `name` for `model`.

    Raises:
        InputError: an unknown objective or option, or a model that does not offer what the objective requires.
    """
    options = options_of(name, values)
    if lacking := _lacking(name, model):
        fitting = ", ".join(other for other in OBJECTIVES if not _lacking(other, model))
        raise InputError(
            f"objective: got {name!r}, which requires {' and '.join(lacking)} of its model, but {model.name} lacks "
            f"them; must be one of {fitting}"
        )
    return OBJECTIVES[name](model, options)


def _lacking(name: str, model: EnergyModel) -> list[str]:
    return [kind.__name__ for kind in OBJECTIVES[name].requires if not offers(model, kind)]
