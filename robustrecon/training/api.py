"""`train`: checks the arguments, takes the folder for this run alone, and starts the loop on every process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import checkpoint, models
from ..attacks import bfloat16_unit
from ..data import Dataset
from ..files import check_writable
from ..models import EnergyModel
from ..runtime import resolve_device, seeded
from ..types import InputError, unknown_name
from . import objectives
from .lock import only_run_in
from .loop import Run
from .recipes import Recipe, default_recipe, load_recipe

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PRECISIONS = ("auto", "32-true", "bf16-mixed")


def train(
    data: Dataset,
    out: str | Path,
    recipe: str | Recipe | None = None,
    *,
    model: str | EnergyModel | None = None,
    objective: str | None = None,
    start: str | Path | None = None,
    origin: dict[str, str] | None = None,
    seed: int = 0,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    precision: str = "auto",
    resume: bool = False,
    progress: bool = True,
) -> EnergyModel:
    """Train a network on the training part of `data`; returns it in evaluation mode.

    After every epoch `out` holds `model.safetensors` with its card (while training, the state of optimiser and
    objective too) and `metrics.csv`. At the end the scores of the calibration part come beside the model, so
    that it can judge images without its data.

    Args:
        data: what to train on; its calibration part is left untouched.
        out: folder to write to; one run at a time.
        recipe: a name of `RECIPES` or a `Recipe`; by default that of the model's name, where there is one, or "fast".
        model: a name of `MODELS`, or the network to train; by default the recipe's, initialised from the seed.
        objective: a name of `OBJECTIVES`, with its default options, instead of the recipe's.
        start: a trained model to go on from instead: a folder, a .safetensors file or a shipped model's name.
        origin: what the card says of the model that a given `model` goes on from; what `start` is says it itself.
        seed: seeds the initial weights, the order of the images and the noise.
        device: "auto", "cpu" or "cuda".
        devices: processes on this machine, one a device; the batch is shared out among them.
        nodes: machines.
        precision: one of `PRECISIONS`; "auto" is that of the run that is resumed, or else "bf16-mixed" where the recipe
            trains against an adversary and the device has instructions for it, and "32-true" elsewhere.
        resume: continue from the last finished epoch in `out`; with nothing there, start. A recipe with a constant
            learning rate may have more epochs than before.
        progress: show progress on stderr.

    Raises:
        InputError: unknown recipe, model, objective or device, a model that does not offer what the objective
            requires or does not fit the data, `out` holds a model already, is in use or cannot be written to, or a
            checkpoint to resume that was made with other settings.
    """
    if recipe is None:
        recipe = default_recipe(model if model is None or isinstance(model, str) else model.name)
    if isinstance(recipe, str):
        recipe = load_recipe(recipe)
    if start is not None and model is not None:
        raise InputError(f"start: got {start}, must not be given together with model")
    if isinstance(model, str):
        recipe, model = recipe.with_model(model), None
    if objective is not None:
        recipe = recipe.with_objective(objective)
    if start is not None:
        model, origin = started(start, recipe)
    if precision not in PRECISIONS:
        unknown_name("precision", precision, PRECISIONS)
    if min(devices, nodes) < 1:
        raise InputError(f"devices, nodes: got {devices}, {nodes}, must be at least 1 each")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: got {seed}, must be a whole number from 0 that fits 63 bits")
    world, batch_size = devices * nodes, min(recipe.batch_size, len(data.train))
    if batch_size % world:
        raise InputError(f"devices: {devices} on {nodes} nodes, must share out a batch of {batch_size} images evenly")
    place, out = resolve_device(device), Path(out)
    _check_free(out, resume)
    check_writable(out)
    if precision == "auto":
        precision = _resolved_precision(recipe, out, place)
    from lightning_fabric import Fabric  # a second of imports that only training needs

    fabric = Fabric(
        accelerator=place.type,
        devices=devices if place.index is None else [place.index],
        num_nodes=nodes,
        strategy="ddp" if world > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]  # one of PRECISIONS, resolved
    )
    fabric.launch()
    with _alone(fabric, out, resume), seeded(seed):
        return Run(fabric, data, out, recipe, model, origin, seed, precision, progress)()


def _resolved_precision(recipe: Recipe, out: Path, device: torch.device) -> str:
    """What "auto" comes to: that of the run in `out`, or else what is fastest."""
    if (out / checkpoint.MODEL_FILE).exists():
        begun = checkpoint.load(out).card.get("precision")
        if begun in PRECISIONS:
            return str(begun)
    adversarial = objectives.options_of(recipe.objective, recipe.objective_options).adversarial
    return "bf16-mixed" if adversarial and bfloat16_unit(device) is not None else "32-true"


def _check_free(out: Path, resume: bool) -> None:
    if not resume and (out / checkpoint.MODEL_FILE).exists():
        raise InputError(f"out: {out} already holds a trained model; resume it (--resume) or name another folder")


@contextlib.contextmanager
def _alone(fabric: Fabric, out: Path, resume: bool) -> Iterator[None]:
    """The first process of all holds the folder's lock; where it cannot, every process says so."""
    with contextlib.ExitStack() as held:
        problem = ""
        if fabric.is_global_zero:
            try:
                held.enter_context(only_run_in(out))
                _check_free(out, resume)  # again: another run may have ended since
            except InputError as error:
                problem = str(error)
            else:
                if resume and not (out / checkpoint.MODEL_FILE).exists():
                    print(f"nothing to resume in {out}: starting", file=sys.stderr)
        if problem := fabric.broadcast(problem):
            raise InputError(problem)
        yield


def started(start: str | Path, recipe: Recipe) -> tuple[EnergyModel, dict[str, str]]:
    """The network to go on from, grown to what the recipe asks for, and what a card says of it."""
    model, card = models.load_with_card(start)
    if "recipe" not in card:
        raise InputError(f"start: {start} must be a model that was trained here")
    if model.name == recipe.model:
        model = model.grown(recipe.model_options)
        for name, value in recipe.model_options.items():
            if model.config[name] != value:
                raise InputError(f"start: {start} has {name} {model.config[name]}, must have {value} for the recipe")
    return model.requires_grad_(), {"recipe": card["recipe"]["name"], "sha256": card["sha256"]}
