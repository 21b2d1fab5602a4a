"""A calibrated classifier from a file: a saved one as it is, a trained model with its stored scores or its data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .. import models
from ..data import Dataset, load_data
from ..detectors import images_needed, load_detector, parts, saved_calibration, shares_of
from ..models import EnergyModel, shipped, stored_scores
from ..runtime import resolve_device
from ..types import InputError, check_fraction
from .about import About
from .classifier import DefendedClassifier
from .fitting import fit_to
from .saving import SAVED_KIND

LICENSE = "mit"  # of the models that come with the package, as of itself


def load_defended(
    model: str | Path,
    detector: str | None = None,
    alpha: float | None = None,
    data: str | None = None,
    data_dir: str | Path = "data",
    device: str = "auto",
    classifier: str | None = None,
    correct_only: bool = False,
) -> DefendedClassifier:
    """A calibrated classifier, with the names of its classes where they are known.

    Shipped models, and those that `robustrecon train` wrote, have the scores of their calibration part beside them, so
    that they need no data. Without those, or with `data`, the model is calibrated on the calibration part of the data;
    so it is with a detector that needs training images, which learns from the training part first.

    Args:
        model: a shipped model's name, a folder that `robustrecon train` wrote, a .safetensors file of a model, or what
            `DefendedClassifier.save` or `robustrecon graft` wrote.
        detector: a name of `DETECTORS` or "any_of(NAME,NAME)"; the model's `default_detector` by default, which is
            "label_margin" but for grafts.
        alpha: bound on the false-alarm rate, in (0, 1); 0.05 by default.
        data: a data set's name to calibrate on instead, or "folder:PATH" where the model's data has moved.
        data_dir: where torchvision's data is.
        device: to judge on: "auto", "cpu" or "cuda".
        classifier: the `module:factory` that makes the classifier of a graft, instead of what the graft's card says.
        correct_only: bound the rate among the images that the model labels right (see `DefendedClassifier.calibrate`);
            takes the data, since stored scores do not tell.

    Raises:
        InputError: no such model, detector or data, data that does not fit the model, too few calibration images for
            alpha, stored scores of another version or of other weights, or a detector, alpha or data for a classifier
            that is calibrated already.
    """
    card = models.read(model).card
    if card.get("kind") == SAVED_KIND:
        if (detector, alpha, data, correct_only) != (None, None, None, False):
            raise InputError(
                f"model: {model} is calibrated already ({card['detector']}, alpha={card['alpha']}); detector, alpha, "
                "data and correct_only must be left out"
            )
        made = None if classifier is None else models.load(model, classifier)
        return DefendedClassifier.load(model, made).to(resolve_device(device))
    alpha = check_fraction(0.05 if alpha is None else alpha, "alpha")
    loaded, card = load_finished(model, classifier)
    trained_on = card.get("data", {})
    judge = load_detector(detector or loaded.default_detector)
    defended = DefendedClassifier(loaded.to(resolve_device(device)), judge)
    comes_along = str(model) in shipped.names() and not Path(model).exists()
    defended.about = (
        About.of_training(card, str(model), LICENSE) if comes_along else About.of_training(card, Path(model).name)
    )
    names = [part.name for part in parts(defended.detector)]
    stored = {}
    if data is None and not correct_only:
        beside = stored_scores.file_beside(shipped.locate(model))
        stored = stored_scores.read(beside, loaded, trained_on.get("fingerprint"))
    if stored.keys() >= set(names):
        defended.classes = models.class_names(trained_on.get("classes"), loaded, model)
        scores = torch.stack([stored[name] for name in names], 1)
        if len(scores) < (needed := images_needed(alpha, shares_of(judge))):
            raise InputError(
                f"alpha: got {alpha}, which needs the scores of at least {needed} images, and {model} has those of "
                f"{len(scores)}; must be larger"
            )
        defended.set_calibration(saved_calibration(scores, alpha, shares_of(judge), str(model)), loaded.image_shape)
        return defended
    dataset = _data_of(model, trained_on, data, data_dir)
    check_fits(dataset, loaded, card, model)
    defended.classes = dataset.classes
    fit_to(defended, dataset)
    return defended.calibrate(dataset.calibration, alpha, correct_only=correct_only)


def load_finished(model: str | Path, classifier: str | None = None) -> tuple[EnergyModel, dict[str, Any]]:
    """A trained model and its card; `classifier` as for `load_defended`.

    Raises:
        InputError: no such model, a calibrated classifier, or a training that is not finished.
    """
    loaded, card = models.load_with_card(model, classifier)
    if card.get("kind") == SAVED_KIND:
        raise InputError(
            f"model: {model} is a calibrated classifier, must be a trained model, which is calibrated anew"
        )
    if not card.get("finished", True):
        raise InputError(f"model: {model} is unfinished, at epoch {card['epoch']}; go on with train --resume")
    return loaded, card


def check_fits(data: Dataset, model: EnergyModel, card: Mapping[str, Any], where: str | Path) -> None:
    """Whether a trained model may be calibrated and tested on `data`.

    Args:
        data: what it is to be calibrated or tested on.
        model: the model.
        card: the model's.
        where: the model's path, for the message.

    Raises:
        InputError: images of another shape, other classes, or data that has changed since the training, so that it is
            split in another way.
    """
    if model.image_shape != data.image_shape or model.n_classes != data.n_classes:
        raise InputError(
            f"data: {data.name} has {data.n_classes} classes of {data.image_shape} images, must have "
            f"{model.n_classes} of {model.image_shape} for the model {where}"
        )
    before = card.get("data", {})
    if before.get("name") == data.name and before.get("fingerprint") != data.fingerprint:
        raise InputError(
            f"data: {data.name} has changed since {where} was trained on it, so that calibration and test images "
            "may be among those it was trained on; train anew"
        )


def data_of(model: str | Path, trained_on: Mapping[str, Any]) -> str:
    """The name of the data that a model was trained on.

    Raises:
        InputError: its card does not say it, as that of a graft.
    """
    if "name" not in trained_on:
        raise InputError(
            f"data: must be named for {model}, whose card does not say what it was trained on: data that it was not "
            "trained on, such as mnist-test"
        )
    name: str = trained_on["name"]
    return name


def _data_of(model: str | Path, trained_on: Mapping[str, Any], data: str | None, data_dir: str | Path) -> Dataset:
    """The data set called `data`, by default the one that the model was trained on."""
    if data is not None:
        return load_data(data, data_dir)
    name = data_of(model, trained_on)
    try:
        return load_data(name, data_dir)
    except InputError as error:
        raise InputError(f"{error}; {model} was trained on it: say where it is now (--data, --data-dir)") from error
