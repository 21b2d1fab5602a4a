"""What the page shows, without the page: one model, images to judge, and what attacks make of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from .. import attacks
from ..bench.images import Scores
from ..bench.metrics import roc
from ..data import Part, load_data
from ..defence import DefendedClassifier, load_defended
from ..detectors import Calibration, parts
from ..detectors.scoring import labels_and_scores
from ..models import read
from ..runtime import device_of
from ..types import InputError

ATTACKS = {"pgd": "PGD: fools the classifier", "selective": "selective: fools the detector too"}
STEPS = 40
MEASURED, SEED = 64, 0  # test images whose attack gives the ROC curve, and the seed that draws them
ATTACK_OF_CURVE = "pgd"


@dataclass(frozen=True)
class Judgement:
    """What the model says of one image.

    Attributes:
        x: (C, H, W) the image.
        label, score, p_value, rejected: as of `Verdict`.
        energies: (K,) class energies; None where the model has none.
        drawings: (K, C, H, W) the image as the model draws it under each label; None where it cannot.
    """

    x: Tensor
    label: int
    score: float
    p_value: float
    rejected: bool
    energies: Tensor | None
    drawings: Tensor | None


@dataclass(frozen=True)
class Separation:
    """Scores of each detector, (N, m) and (A, m), of clean images and of adversarial ones."""

    clean: Tensor
    adversarial: Tensor

    def roc(self, calibration: Calibration) -> tuple[Scores, Scores]:
        """False and true positive rates at every threshold."""
        clean, adversarial = (calibration.combined(part).double().numpy() for part in (self.clean, self.adversarial))
        return roc(clean, adversarial, corners=True)

    def rates(self, calibration: Calibration) -> tuple[float, float]:
        """The shares of the clean and of the adversarial images that are rejected."""
        clean, adversarial = (
            float((calibration.combined(part) > calibration.threshold).float().mean())
            for part in (self.clean, self.adversarial)
        )
        return clean, adversarial


class Desk:
    """A defended classifier with its test images.

    Args:
        defended: calibrated.
        test: images to choose from; none where the model's data is not there.

    Raises:
        InputError: a classifier that does not say the shape of its images.
    """

    def __init__(self, defended: DefendedClassifier, test: Part | None) -> None:
        if defended.image_shape is None:
            raise InputError("model: does not say the shape of its images, must say it to be drawn for")
        self.defended, self.test = defended, test
        self.image_shape = defended.image_shape
        self.classes = list(defended.classes or map(str, range(self.n_classes)))

    @cached_property
    def n_classes(self) -> int:
        """K."""
        with torch.no_grad():
            return int(self.defended(torch.zeros(1, *self.image_shape, device=self.device)).shape[1])

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return device_of(self.defended)

    def at(self, alpha: float) -> DefendedClassifier:
        """The classifier with the threshold of another bound on the false-alarm rate; the weights are shared."""
        known = self.defended.checked_calibration()
        other = copy.copy(self.defended)
        other.set_calibration(Calibration(known.scores, alpha, known.shares), self.image_shape)
        return other

    def judge(self, x: Tensor, alpha: float) -> Judgement:
        """Label, verdict, energies and drawings of an image (C, H, W) in [0, 1]."""
        images = x[None].to(self.device)
        verdict = self.at(alpha).inspect(images)
        energies = drawings = None
        with torch.no_grad():
            if callable(own := getattr(self.defended.model, "class_energies", None)):
                energies = own(images)[0].cpu()
            if callable(draw := getattr(self.defended.model, "reconstruct", None)):
                labels = torch.arange(self.n_classes, device=self.device)
                drawings = draw(images.expand(self.n_classes, *self.image_shape), labels).cpu()
        label, score, p, rejected = (
            part[0].item() for part in (verdict.label, verdict.score, verdict.p_value, verdict.rejected)
        )
        return Judgement(x, int(label), float(score), float(p), bool(rejected), energies, drawings)

    def attack(self, x: Tensor, label: int, name: str, eps: float, alpha: float) -> Tensor:
        """(C, H, W): an image within L-infinity `eps` of x that is not to be called `label`."""
        attack = attacks.load(name, eps=eps, steps=STEPS)
        outcome = attack(self.at(alpha), x[None].to(self.device), torch.tensor([label], device=self.device))
        return outcome.x[0].cpu()

    def separation(self, eps: float) -> Separation | None:
        """Scores of some test images, and of those that PGD within L-infinity `eps` turned into another label.

        None without test images, or where no attack succeeded.
        """
        if self.test is None or not len(self.test):
            return None
        chosen = torch.randperm(len(self.test), generator=torch.Generator().manual_seed(SEED))[:MEASURED]
        part = self.test.pick(chosen)
        x, y = part.x.to(self.device), part.y.to(self.device)
        outcome = attacks.load(ATTACK_OF_CURVE, eps=eps, steps=STEPS)(self.defended.model, x, y)
        fooled = outcome.label != y
        if not fooled.any():
            return None
        judges = parts(self.defended.detector)
        clean, adversarial = (
            labels_and_scores(judges, self.defended.model, images)[1].cpu() for images in (x, outcome.x[fooled])
        )
        return Separation(clean, adversarial)


def open_desk(
    model: str,
    detector: str | None = None,
    data: str | None = None,
    data_dir: str | Path = "data",
    device: str = "auto",
    classifier: str | None = None,
) -> Desk:
    """The desk of a model that is named as for `load_defended`; without test images where its data is not there.

    Raises:
        InputError: as of `load_defended`, or named data that is not there.
    """
    defended = load_defended(model, detector, None, data, data_dir, device, classifier)
    named = data or read(model).card.get("data", {}).get("name")
    test = None
    if named is not None:
        try:
            test = load_data(named, data_dir).test
        except InputError:
            if data is not None:
                raise
    return Desk(defended, test)
