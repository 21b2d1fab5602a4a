"""A defended classifier as a file: weights, the detectors' statistics and calibration scores, and a card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .. import checkpoint, models, provenance
from ..detectors import (
    AnyOf,
    Detector,
    FittedDetector,
    FunctionDetector,
    parts,
    saved_calibration,
    saved_detector,
    shares_of,
)
from ..files import atomic_write
from ..types import InputError
from . import model_card
from .about import About

if TYPE_CHECKING:
    from .classifier import DefendedClassifier

SAVED_KIND = "defended classifier"
_CALIBRATION = "calibration.scores"
_STATISTICS = "detector."


def save(defended: DefendedClassifier, path: str | Path) -> Path:
    """Write what `DefendedClassifier.save` says."""
    path = Path(path)
    if path.is_dir() or not path.suffix:
        _save_file(defended, path / checkpoint.MODEL_FILE)
        atomic_write(path / model_card.FILE, model_card.model_card(defended))
        return path
    return _save_file(defended, path)


def _save_file(defended: DefendedClassifier, path: Path) -> Path:
    calibration = defended.checked_calibration(exactly=True)
    model = defended.model
    tensors = {models.WEIGHTS + key: value for key, value in model.state_dict().items()}
    for index, part in enumerate(parts(defended.detector)):
        if isinstance(part, FunctionDetector):
            raise InputError(f"detector: {part.name!r} is a function, which cannot be written down")
        tensors |= {f"{_STATISTICS}{index}.{key}": value for key, value in part.state_dict().items()}
    card: dict[str, Any] = {
        "kind": SAVED_KIND,
        "detector": defended.detector.name,
        "alpha": calibration.alpha,
        "threshold": calibration.threshold,
        "n_calibration": len(calibration.scores),
        "image_shape": defended.image_shape,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
    if (sketch := models.trained_on(model)) is not None:
        tensors[models.TRAINED_ON] = sketch
    if defended.classes is not None:
        card["classes"] = models.class_names(defended.classes, model, "classes")
    if defended.about is not None:
        card["about"] = defended.about.to_json()
    if isinstance(model, models.EnergyModel):
        card["architecture"] = models.architecture(model)
    return checkpoint.save(path, {**tensors, _CALIBRATION: calibration.scores}, card)


def load(
    cls: type[DefendedClassifier], path: str | Path, model: nn.Module | None, detector: Detector | AnyOf | None
) -> DefendedClassifier:
    """Read what `DefendedClassifier.load` says."""
    saved = models.read(path)
    if _CALIBRATION not in saved.tensors or "detector" not in saved.card:
        raise InputError(f"{path}: is a model without a calibrated detector; wrap it and call calibrate")
    defended = cls(_loaded_model(path, saved, model), saved_detector(saved.card["detector"], detector, str(path)))
    own_parts = parts(defended.detector)
    for index, part in enumerate(own_parts):
        tensors = models.model_weights(saved.tensors, f"{_STATISTICS}{index}.")
        if isinstance(part, FittedDetector):
            part.set_statistics(tensors)
        else:
            _load_weights(part, tensors, f"detector: the weights in {path} do not fit {part.name}")
    scores = saved.tensors[_CALIBRATION]
    calibration = saved_calibration(scores, saved.card.get("alpha"), shares_of(defended.detector), str(path))
    defended.set_calibration(calibration, saved.card.get("image_shape"))
    defended.classes = models.class_names(saved.card.get("classes"), defended.model, path)
    defended.about = About.from_json(saved.card["about"], str(path)) if "about" in saved.card else None
    return defended


def _loaded_model(path: str | Path, saved: checkpoint.Checkpoint, model: nn.Module | None) -> nn.Module:
    weights: dict[str, Tensor] = models.model_weights(saved.tensors)
    if model is not None:
        _load_weights(model, weights, f"model: the weights in {path} do not fit {type(model).__name__}")
    elif "architecture" in saved.card:
        model = models.build(saved.card["architecture"], weights)
        model.trained_on = saved.tensors.get(models.TRAINED_ON)
    else:
        raise InputError(f"model: {path} holds a model of your own class; pass an instance of it")
    dtypes = [tensor.dtype for tensor in weights.values() if tensor.is_floating_point()]
    return model.to(dtypes[0]) if dtypes else model  # the one that it was calibrated in


def _load_weights(module: nn.Module, weights: dict[str, Tensor], message: str) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(message) from error
