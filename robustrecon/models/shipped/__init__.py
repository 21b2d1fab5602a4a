"""Trained models that come with the package, by names such as `robust/mnist`: one folder for each family.

`checkpoint.load` finds every damage to them. The hash in a card covers the card and the bytes of the tensors, and the
header that gives each tensor its bytes must parse, leave no gap and fit the card's architecture. So no separate list of
file hashes is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ... import checkpoint
from ...types import InputError, nearest
from ..base import TRAINED_ON

FOLDER = Path(__file__).parent
SUFFIX = ".safetensors"
SKETCHES = f"sketches{SUFFIX}"  # several models share one, which their own files have no room for


@dataclass(frozen=True)
class ShippedModel:
    """What the card and the file of a shipped model say; None where the card does not say it.

    Attributes:
        name: family/data.
        data: the data set that it was trained on.
        recipe: how it was trained.
        test_accuracy: share of `n` test images that it classifies correctly.
        n: how many test images there were.
        architecture: its name in `robustrecon.models.MODELS`.
        options: the architecture's options, without the number of classes and the shape of the images.
        parameters: how many numbers its tensors hold.
        bytes: size of the file.
        sha256: the hash in its card.
    """

    name: str
    data: str | None
    recipe: str | None
    test_accuracy: float | None
    n: int | None
    architecture: str | None
    options: Mapping[str, Any]
    parameters: int
    bytes: int
    sha256: str

    def __str__(self) -> str:
        options = "".join(f" {key}={value}" for key, value in self.options.items())
        n = "" if self.n is None else f" (n = {self.n:,})"
        columns = [
            self.data and f"data {self.data}",
            self.recipe and f"recipe {self.recipe}",
            self.test_accuracy is not None and f"test accuracy {self.test_accuracy:.2%}{n}",
            f"{self.architecture or 'unknown architecture'}{options}",
            f"{self.parameters:,} parameters",
            f"{self.bytes / 1e6:.1f} MB",
            f"sha256 {self.sha256[:12]}",
        ]
        return ", ".join(column for column in columns if column)


def sketches() -> dict[str, Tensor]:
    """By fingerprint of the training data, the sketches of the images that the shipped models were trained on."""
    path = FOLDER / SKETCHES
    return dict(checkpoint.load(path).tensors) if path.exists() else {}


def names() -> list[str]:
    """The names of the shipped models, sorted."""
    models = (path for path in FOLDER.glob(f"*/*{SUFFIX}") if "." not in path.stem)  # the scores beside them have one
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in models)


def file_of(name: str) -> Path:
    """The file of the shipped model `name` (family/data), whether or not it exists."""
    return FOLDER / f"{name}{SUFFIX}"


def locate(model: str | Path) -> Path:
    """The path of a model that is given as a path or as the name of a shipped model; an existing path comes first.

    Raises:
        InputError: neither; the message suggests the nearest name.
    """
    path, name = Path(model), Path(model).as_posix()
    if path.exists():
        return path
    known = names()
    if name in known:
        return file_of(name)
    raise InputError(
        f"{model}: no such checkpoint{nearest(name, known)} (shipped: {', '.join(known) or 'none'}); must be the name "
        "of a shipped model, or a folder that `robustrecon train` wrote"
    )


def catalogue() -> list[ShippedModel]:
    """A description of each shipped model.

    Raises:
        InputError: a damaged file.
    """
    return [_described(name) for name in names()]


def listing(models: Sequence[ShippedModel]) -> str:
    """The models as text, a line each."""
    width = max((len(model.name) for model in models), default=0)
    return "\n".join(f"{model.name:<{width}}  {model}" for model in models)


def _described(name: str) -> ShippedModel:
    path = file_of(name)
    saved = checkpoint.load(path)
    card = saved.card
    accuracy, architecture = _object(card, "accuracy"), _object(card, "architecture")
    left_out = ("name", "n_classes", "image_shape")
    return ShippedModel(
        name=name,
        data=_object(card, "data").get("name"),
        recipe=_object(card, "recipe").get("name"),
        test_accuracy=accuracy.get("test"),
        n=accuracy.get("n"),
        architecture=architecture.get("name"),
        options={key: value for key, value in architecture.items() if key not in left_out},
        parameters=sum(tensor.numel() for name, tensor in saved.tensors.items() if name != TRAINED_ON),
        bytes=path.stat().st_size,
        sha256=card["sha256"],
    )


def _object(card: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An entry of a card that is an object itself; empty where the card has none."""
    entry = card.get(key)
    return entry if isinstance(entry, dict) else {}
