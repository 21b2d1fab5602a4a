"""The model that is benchmarked, with its data; the default model is trained where no model is named."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import checkpoint
from ..data import Dataset, load_data
from ..data.overlap import check_unseen
from ..defence.loading import check_fits, data_of, load_finished
from ..detectors import Evidence
from ..files import slug
from ..models import load, trained_on
from ..models.imported import import_model
from ..runtime import device_of, evaluating, resolve_device
from ..training import train
from ..training.recipes import completed
from ..types import InputError

RUNS = Path("runs")


@dataclass(frozen=True)
class BenchmarkModel:
    """A model that is benchmarked, and its data.

    Attributes:
        model: gives logits (B, K) of images (B, C, H, W) in [0, 1], and has whatever else the detectors ask for.
        name: what tables call it.
        data: what it is calibrated and tested on.
        trained_eps: the linf radius that it was trained against, as its card says; None where it was trained against
            none, or nobody knows.

    Raises:
        InputError: the model says what it was trained on, and that is among the calibration or test images.
    """

    model: nn.Module
    name: str
    data: Dataset
    trained_eps: float | None = None

    def __post_init__(self) -> None:
        sketch = trained_on(self.model)
        if sketch is not None:
            for part in ("calibration", "test"):
                check_unseen(sketch, getattr(self.data, part).images, f"data: {part} part of {self.data.name}")

    @property
    def weights(self) -> str:
        """Hash of the model's parameters and buffers as they are now; of its repr where it has none.

        A model that was trained again has another, and so is measured again.
        """
        tensors = {name: value for name, value in self.model.state_dict().items() if isinstance(value, Tensor)}
        if not tensors:
            return hashlib.sha256(repr(self.model).encode()).hexdigest()[:16]
        return checkpoint.digest(tensors)[:16]


def load_benchmark_model(
    model: str | Path | None = None,
    data: str | Dataset | None = None,
    data_dir: str | Path = "data",
    device: str = "auto",
    progress: bool = True,
    classifier: str | None = None,
) -> BenchmarkModel:
    """A model and its data; without a model, the default one for the data, trained once and kept in `runs/`.

    Args:
        model: a folder that `robustrecon train` wrote, a .safetensors file, a shipped model's name, or
            `module:factory` for a model of the user's own: a module, or a function that makes one.
        data: a data set, or its name; by default the one that the model was trained on, or `digits`.
        data_dir: where the data is.
        device: to attack on.
        progress: show the training's progress.
        classifier: the `module:factory` that makes the classifier of a graft, instead of what the graft's card says.

    Raises:
        InputError: no such model or data, or the two do not fit.
    """
    place = resolve_device(device)
    if model is None:
        dataset = _dataset(data or "digits", data_dir)
        model = RUNS / slug(dataset.name)
        _train_default(dataset, model, device, progress)
        loaded, card = load_finished(model)
    elif is_factory(model):
        dataset = _dataset(data or "digits", data_dir)
        return own_model(loaded_module(model).to(place), str(model), dataset)
    else:
        loaded, card = load_finished(model, classifier)
        dataset = _dataset(data_of(model, card.get("data", {})) if data is None else data, data_dir)
    check_fits(dataset, loaded, card, model)
    before = card.get("data", {})
    recipe = card.get("recipe", {}).get("name")
    name = f"{loaded.name}-{recipe}" if recipe else loaded.name
    if before.get("name", dataset.name) != dataset.name:
        name += f"-of-{before['name']}"
    return BenchmarkModel(loaded.to(place), name, dataset, _training_radius(card.get("recipe")))


def _training_radius(recipe: Mapping[str, Any] | None) -> float | None:
    """The linf radius of the adversary that a card's recipe trains against; None where there is none."""
    eps: float = completed(recipe)["objective_options"].get("eps", 0.0) if recipe else 0.0
    return eps or None


def _dataset(data: str | Dataset, data_dir: str | Path) -> Dataset:
    return data if isinstance(data, Dataset) else load_data(data, data_dir)


def is_factory(model: str | Path) -> bool:
    """Whether a model's name is `module:factory`, not a path."""
    return ":" in str(model) and not Path(model).exists()


def loaded_module(model: str | Path) -> nn.Module:
    """The model of `module:factory`, or one that `robustrecon.load` loads.

    Raises:
        InputError: no such model; its module cannot be imported, its factory fails or makes something else than a
            `torch.nn.Module`.
    """
    if is_factory(model):
        return import_model("model", str(model))
    return load(model)


def own_model(model: nn.Module, name: str, data: Dataset) -> BenchmarkModel:
    """A model of the user's own, once it is known to take the images and to have the labels of the data.

    Raises:
        InputError: it does not, or does not give logits.
    """
    n_classes = logits_of_one(model, data.test.x[:1]).shape[1]
    y = data.test.y
    if y.min() < 0 or y.max() >= n_classes:
        raise InputError(
            f"y: labels span [{y.min()}, {y.max()}], must be in [0, {n_classes - 1}]: {name} gives {n_classes} logits"
        )
    return BenchmarkModel(model, name, data)


def logits_of_one(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (1, K) of an image x (1, C, H, W), of a model that may not take it.

    Raises:
        InputError: it does not take it, or gives something else than logits.
    """
    try:
        with evaluating(model), torch.no_grad():
            return Evidence(model, x.to(device_of(model))).logits
    except RuntimeError as error:
        shape, reason = tuple(x.shape[1:]), " ".join(str(error).split())
        raise InputError(
            f"data: {type(model).__name__} does not take images of shape {shape} ({reason[:200]})"
        ) from error


def _train_default(data: Dataset, out: Path, device: str, progress: bool) -> None:
    """Train the default model for `data` unless that was done before; go on where a killed run stopped."""
    if (out / checkpoint.MODEL_FILE).exists():
        card = checkpoint.load(out).card
        if card.get("data", {}).get("name") != data.name:
            raise InputError(f"model: {out} was trained on other data than {data.name}; name one with --model")
        if card.get("finished"):
            recipe = card.get("recipe", {}).get("name")
            print(f"no --model given: {out}, trained with the recipe {recipe}", file=sys.stderr)
            return
    print(f"no --model given: training the default one for {data.name}, kept in {out}", file=sys.stderr)
    train(data, out, device=device, resume=(out / checkpoint.MODEL_FILE).exists(), progress=progress)
