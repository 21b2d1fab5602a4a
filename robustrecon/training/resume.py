"""Whether a checkpoint is of the run that is to go on, and the one line that says why not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..models import MODELS
from ..types import InputError
from .objectives import Objective
from .recipes import Recipe, completed, model_defaults

_LONGEST = 60  # characters of a value in a message


def check_same_run(folder: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Compare the cards of a checkpoint and of a run, all but names and numbers of epochs.

    Raises:
        InputError: they differ; the message names the first setting that does. Or the checkpoint is of no run.
    """
    if not {"recipe", "architecture", "data"} <= saved.keys():
        raise InputError(f"resume: {folder} holds no training run; name another folder")
    old, new = dict(_settings(saved)), dict(_settings(wanted))
    for name in {**new, **old}:
        if old.get(name) != new.get(name):
            raise InputError(_refused(folder, name, old.get(name), new.get(name)))


def check_epochs(folder: Path, done: int, saved: int, wanted: int, recipe: Recipe, objective: Objective) -> None:
    """Whether a run of which `done` epochs are done may have `wanted` epochs instead of `saved`.

    Raises:
        InputError: it may not: what is done would have been done otherwise, or is more than that.
    """
    if saved == wanted:
        return
    if recipe.schedule != "constant":
        reason = f"a {recipe.schedule} learning rate depends on the number of epochs"
    elif objective.uses_progress:
        reason = f"the objective {recipe.objective!r} depends on the number of epochs"
    elif wanted <= done:
        reason = f"{done} epochs are done"
    else:
        return
    raise InputError(f"{_refused(folder, 'epochs', saved, wanted)}: {reason}")


def can_be_extended(recipe: Recipe, objective: Objective) -> bool:
    """Whether the run may be given more epochs when it is finished."""
    return recipe.schedule == "constant" and not objective.uses_progress


def saved_epochs(card: Mapping[str, Any], steps_per_epoch: int) -> int:
    """The epochs that a checkpoint's run was to have."""
    recipe = completed(card["recipe"])
    return max(recipe["epochs"], -(-recipe["least_steps"] // steps_per_epoch))


def seal(file: Path) -> str | None:
    """What tells one checkpoint from any other, the hash in its card; None where there is no file.

    Raises:
        InputError: something else is there.
    """
    try:
        with safe_open(file, "pt") as opened:
            return json.loads((opened.metadata() or {})["card"])["sha256"]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from error


def _settings(card: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values of all that decides what a run does, defaults filled in."""
    recipe = completed(card["recipe"])
    for name, value in recipe.items():
        if name not in ("name", "epochs", "least_steps", "model", "model_options", "objective_options"):
            yield name, value
    for name, value in recipe["objective_options"].items():
        yield f"objective_options.{name}", value
    architecture = card["architecture"]
    defaults = model_defaults(architecture["name"]) if architecture["name"] in MODELS else {}
    yield "model", architecture["name"]
    for name, value in {**defaults, **architecture}.items():
        if name != "name":
            yield f"model_options.{name}", value
    for name in ("name", "n_train", "fingerprint", "classes"):
        yield f"data {name}", card["data"].get(name)
    start = card.get("start")
    yield "start", start and f"{start['recipe']} ({start['sha256'][:12]})"
    for name in ("seed", "precision", "processes"):
        yield name, card.get(name)


def _refused(folder: Path, name: str, old: object, new: object) -> str:
    return f"resume: {folder} was trained with {name} {_short(old)}, not {_short(new)}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
