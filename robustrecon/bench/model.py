"""The model that is benchmarked, with its data; the default model is trained where no model is named."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from .. import checkpoint
from ..data import Dataset, load_data
from ..data.overlap import check_unseen
from ..defence.loading import check_fits, load_finished
from ..files import slug
from ..models import trained_on
from ..runtime import resolve_device
from ..training import train
from ..types import InputError

RUNS = Path("runs")


@dataclass(frozen=True)
class BenchmarkModel:
    """A model that is benchmarked, and its data.

    Attributes:
        model: gives logits (B, K) of images (B, C, H, W) in [0, 1], and has whatever else the detectors ask for.
        name: what tables call it.
        data: what it is calibrated and tested on.

    Raises:
        InputError: the model says what it was trained on, and that is among the calibration or test images.
    """

    model: nn.Module
    name: str
    data: Dataset

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
    data: str | None = None,
    data_dir: str | Path = "data",
    device: str = "auto",
    progress: bool = True,
) -> BenchmarkModel:
    """A model and its data; without a model, the default one for the data, trained once and kept in `runs/`.

    Args:
        model: a folder that `robustrecon train` wrote, a .safetensors file, or a shipped model's name.
        data: a data set's name; by default the one that the model was trained on, or `digits`.
        data_dir: where the data is.
        device: to attack on.
        progress: show the training's progress.

    Raises:
        InputError: no such model or data, or the two do not fit.
    """
    place = resolve_device(device)
    if model is None:
        dataset = load_data(data or "digits", data_dir)
        model = RUNS / slug(dataset.name)
        _train_default(dataset, model, device, progress)
        loaded, card = load_finished(model)
    else:
        loaded, card = load_finished(model)
        dataset = load_data(data or card.get("data", {}).get("name", "digits"), data_dir)
    check_fits(dataset, loaded, card, model)
    before = card.get("data", {})
    recipe = card.get("recipe", {}).get("name")
    name = f"{loaded.name}-{recipe}" if recipe else loaded.name
    if before.get("name", dataset.name) != dataset.name:
        name += f"-of-{before['name']}"
    return BenchmarkModel(loaded.to(place), name, dataset)


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
