"""A classifier that rejects what it cannot explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from .. import models
from ..checkpoint import WeightsWatch
from ..data.batches import as_images_and_labels, batches, check_labels
from ..data.overlap import check_share, share_seen
from ..detectors import (
    AnyOf,
    Calibration,
    Detector,
    Evidence,
    FittedDetector,
    FunctionDetector,
    Score,
    as_detector,
    calibrate,
    check_methods,
    check_tells_apart,
    images_needed,
    parts,
    shares_of,
)
from ..detectors.scoring import detector_scores, evidence_for, labels_and_scores
from ..runtime import device_of, evaluating
from ..types import ImageShape, InputError, Verdict, check_fraction
from . import saving
from .about import About
from .monitor import Monitor
from .reject_class import as_art

if TYPE_CHECKING:
    from ..data.batches import Data


class DefendedClassifier(nn.Module):
    """A classifier with a detector over it: calibrated once on clean images, it rejects suspicious inputs.

    As an `nn.Module` it is the classifier itself: calling it gives logits (B, K), so every attack library accepts
    it, and `score` is differentiable, so that an attack can know the detector.

    Args:
        model: any `nn.Module` that gives logits (B, K) of images (B, C, H, W) in [0, 1], in any floating-point type.
            A detector may ask for more: `class_energies(x) -> (B, K)`, or `reconstruct(x, labels) -> (B, C, H, W)`.
        detector: a detector, the name of one of `DETECTORS`, "any_of(NAME,NAME)", "module:factory" for one of your own,
            or a function of an `Evidence` that gives (B,) scores, higher meaning more suspicious. By default the
            model's `default_detector`, where it has one, or "label_margin".

    Attributes:
        detector: the detector.
        calibration: None before `calibrate`.
        classes: class names in label order, where they are known; `save` keeps them.
        about: licence, data and metrics, where they are known; `save` keeps them, and writes them on the model card.

    Raises:
        InputError: unknown detector, or a model without a method that the detector needs.
    """

    def __init__(self, model: nn.Module, detector: str | Detector | AnyOf | Score | None = None) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError(f"model: got {type(model).__name__}, must be a torch.nn.Module that gives logits (B, K)")
        self.model = model
        self.detector = as_detector(
            getattr(model, "default_detector", "label_margin") if detector is None else detector
        )
        self._parts = parts(self.detector)
        for part in self._parts:
            check_methods(part, model)
            if isinstance(part, FittedDetector):
                part.to(device_of(model))
        self.calibration: Calibration | None = None
        self.classes: Sequence[str] | None = None
        self.about: About | None = None
        self._weights: WeightsWatch | None = None
        self._calibrated_shape: ImageShape | None = None

    def extra_repr(self) -> str:
        if self.calibration is None:
            return "not calibrated"
        n = len(self.calibration.scores)
        return f"alpha={self.calibration.alpha}, n={n}, threshold={self.calibration.threshold:.6g}"

    @property
    def image_shape(self) -> ImageShape | None:
        """(C, H, W) of the model's images, where the model says so, or that of the images it was calibrated on."""
        return getattr(self.model, "image_shape", self._calibrated_shape)

    @property
    def threshold(self) -> float:
        """The score above which an input is rejected.

        Raises:
            InputError: not calibrated, or calibrated with other weights than the model has now.
        """
        return self.checked_calibration().threshold

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0, 1]: the classifier without its detector."""
        return Evidence(self.model, x).logits

    @property
    def class_energies(self) -> Callable[[Tensor], Tensor]:
        """The model's, (B, K) of images (B, C, H, W); absent where the model has none or the detector does not look."""
        uses = any("class_energies" in part.requires or isinstance(part, FunctionDetector) for part in self._parts)
        if not (uses and callable(getattr(self.model, "class_energies", None))):
            raise AttributeError("class_energies")
        return lambda x: Evidence(self.model, x).energies

    def score(self, x: Tensor) -> Tensor:
        """(B,) scores of images (B, C, H, W), differentiable in x; higher is more suspicious.

        Raises:
            InputError: an `any_of` detector that is not calibrated.
        """
        return self.logits_and_score(x)[1]

    def logits_and_score(
        self, x: Tensor, predicted: Tensor | None = None, labels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, K) and scores (B,) from one pass, differentiable in x.

        Args:
            x: (B, C, H, W) images in [0, 1].
            predicted: (B,) labels to judge x under; by default those that the model predicts.
            labels: (B, J) the labels whose energies are compared, the predicted one among them; the energies of the
                others count as infinite and are not computed, which can only lower the score of a margin. All by
                default.
        """
        evidence = self._evidence(x, predicted, labels)
        return evidence.logits, self._combined_score(evidence)

    def logits_and_label_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the scores that each label would get if it were predicted, (B, K) both; differentiable in x.

        Under the label that is predicted it is the score itself.
        """
        evidence = self._evidence(x)
        own = self._combined_score(evidence)
        logits = evidence.logits
        scores = [
            self._combined_score(evidence.under(torch.full_like(logits[:, 0], k).long()))
            for k in range(logits.shape[1])
        ]
        return logits, torch.stack(scores, 1).scatter(1, logits.argmax(1, keepdim=True), own[:, None])

    def representations(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """What the model makes of images x (B, C, H, W) under `labels` (B,): (B, ...) each, differentiable in x."""
        own = getattr(self.model, "representations", None)
        if own is not None:
            return cast("tuple[Tensor, ...]", own(x, labels))
        evidence = Evidence(self.model, x)
        if callable(getattr(self.model, "class_energies", None)):
            return evidence.logits, evidence.energies
        return (evidence.logits,)

    def fit(self, x: Data, y: Tensor | None = None) -> DefendedClassifier:
        """Let detectors that need training images learn from them; returns self. Others need no fit.

        Args:
            x: (N, C, H, W) images in [0, 1], tensor or array, such as the model was trained on; or images and labels
                together: a pair, a torch data set, or a `DataLoader`.
            y: (N,) labels, whole numbers, where x does not have them.

        Raises:
            InputError: bad images or labels.
        """
        images, truth = as_images_and_labels(x, self.image_shape)
        if y is not None:
            truth = check_labels(y, len(images))
        if truth is None:
            raise InputError(f"y: got None, must be {len(images)} labels")
        with evaluating(self):
            with torch.no_grad():
                n_classes = self(images[:1].to(device_of(self.model))).shape[1]
            if truth.min() < 0 or truth.max() >= n_classes:
                raise InputError(f"y: labels span [{truth.min()}, {truth.max()}], must be in [0, {n_classes - 1}]")
            for part in self._parts:
                if isinstance(part, FittedDetector):
                    part.fit(self.model, images, truth)
        self.calibration = None
        return self

    def calibrate(self, x: Data, alpha: float = 0.05, *, correct_only: bool = False) -> DefendedClassifier:
        """Set the threshold so that, on average, at most a share `alpha` of clean inputs is rejected; returns self.

        Where the model errs on clean images, a good detector rejects them; these rejections use `alpha` up, and the
        threshold becomes the laxer the more the model errs. With `correct_only` the bound is on the rate among the
        images that the model labels right (D. Stutz et al., "Confidence-Calibrated Adversarial Training", ICML 2020,
        calibrate so), and what it labels wrong is rejected beyond it.

        Args:
            x: (n, C, H, W) clean images in [0, 1], tensor or array, that the model was not trained on; or a torch data
                set, a `DataLoader` or another iterable of batches, of which one is held at a time. Labels are ignored
                unless `correct_only`, which needs them: (x, y), or any of the others.
            alpha: bound on the false-alarm rate, in (0, 1).
            correct_only: calibrate on the images that the model labels right.

        Raises:
            InputError: bad images or alpha, missing labels, fewer images than alpha needs, images that the model does
                not take or was trained on, a detector that is not fitted, or one that gives scores that are not finite
                or all the same.
        """
        alpha = check_fraction(alpha, "alpha")
        sketch = models.trained_on(self.model)
        seen = decidable = not_finite = 0
        shape: ImageShape | None = getattr(self.model, "image_shape", None)
        columns = []
        for images, y in batches(x, shape):
            if correct_only and y is None:
                raise InputError("x: has no labels, must be images and labels where correct_only")
            if sketch is not None:
                counts = share_seen(sketch, images)
                seen, decidable = seen + counts[0], decidable + counts[1]
            labels, scores, finite = self._calibration_scores(images)
            not_finite += int((~finite).sum())
            columns.append(scores if y is None or not correct_only else scores[labels == y])
            shape = cast(ImageShape, tuple(images.shape[1:]))
        scores = torch.cat(columns)
        if len(scores) < (needed := images_needed(alpha, shares_of(self.detector))):
            raise InputError(
                f"x: {len(scores)} images{' that the model labels right' * correct_only}, must be at least {needed} to "
                f"bound the false-alarm rate by alpha={alpha}"
            )
        check_share(seen, decidable, "x")
        if not_finite:
            raise InputError(f"model: gave logits that are not finite on {not_finite} of {len(scores)} images")
        for part, column in zip(self._parts, scores.unbind(1), strict=True):
            if bad := int((~column.isfinite()).sum()):
                raise InputError(
                    f"detector: {part.name} gave scores that are not finite on {bad} of {len(scores)} images, must be "
                    "finite"
                )
        self.set_calibration(calibrate(scores, alpha, shares_of(self.detector)), shape)
        return self

    def set_calibration(self, calibration: Calibration, image_shape: Sequence[int] | None = None) -> None:
        """Take on a calibration of this detector, made with the weights that the model has now.

        Args:
            calibration: of the detector's scores of clean images.
            image_shape: (C, H, W) of these images, where it is known.

        Raises:
            InputError: the detector gives all images the same score.
        """
        check_tells_apart(calibration, [part.name for part in self._parts])
        self.calibration, self._weights = calibration, WeightsWatch(self._watched)
        self._calibrated_shape = None if image_shape is None else (image_shape[0], image_shape[1], image_shape[2])

    def inspect(self, x: Data) -> Verdict:
        """Label, score, p-value and rejection of images (B, C, H, W) in [0, 1], on their device.

        An input whose logits or score are not numbers is rejected.

        Args:
            x: a tensor or an array; or a torch data set, a `DataLoader` or another iterable of batches, of which one is
                held at a time. Labels are ignored.

        Raises:
            InputError: not calibrated, calibrated with other weights, or bad images.
        """
        calibration = self.checked_calibration()
        labels, scores = zip(
            *(labels_and_scores(self._parts, self.model, images)[:2] for images, _ in batches(x, self.image_shape)),
            strict=True,
        )
        return Verdict(torch.cat(labels), *calibration.decide(torch.cat(scores)))

    def predict(self, x: Data) -> Tensor:
        """(B,) int64 labels of images (B, C, H, W) in [0, 1], given as to `inspect`; -1 where the input is rejected.

        Raises:
            InputError: not calibrated, calibrated with other weights, or bad images.
        """
        verdict = self.inspect(x)
        return verdict.label.masked_fill(verdict.rejected, -1)

    def to_art(self, reject_class: bool = False) -> Any:
        """The classifier as ART's `PyTorchClassifier`, for its attacks and whatever else takes one.

        Args:
            reject_class: give logits (B, K + 1) as `RejectClass` does, whose argmax is K for rejected images.

        Raises:
            InputError: a shape of the images that is not known, or, with `reject_class`, no calibration.
        """
        return as_art(self, reject_class)

    def monitor(self, window: int = 1000, false_alarm_rate: float = 0.01) -> Monitor:
        """Watches it in use: says when its inputs are no longer like the calibration images; errors as of `Monitor`."""
        return Monitor(self, window, false_alarm_rate)

    def get_extra_state(self) -> dict[str, Any]:
        """The calibration, for `state_dict`."""
        if self.calibration is None or self._weights is None:
            return {}
        return {
            "detector": self.detector.name,
            "scores": self.calibration.scores,
            "alpha": self.calibration.alpha,
            "image_shape": self._calibrated_shape,
            "weights": self._weights.fingerprint,
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take on the calibration of a `state_dict`; it holds for the weights that it was made with.

        Raises:
            InputError: it is of another detector.
        """
        self.calibration = None
        if state:
            if state["detector"] != self.detector.name:
                raise InputError(
                    f"state_dict: was calibrated for the detector {state['detector']}, must be for {self.detector.name}"
                )
            self.calibration = Calibration(state["scores"], state["alpha"], shares_of(self.detector))
            self._weights = WeightsWatch(self._watched, state["weights"])
            self._calibrated_shape = state["image_shape"]

    def save(self, path: str | Path) -> Path:
        """Write model, detector and calibration to one .safetensors file, with a readable card beside it; returns path.

        Args:
            path: the .safetensors file, or a folder, which gets `model.safetensors`, `model.json` and a model card,
                `README.md`, in Hugging Face's layout, such as `huggingface_hub.upload_folder` publishes.

        Raises:
            InputError: not calibrated, calibrated with other weights, a detector that is a function, or an unwritable
                path.
        """
        return saving.save(self, path)

    @classmethod
    def load(
        cls, path: str | Path, model: nn.Module | None = None, detector: Detector | AnyOf | None = None
    ) -> DefendedClassifier:
        """Load what `save` wrote.

        Args:
            path: the .safetensors file, or the folder.
            model: an instance to load the weights into; needed only for a model class that is not in the catalogue.
            detector: an instance; needed only for a detector that is not in the catalogue.

        Raises:
            InputError: no such file, or one that is damaged, foreign, a pickle, not a defended classifier, or of a
                model or detector that is not known here.
        """
        return saving.load(cls, path, model, detector)

    @property
    def _watched(self) -> nn.Module:
        return nn.ModuleList([self.model, self.detector])

    def checked_calibration(self, exactly: bool = False) -> Calibration:
        """The calibration; `exactly` compares the hash of the weights in any case.

        Raises:
            InputError: not calibrated, or calibrated with other weights than the model has now.
        """
        if self.calibration is None or self._weights is None:
            raise InputError("detector: not calibrated; call calibrate(x_clean, alpha=0.05) first")
        if not self._weights.unchanged(self._watched, exactly):
            raise InputError("model: its weights have changed since it was calibrated; call calibrate again")
        return self.calibration

    def _evidence(self, x: Tensor, predicted: Tensor | None = None, compared: Tensor | None = None) -> Evidence:
        return evidence_for(self._parts, self.model, x, predicted, compared)

    def _combined_score(self, evidence: Evidence) -> Tensor:
        """The score (B,) that decides, from those of the detectors."""
        scores = detector_scores(self._parts, evidence)
        if scores.shape[1] == 1:
            return scores.squeeze(1)
        if self.calibration is None:
            raise InputError("detector: not calibrated; call calibrate(x_clean, alpha=0.05) first")
        return self.calibration.combined(scores)

    def _calibration_scores(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (B,) and the detectors' scores (B, m), on the CPU, and whether the logits are finite (B,)."""
        try:
            labels, scores, finite = labels_and_scores(self._parts, self.model, images)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = " ".join(str(error).split())
            shape = tuple(images.shape[1:])
            raise InputError(
                f"x: {type(self.model).__name__} does not take images of shape {shape} ({reason})"
            ) from error
        return labels.cpu(), scores.cpu(), finite
