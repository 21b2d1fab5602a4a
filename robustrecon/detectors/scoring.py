"""The scores that detectors give images, as one looks at them or batch by batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..runtime import batched, device_of, evaluating
from ..types import InputError
from .base import Detector, Evidence, FittedDetector


def evidence_for(
    detectors: Sequence[Detector],
    model: nn.Module,
    x: Tensor,
    predicted: Tensor | None = None,
    compared: Tensor | None = None,
) -> Evidence:
    """The `Evidence` of images x (B, C, H, W), computed in one pass where one of the detectors needs energies."""
    return Evidence(model, x, predicted, compared, any("class_energies" in part.requires for part in detectors))


def detector_scores(detectors: Sequence[Detector], evidence: Evidence) -> Tensor:
    """(B, m) scores of m detectors, differentiable in the images.

    Raises:
        InputError: a detector that is not fitted, or that gives another shape than (B,).
    """
    scores = []
    for part in detectors:
        if isinstance(part, FittedDetector) and not part.is_fitted:
            raise InputError(f"detector: {part.name} is not fitted; call fit(x_train, y_train) first")
        score = part.score(evidence)
        if not isinstance(score, Tensor) or score.shape != evidence.logits.shape[:1]:
            found = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise InputError(f"detector: {part.name} gave scores of shape {found}, must be ({len(evidence.x)},)")
        scores.append(score.to(evidence.logits.dtype))
    return torch.stack(scores, 1)


def judged(detectors: Sequence[Detector], model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `labels_and_scores` gives, of one batch on the model's device, the modules as they are."""
    evidence = evidence_for(detectors, model, x)
    logits = evidence.logits
    scores = detector_scores(detectors, evidence).float()
    finite = ~(logits.isnan() | logits.isposinf()).any(1)
    return logits.argmax(1), scores.masked_fill(~finite[:, None], torch.inf), finite


def labels_and_scores(detectors: Sequence[Detector], model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (B,), the scores of m detectors (B, m) and whether the logits are finite (B,), on the device of x.

    In evaluation mode, batch by batch, without gradient. The scores are infinite where the logits are not finite.
    """
    device = device_of(model)

    def judge(part: Tensor) -> tuple[Tensor, ...]:
        return tuple(column.to(x.device) for column in judged(detectors, model, part.to(device)))

    with evaluating(nn.ModuleList([model, *detectors])):
        label, scores, finite = batched(judge, x)
    return label, scores, finite
