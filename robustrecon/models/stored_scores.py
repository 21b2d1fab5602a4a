"""The scores of a model's calibration part, in a file beside the model, so that it can judge without its data.

The file belongs to the weights and to the data: it holds a hash of the one and the fingerprint of the other.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from .. import checkpoint
from ..data import Dataset
from ..data.splits import to_float
from ..detectors import applicable, load_detector, parts
from ..detectors.scoring import labels_and_scores
from ..types import InputError

SUFFIX = ".calibration.safetensors"
KIND = "calibration scores"
VERSION = 1
"""To be raised when a catalogue detector's scores change: those of before then bound no false-alarm rate."""


def file_beside(model: str | Path) -> Path:
    """Where the scores of a model are: `mnist.calibration.safetensors` beside `mnist.safetensors`.

    Args:
        model: a .safetensors file, or a folder that holds `model.safetensors`.
    """
    path = Path(model)
    return (path / checkpoint.MODEL_FILE if path.is_dir() else path).with_suffix(SUFFIX)


def measured(model: nn.Module, data: Dataset) -> dict[str, Tensor]:
    """Scores (n,) float32, ascending, of the calibration part, by the name of the detector.

    Of all catalogue detectors that the model supports and that need no training images; those whose scores are not all
    finite are left out.
    """
    names = applicable(model)
    detectors = [part for name in names for part in parts(load_detector(name))]
    _, scores, _ = labels_and_scores(detectors, model, to_float(data.calibration.images))
    columns = zip(names, scores.cpu().sort(0).values.unbind(1), strict=True)
    return {name: column for name, column in columns if column.isfinite().all()}


def write(file: str | Path, model: nn.Module, data: Dataset) -> Path:
    """Measure the scores and write them to `file`.

    Raises:
        InputError: the file cannot be written.
    """
    card = {
        "kind": KIND,
        "version": VERSION,
        "weights": _weights(model),
        "data": {"name": data.name, "fingerprint": data.fingerprint},
    }
    return checkpoint.save(file, measured(model, data), card)


def remove(file: str | Path) -> None:
    """Remove the file and its card, if they are there: the weights that they belong to are about to change."""
    Path(file).unlink(missing_ok=True)
    Path(file).with_suffix(".json").unlink(missing_ok=True)


def read(file: str | Path, model: nn.Module, fingerprint: str | None) -> dict[str, Tensor]:
    """Scores (n,) by the name of the detector; none where there is no such file.

    Args:
        file: what `write` wrote.
        model: the model, with the weights that its scores are wanted of.
        fingerprint: that of the data that it was trained on.

    Raises:
        InputError: a damaged file, one of another version of the scores, or one of other weights or other data.
    """
    if not Path(file).exists():
        return {}
    saved = checkpoint.load(file)
    anew = "name the model's data (--data) to calibrate anew"
    if saved.card.get("kind") != KIND:
        raise InputError(f"{file}: holds {saved.card.get('kind') or 'something else'}, must hold {KIND}; {anew}")
    if (version := saved.card.get("version")) != VERSION:
        raise InputError(f"{file}: holds {KIND} of version {version}, must be of version {VERSION}; {anew}")
    if saved.card.get("weights") != _weights(model):
        raise InputError(f"{file}: holds {KIND} of other weights than the model has; {anew}")
    if saved.card.get("data", {}).get("fingerprint") != fingerprint:
        raise InputError(f"{file}: holds {KIND} of other data than the model was trained on; {anew}")
    return saved.tensors


def _weights(model: nn.Module) -> str:
    return checkpoint.digest({name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)})
