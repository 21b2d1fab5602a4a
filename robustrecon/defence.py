"""A classifier that rejects what it cannot explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from . import checkpoint, models, provenance
from .checkpoint import WeightsWatch
from .data.overlap import check_unseen
from .detectors import (
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
    saved_calibration,
    saved_detector,
)
from .runtime import batched, device_of, evaluating
from .types import ImageShape, InputError, Verdict, check_fraction, check_images

if TYPE_CHECKING:
    from .types import Images

SAVED_KIND = "defended classifier"
_CALIBRATION = "calibration.scores"
_STATISTICS = "detector."


class DefendedClassifier(nn.Module):
    """A classifier with a detector over it: calibrated once on clean images, it rejects suspicious inputs.

    As an `nn.Module` it is the classifier itself: calling it gives logits (B, K), so every attack library accepts
    it, and `score` is differentiable, so that an attack can know the detector.

    Args:
        model: any `nn.Module` that gives logits (B, K) of images (B, C, H, W) in [0, 1], in any floating-point type.
            A detector may ask for more: `class_energies(x) -> (B, K)`, or `reconstruct(x, labels) -> (B, C, H, W)`.
        detector: a detector, the name of one of `DETECTORS`, "any_of(NAME,NAME)", or a function of an `Evidence` that
            gives (B,) scores, higher meaning more suspicious.

    Attributes:
        detector: the detector.
        calibration: None before `calibrate`.
        classes: class names in label order, where they are known; `save` keeps them.

    Raises:
        InputError: unknown detector, or a model without a method that the detector needs.
    """

    def __init__(self, model: nn.Module, detector: str | Detector | AnyOf | Score = "label_margin") -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError(f"model: got {type(model).__name__}, must be a torch.nn.Module that gives logits (B, K)")
        self.model = model
        self.detector = as_detector(detector)
        self._parts = parts(self.detector)
        for part in self._parts:
            check_methods(part, model)
        self.calibration: Calibration | None = None
        self.classes: Sequence[str] | None = None
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
        return self._checked_calibration().threshold

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
        score = self._combined_score(self._detector_scores(evidence))
        return evidence.logits, score

    def logits_and_label_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the scores that each label would get if it were predicted, (B, K) both; differentiable in x.

        Under the label that is predicted it is the score itself.
        """
        evidence = self._evidence(x)
        own = self._combined_score(self._detector_scores(evidence))
        logits = evidence.logits
        scores = [
            self._combined_score(self._detector_scores(evidence.under(torch.full_like(logits[:, 0], k).long())))
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

    def fit(self, x: Images, y: Tensor) -> DefendedClassifier:
        """Let detectors that need training images learn from them; returns self. Others need no fit.

        Args:
            x: (N, C, H, W) images in [0, 1], tensor or array, such as the model was trained on.
            y: (N,) int64 labels.

        Raises:
            InputError: bad images or labels.
        """
        images, truth = check_images(x, self.image_shape), torch.as_tensor(y)
        if truth.shape != images.shape[:1] or truth.is_floating_point():
            raise InputError(f"y: got {truth.dtype} of shape {tuple(truth.shape)}, must be {len(images)} labels")
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

    def calibrate(self, x: Images, alpha: float = 0.05) -> DefendedClassifier:
        """Set the threshold so that, on average, at most a share `alpha` of clean inputs is rejected; returns self.

        Args:
            x: (n, C, H, W) clean images in [0, 1], tensor or array, that the model was not trained on.
            alpha: bound on the false-alarm rate, in (0, 1).

        Raises:
            InputError: bad images or alpha, fewer images than alpha needs, images that the model does not take or was
                trained on, a detector that is not fitted, or one that gives all images the same score.
        """
        images = check_images(x, getattr(self.model, "image_shape", None))
        alpha = check_fraction(alpha, "alpha")
        needed = images_needed(alpha, len(self._parts))
        if len(images) < needed:
            raise InputError(
                f"x: {len(images)} images, must be at least {needed} to bound the false-alarm rate by alpha={alpha}"
            )
        if (sketch := models.trained_on(self.model)) is not None:
            check_unseen(sketch, images, "x")
        try:
            _, scores, finite = self._labels_and_scores(images)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = " ".join(str(error).split())
            shape = tuple(images.shape[1:])
            raise InputError(
                f"x: {type(self.model).__name__} does not take images of shape {shape} ({reason})"
            ) from error
        if count := int((~finite).sum()):
            raise InputError(f"model: gave logits that are not finite on {count} of {len(images)} images")
        calibration = calibrate(scores, alpha)
        check_tells_apart(calibration, [part.name for part in self._parts])
        self._set_calibration(calibration, images.shape[1:])
        return self

    def inspect(self, x: Images) -> Verdict:
        """Label, score, p-value and rejection of images (B, C, H, W) in [0, 1], tensor or array, on its device.

        An input whose logits or score are not numbers is rejected.

        Raises:
            InputError: not calibrated, calibrated with other weights, or bad images.
        """
        calibration = self._checked_calibration()
        label, scores, _ = self._labels_and_scores(check_images(x, self.image_shape))
        score = calibration.combined(scores)
        # Not `score > threshold`: a score that is not a number must not pass.
        return Verdict(label, score, calibration.p_value(scores), ~(score <= calibration.threshold))

    def predict(self, x: Images) -> Tensor:
        """(B,) int64 labels of images (B, C, H, W) in [0, 1]; -1 where the input is rejected.

        Raises:
            InputError: not calibrated, calibrated with other weights, or bad images.
        """
        verdict = self.inspect(x)
        return verdict.label.masked_fill(verdict.rejected, -1)

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
            self.calibration = Calibration(state["scores"], state["alpha"])
            self._weights = WeightsWatch(self._watched, state["weights"])
            self._calibrated_shape = state["image_shape"]

    def save(self, path: str | Path) -> Path:
        """Write model, detector and calibration to one .safetensors file, with a readable card beside it.

        Raises:
            InputError: not calibrated, calibrated with other weights, a detector that is a function, or an unwritable
                path.
        """
        calibration = self._checked_calibration(exactly=True)
        tensors = {models.WEIGHTS + key: value for key, value in self.model.state_dict().items()}
        for index, part in enumerate(self._parts):
            if isinstance(part, FunctionDetector):
                raise InputError(f"detector: {part.name!r} is a function, which cannot be written down")
            tensors |= {f"{_STATISTICS}{index}.{key}": value for key, value in part.state_dict().items()}
        card: dict[str, Any] = {
            "kind": SAVED_KIND,
            "detector": self.detector.name,
            "alpha": calibration.alpha,
            "threshold": calibration.threshold,
            "n_calibration": len(calibration.scores),
            "image_shape": self.image_shape,
            "versions": provenance.versions(),
            "commit": provenance.commit(),
        }
        if (sketch := models.trained_on(self.model)) is not None:
            tensors[models.TRAINED_ON] = sketch
        if self.classes is not None:
            card["classes"] = list(self.classes)
        if isinstance(self.model, models.EnergyModel):
            card["architecture"] = models.architecture(self.model)
        return checkpoint.save(path, {**tensors, _CALIBRATION: calibration.scores}, card)

    @classmethod
    def load(
        cls, path: str | Path, model: nn.Module | None = None, detector: Detector | AnyOf | None = None
    ) -> DefendedClassifier:
        """Load what `save` wrote.

        Args:
            path: the .safetensors file.
            model: an instance to load the weights into; needed only for a model class that is not in the catalogue.
            detector: an instance; needed only for a detector that is not in the catalogue.

        Raises:
            InputError: no such file, or one that is damaged, foreign, a pickle, not a defended classifier, or of a
                model or detector that is not known here.
        """
        saved = models.read(path)
        if _CALIBRATION not in saved.tensors or "detector" not in saved.card:
            raise InputError(f"{path}: is a model without a calibrated detector; wrap it and call calibrate")
        weights = models.model_weights(saved.tensors)
        if model is not None:
            try:
                model.load_state_dict(weights)
            except RuntimeError as error:
                raise InputError(f"model: the weights in {path} do not fit {type(model).__name__}") from error
        elif "architecture" in saved.card:
            model = models.build(saved.card["architecture"], weights)
            model.trained_on = saved.tensors.get(models.TRAINED_ON)
        else:
            raise InputError(f"model: {path} holds a model of your own class; pass an instance of it")
        dtypes = [tensor.dtype for tensor in weights.values() if tensor.is_floating_point()]
        if dtypes:
            model.to(dtypes[0])  # the one that it was calibrated in
        defended = cls(model, saved_detector(saved.card["detector"], detector, str(path)))
        for index, part in enumerate(defended._parts):
            if isinstance(part, FittedDetector):
                part.set_statistics(models.model_weights(saved.tensors, f"{_STATISTICS}{index}."))
        scores, m = saved.tensors[_CALIBRATION], len(defended._parts)
        calibration = saved_calibration(scores, saved.card.get("alpha"), m, str(path))
        defended._set_calibration(calibration, saved.card.get("image_shape"))
        defended.classes = saved.card.get("classes")
        return defended

    def _set_calibration(self, calibration: Calibration, shape: Sequence[int] | None) -> None:
        self.calibration, self._weights = calibration, WeightsWatch(self._watched)
        self._calibrated_shape = None if shape is None else (shape[0], shape[1], shape[2])

    @property
    def _watched(self) -> nn.Module:
        return nn.ModuleList([self.model, self.detector])

    def _checked_calibration(self, exactly: bool = False) -> Calibration:
        if self.calibration is None or self._weights is None:
            raise InputError("detector: not calibrated; call calibrate(x_clean, alpha=0.05) first")
        if not self._weights.unchanged(self._watched, exactly):
            raise InputError("model: its weights have changed since it was calibrated; call calibrate again")
        return self.calibration

    def _evidence(self, x: Tensor, predicted: Tensor | None = None, compared: Tensor | None = None) -> Evidence:
        with_energies = any("class_energies" in part.requires for part in self._parts)
        return Evidence(self.model, x, predicted, compared, with_energies)

    def _detector_scores(self, evidence: Evidence) -> Tensor:
        """(B, m) scores of the m detectors."""
        scores = []
        for part in self._parts:
            if isinstance(part, FittedDetector) and not part.is_fitted:
                raise InputError(f"detector: {part.name} is not fitted; call fit(x_train, y_train) first")
            score = part.score(evidence)
            if not isinstance(score, Tensor) or score.shape != evidence.logits.shape[:1]:
                found = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
                raise InputError(f"detector: {part.name} gave scores of shape {found}, must be ({len(evidence.x)},)")
            scores.append(score.to(evidence.logits.dtype))
        return torch.stack(scores, 1)

    def _combined_score(self, scores: Tensor) -> Tensor:
        """The score (B,) that decides, from those of the m detectors (B, m)."""
        if scores.shape[1] == 1:
            return scores.squeeze(1)
        if self.calibration is None:
            raise InputError("detector: not calibrated; call calibrate(x_clean, alpha=0.05) first")
        return self.calibration.combined(scores)

    def _labels_and_scores(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (B,), the detectors' scores (B, m) and whether the logits are finite (B,), on the device of x.

        In evaluation mode, batch by batch, without gradient. The scores are infinite where the logits are not finite.
        """
        device = device_of(self.model)

        def judge(part: Tensor) -> tuple[Tensor, ...]:
            evidence = self._evidence(part.to(device))
            logits = evidence.logits
            scores = self._detector_scores(evidence).float()
            finite = ~(logits.isnan() | logits.isposinf()).any(1)
            scores = scores.masked_fill(~finite[:, None], torch.inf)
            return logits.argmax(1).to(x.device), scores.to(x.device), finite.to(x.device)

        with evaluating(self):
            label, scores, finite = batched(judge, x)
        return label, scores, finite
