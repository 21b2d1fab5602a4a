"""A defended classifier as an ordinary classifier with one class more, which stands for rejection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..attacks import art_estimator
from ..detectors import Calibration, parts
from ..runtime import device_of
from ..types import InputError

if TYPE_CHECKING:
    from .classifier import DefendedClassifier

_LARGEST = 1e4  # margin, in units, beyond which there is no gradient


class RejectClass(nn.Module):
    """Logits (B, K + 1) of a calibrated classifier, the last of which is that of rejection; differentiable in x.

    It is the largest of the others plus (score − threshold) / unit, after N. Carlini, D. Wagner, "Adversarial Examples
    Are Not Easily Detected: Bypassing Ten Detection Methods", AISec 2017. So the argmax is K where the input is
    rejected, and the label elsewhere, as `predict` says of the same batch. The unit is the distance from the median
    calibration score to the threshold, or 1 where the scores of several detectors are on a common scale.

    Raises:
        InputError: a classifier that is not calibrated; later, one with other weights than it was calibrated with, or a
            gradient asked of a detector that has none.
    """

    def __init__(self, defended: DefendedClassifier) -> None:
        super().__init__()
        self.unit = _unit(defended.checked_calibration())
        self.defended = defended
        self.training = defended.training

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K + 1) of images (B, C, H, W) in [0, 1]."""
        threshold = self.defended.checked_calibration().threshold
        if x.requires_grad and torch.is_grad_enabled():
            self._check_differentiable()
        logits, score = self.defended.logits_and_score(x)
        known = ~(logits.isnan() | logits.isposinf()).any(1)
        rejected = ~(known & (score.float() <= threshold))
        logits = torch.where(known[:, None], logits, 0.0).clamp_min(torch.finfo(logits.dtype).min)
        top = logits.amax(1)
        margin = ((score - threshold) / self.unit).nan_to_num(1.0, _LARGEST, -_LARGEST).clamp(-_LARGEST, _LARGEST)
        reject = top + margin
        # Whatever rounding does, the side of the threshold decides.
        least = torch.nextafter(top.detach(), torch.where(rejected, torch.inf, -torch.inf).to(top))
        wrong = torch.where(rejected, reject < least, reject > least)
        reject = torch.where(wrong, reject - reject.detach() + least, reject)
        return torch.cat([logits, reject[:, None]], dim=1)

    def _check_differentiable(self) -> None:
        for part in parts(self.defended.detector):
            if not part.differentiable:
                raise InputError(
                    f"detector: the score of {part.name} has no gradient, which the attack follows; use one that needs "
                    "none, such as ART's HopSkipJump"
                )


def as_art(defended: DefendedClassifier, reject_class: bool) -> Any:
    """What `DefendedClassifier.to_art` says."""
    shape = defended.image_shape
    if shape is None:
        raise InputError("model: has no image_shape, must have one, (C, H, W), or be calibrated first")
    images = torch.zeros(1, *shape, device=device_of(defended.model))
    return art_estimator(RejectClass(defended) if reject_class else defended, images)


def _unit(calibration: Calibration) -> float:
    if calibration.scores.shape[1] > 1:
        return 1.0
    distance = calibration.threshold - calibration.scores.median().item()
    return distance if 0 < distance < torch.inf else 1.0
