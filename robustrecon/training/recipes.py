"""Recipes: the hyper-parameters of a training run.

paper   robustrecon train --data mnist --recipe paper
        The paper's optimiser and length. An hour and a half on 2 cores; the paper's MNIST 98.48 %.
fast    robustrecon train --data mnist (the default recipe)
        The same objective with a one-cycle learning rate. 2 minutes on 2 cores; MNIST at least 98.48 %. On the
        embedded digits half a minute; at least 97 %.
contrastive
        robustrecon train --data mnist --recipe contrastive
        The true label must also explain an input better than wrong ones do. 1.6 times the time of `fast`; MNIST
        99.2 %. On the embedded digits the label with the lowest energy is the true one for 98 %, after `fast` 91 %.
robust  robustrecon train --data mnist --recipe robust
        The same on adversarial images. 50 minutes on one core; MNIST 99.2 %. It overfits: it is more robust on
        training images than on new ones. Hence the next one.
robust-refine
        robustrecon train --data mnist --recipe robust-refine --start FOLDER --devices 2
        From what `robust` made, on randomly distorted images, with a larger margin asked of clean images than of
        adversarial ones, and with more layers. Over an hour on 2 cores; MNIST 99.5 %. The shipped robust/mnist had two
        shorter rounds of it before.
robust-front
        robustrecon train --data mnist --recipe robust-front
        `robust` behind a steep front end, for half as long. Under an hour on one core; MNIST 99.0 %.
ccat    robustrecon train --data mnist --recipe ccat, then bench --detector msp
        Sure of clean images, unsure of adversarial ones the farther they are; the confidence is the detector. On the
        embedded digits a minute and a half on one core; 98 %.
egc     robustrecon train --data mnist --model egc --devices 2
        A classifier that is a diffusion model, small enough for an hour and a half on 2 cores. On the embedded digits
        11 processor minutes with `--precision bf16-mixed`; 99.7 %.
egc-large
        robustrecon train --data mnist --recipe egc-large
        The same with a larger network, for longer. 20 minutes on a GPU that others use too; MNIST 99.6 %.
generative-convnet
        robustrecon train --data mnist --model generative-convnet
        Each output is the log density of a class, learned by sampling; 276 images/s on one core, which makes 40
        minutes; MNIST 98.4 %. On the embedded digits 8 minutes; 97 %.
generative-gradient
        robustrecon train --data mnist --model generative-gradient
        A softmax over the images of a batch first, over the labels then; 1,400 images/s on one core; MNIST 99.2 %.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any

from ..models import MODELS
from ..types import InputError, unknown_name
from .checks import at_least, in_unit, one_of
from .flat_recipe import from_flat, is_flat
from .objectives import OBJECTIVES, OptionValue, options_of

_WARM_UP = 0.2  # share of the steps in which a one-cycle learning rate rises
_FIRST = 1 / 25  # of its peak


@dataclass(frozen=True)
class Recipe:
    """How to train a network: schedule, model and objective.

    Attributes:
        name: what to call it in cards and results.
        epochs: passes over the training part.
        batch_size: images a step, over all processes together.
        learning_rate: Adam's; the peak of a one-cycle schedule.
        schedule: "constant" or "one-cycle".
        least_steps: a small data set gets as many epochs as make this many steps.
        average: decay, a step, of a moving average of the weights, which is the result; 0 for none.
        clip: largest norm of the gradient, which is made smaller where it is above; 0 for none.
        model: a name of `MODELS`.
        model_options: arguments of its constructor; classes and image shape come from the data.
        objective: a name of `OBJECTIVES`.
        objective_options: fields of its `Options`.

    Raises:
        InputError: an attribute or an option out of its range, or an unknown model, objective or option.
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    least_steps: int = 0
    average: float = 0.0
    clip: float = 0.0
    model: str = "style-memory"
    model_options: Mapping[str, OptionValue] = field(default_factory=dict)
    objective: str = "contrastive"
    objective_options: Mapping[str, OptionValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(1, self, "epochs", "batch_size")
        at_least(0, self, "least_steps", "clip")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate: got {self.learning_rate}, must be above 0")
        in_unit(self, "average", below_1=True)
        one_of(self, "schedule", "constant", "one-cycle")
        if self.model not in MODELS:
            unknown_name("model", self.model, MODELS)
        known = model_defaults(self.model)
        for option in self.model_options:
            if option not in known:
                unknown_name(f"model_options of {self.model}", option, known)
        options_of(self.objective, self.objective_options)

    def epochs_for(self, steps_per_epoch: int) -> int:
        """Epochs on a data set of this size."""
        return max(self.epochs, math.ceil(self.least_steps / steps_per_epoch))

    def learning_rate_factor(self, progress: float) -> float:
        """What to multiply the learning rate by when a share `progress` of the steps is done.

        One-cycle: up from a 25th over the first fifth, then down to nothing along cosines (Smith & Topin 2018).
        """
        if self.schedule == "constant":
            return 1.0
        if progress < _WARM_UP:
            return _FIRST + (1 - _FIRST) * _rise(progress / _WARM_UP)
        return 1 - _rise((progress - _WARM_UP) / (1 - _WARM_UP))

    def to_json(self) -> dict[str, Any]:
        """What a card says of it, defaults filled in."""
        return completed(asdict(self))

    def with_model(self, name: str) -> Recipe:
        """For the model called `name`, with its default options where that is another one."""
        return self if name == self.model else replace(self, model=name, model_options={})

    def with_objective(self, name: str) -> Recipe:
        """For the objective called `name`, with its default options; the recipe's name tells."""
        if name == self.objective:
            return self
        return replace(self, name=f"{self.name}-{name}", objective=name, objective_options={})


def _rise(share: float) -> float:
    return (1 - math.cos(math.pi * share)) / 2


def model_defaults(name: str) -> dict[str, OptionValue]:
    """The options of a model's constructor and their defaults, without those that the data decides."""
    parameters = inspect.signature(MODELS[name]).parameters.values()
    return {
        parameter.name: parameter.default
        for parameter in parameters
        if parameter.name not in ("n_classes", "image_shape") and parameter.kind is not parameter.VAR_KEYWORD
    }


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says of a recipe, in today's form and with the defaults of what it leaves out."""
    stored = from_flat(stored) if is_flat(stored) else stored
    filled = {each.name: each.default for each in fields(Recipe) if each.default is not MISSING} | dict(stored)
    if filled["objective"] in OBJECTIVES:
        filled["objective_options"] = asdict(OBJECTIVES[filled["objective"]].Options()) | filled["objective_options"]
    if filled["model"] in MODELS:
        filled["model_options"] = model_defaults(filled["model"]) | filled["model_options"]
    return filled


_ROBUST = Recipe(
    "robust",
    epochs=20,
    batch_size=128,
    learning_rate=1.5e-3,
    schedule="one-cycle",
    least_steps=3000,
    objective_options={"noise": 0.0, "eps": 0.32},  # beyond 0.3, since a network trained at 0.3 is weak right there
)

_EGC = Recipe(
    "egc",
    epochs=8,
    batch_size=64,
    learning_rate=2e-3,
    schedule="one-cycle",
    least_steps=1200,
    average=0.995,
    clip=1.0,
    model="egc",
    objective="egc",
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("paper", epochs=250, batch_size=128, learning_rate=1e-5, schedule="constant", objective="style-memory"),
        Recipe("contrastive", epochs=5, batch_size=128, learning_rate=3e-3, schedule="one-cycle", least_steps=400),
        _ROBUST,
        replace(
            _ROBUST,
            name="robust-refine",
            epochs=24,
            learning_rate=1e-3,
            model_options={"blocks": 2},
            objective_options={"noise": 0.0, "eps": 0.31, "ramp": 0.0, "margin_gap": 3.0, "distortion": 1.0},
        ),
        replace(
            _ROBUST,
            name="robust-front",
            epochs=10,
            model_options={"blocks": 1, "front_end": 20.0, "front_end_energies": True},
        ),
        Recipe(
            "fast",
            epochs=5,
            batch_size=128,
            learning_rate=3e-3,
            schedule="one-cycle",
            least_steps=400,
            objective="style-memory",
        ),
        Recipe(
            "ccat",
            epochs=10,
            batch_size=128,
            learning_rate=3e-3,
            schedule="one-cycle",
            least_steps=400,
            objective="ccat",
        ),
        Recipe(
            "generative-convnet",
            epochs=12,
            batch_size=64,
            learning_rate=1e-3,
            schedule="one-cycle",
            least_steps=2000,
            average=0.995,
            model="generative-convnet",
            objective="generative-convnet",
        ),
        _EGC,
        replace(
            _EGC,
            name="egc-large",
            epochs=20,
            batch_size=128,
            least_steps=0,
            average=0.999,
            model_options={"width": 64},
        ),
        Recipe(
            "generative-gradient",
            epochs=3,
            batch_size=128,
            learning_rate=2e-3,
            schedule="one-cycle",
            least_steps=600,
            model="generative-gradient",
            objective="generative-gradient",
            objective_options={"noise": 0.3},
        ),
    )
}


def default_recipe(model: str | None) -> str:
    """The name of the recipe for a model where none is said: that of the model's name, or else "fast"."""
    return model if model in RECIPES else "fast"


def load_recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        InputError: unknown name; the message suggests the closest one.
    """
    if name not in RECIPES:
        unknown_name("recipe", name, RECIPES)
    return RECIPES[name]
