"""A classifier that rejects what it cannot explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from . import checkpoint, models, provenance
from .detectors import (
    AnyOf,
    Calibration,
    JointCalibration,
    Score,
    calibrate,
    calibrate_jointly,
    images_needed,
    load_score,
    parts,
    wants_redrawn,
)
from .runtime import batched, device_of, evaluating
from .types import ImageShape, InputError, Verdict, check_fraction, check_images

if TYPE_CHECKING:
    from .types import Images

SAVED_KIND = "defended classifier"
_CALIBRATION = "calibration.scores"


class DefendedClassifier(nn.Module):
    """A model with a detector over it: calibrated once on clean images, it rejects suspicious inputs.

    As an `nn.Module` it is the classifier itself: calling it gives logits (B, K), so every attack library accepts
    it, and `score` is differentiable, so that an attack can know the detector.

    Args:
        model: any `nn.Module` with `forward(x) -> logits (B, K)` and `class_energies(x) -> (B, K)`, both of
            images (B, C, H, W) in [0, 1].
        detector: the name of a score of `SCORES`, "any_of(NAME,NAME)" or what `any_of` makes of several, or a function
            of (energies, logits), both (B, K), that gives (B,) scores, higher meaning more suspicious. A function
            whose third parameter is `redrawn` is given the logits of `model.reconstruct(x, predicted)` too.

    Attributes:
        calibration: None before `calibrate`.
        classes: class names in label order, where they are known; `save` keeps them.

    Raises:
        InputError: unknown detector, or a model without the two methods, or without the third that a score asks for.
    """

    def __init__(self, model: nn.Module, detector: str | Score | AnyOf = "label_margin") -> None:
        super().__init__()
        if not isinstance(model, nn.Module) or not callable(getattr(model, "class_energies", None)):
            raise InputError(
                f"model: got {type(model).__name__}, must be a torch.nn.Module with forward(x) and class_energies(x)"
            )
        if not isinstance(detector, (str, AnyOf)) and not callable(detector):
            raise InputError(f"detector: got {detector!r}, must be a score's name or a function of (energies, logits)")
        self.model = model
        self._detector = load_score(detector) if isinstance(detector, str) else detector
        self.detector: str = getattr(self._detector, "__name__", repr(detector))
        self._scores = [(score, wants_redrawn(score)) for score in parts(self._detector)]
        self._redraws = any(wanted for _, wanted in self._scores)
        if self._redraws and not callable(getattr(model, "reconstruct", None)):
            raise InputError(
                f"detector: got {self.detector}, which draws x again, must be another for {type(model).__name__}: "
                "it has no reconstruct(x, labels)"
            )
        self.calibration: Calibration | JointCalibration | None = None
        self.classes: Sequence[str] | None = None

    def extra_repr(self) -> str:
        if self.calibration is None:
            return f"detector={self.detector!r}, not calibrated"
        n = len(self.calibration.scores)
        return f"detector={self.detector!r}, alpha={self.calibration.alpha}, n={n}, threshold={self.threshold:.6g}"

    @property
    def image_shape(self) -> ImageShape | None:
        """(C, H, W) of the model's images, where the model says so."""
        return getattr(self.model, "image_shape", None)

    @property
    def threshold(self) -> float:
        """The score above which an input is rejected.

        Raises:
            InputError: not calibrated.
        """
        return self._calibrated().threshold

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0, 1]: the classifier without its detector."""
        return self.model(x)

    def class_energies(self, x: Tensor) -> Tensor:
        """(B, K): how badly each label explains x; lower is better. Differentiable in x."""
        return cast("Callable[[Tensor], Tensor]", self.model.class_energies)(x)

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
            labels: (B, J) the labels that are compared, the predicted one among them; the others are taken to
                explain nothing, which is not computed and can only lower the score of a margin. All by default.
        """
        logits, energies = self._logits_and_energies(x, labels)
        return logits, self._joined(self._each(x, logits, energies, predicted))

    def logits_and_label_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the scores that each label would get if it were predicted, (B, K) both, from one pass.

        Under the label that is predicted it is the score itself. Differentiable in x.
        """
        logits, energies = self._logits_and_energies(x)
        n_classes = logits.shape[1]
        rows = [given.repeat_interleave(n_classes, 0) for given in (x, logits, energies)]
        each = self._each(rows[0], rows[1], rows[2], torch.arange(n_classes, device=x.device).repeat(len(x)))
        own = self._joined(self._each(x, logits, energies))
        # A score of one's own may ask more of the logits than which of them leads.
        return logits, self._joined(each).view_as(logits).scatter(1, logits.argmax(1, keepdim=True), own[:, None])

    def representations(self, x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """What the model makes of images x (B, C, H, W) taken for `labels` (B,): (B, ...) each, differentiable."""
        if isinstance(self.model, models.EnergyModel):
            return self.model.representations(x, labels)
        return self.model(x), self.class_energies(x)

    def calibrate(self, x: Images, alpha: float = 0.05) -> DefendedClassifier:
        """Set the threshold so that, on average, at most a share `alpha` of clean inputs is rejected; returns self.

        Args:
            x: (n, C, H, W) clean images in [0, 1], tensor or array, that the model was not trained on.
            alpha: bound on the false-alarm rate, in (0, 1).

        Raises:
            InputError: bad images or alpha, or fewer images than alpha needs.
        """
        images = check_images(x, self.image_shape)
        alpha = check_fraction(alpha, "alpha")
        needed = images_needed(alpha, len(self._scores))
        if len(images) < needed:
            raise InputError(
                f"x: {len(images)} images, must be at least {needed} to bound the false-alarm rate by alpha={alpha}"
            )
        self.calibration = _calibration_of(self._judge(images)[1], alpha)
        return self

    def inspect(self, x: Images) -> Verdict:
        """Label, score, p-value and rejection of images (B, C, H, W) in [0, 1], tensor or array, on its device.

        Raises:
            InputError: not calibrated, or bad images.
        """
        calibration = self._calibrated()
        label, each = self._judge(check_images(x, self.image_shape))
        score = self._joined(each)
        # Not `score > threshold`: a score that is not a number must not pass.
        return Verdict(label, score, calibration.p_value(each), ~(score <= calibration.threshold))

    def predict(self, x: Images) -> Tensor:
        """(B,) int64 labels of images (B, C, H, W) in [0, 1]; -1 where the input is rejected.

        Raises:
            InputError: not calibrated, or bad images.
        """
        verdict = self.inspect(x)
        return verdict.label.masked_fill(verdict.rejected, -1)

    def save(self, path: str | Path) -> Path:
        """Write model, detector and calibration to one .safetensors file, with a readable card beside it.

        Raises:
            InputError: not calibrated, a detector that is not in the catalogue, or an unwritable path.
        """
        calibration = self._calibrated()
        if load_score(self.detector) != self._detector:
            raise InputError(f"detector: {self.detector!r} is a function of your own, which cannot be written down")
        tensors = {models.WEIGHTS + key: value for key, value in self.model.state_dict().items()}
        card: dict[str, Any] = {
            "kind": SAVED_KIND,
            "detector": self.detector,
            "alpha": calibration.alpha,
            "threshold": calibration.threshold,
            "n_calibration": len(calibration.scores),
            "versions": provenance.versions(),
            "commit": provenance.commit(),
        }
        if self.classes is not None:
            card["classes"] = list(self.classes)
        if isinstance(self.model, models.EnergyModel):
            card["architecture"] = models.architecture(self.model)
        return checkpoint.save(path, {**tensors, _CALIBRATION: calibration.scores}, card)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None) -> DefendedClassifier:
        """Load what `save` wrote.

        Args:
            path: the .safetensors file.
            model: an instance to load the weights into; needed only for a model class that is not in the catalogue.

        Raises:
            InputError: no such file, or one that is damaged, foreign, a pickle, or not a defended classifier.
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
        else:
            raise InputError(f"model: {path} holds a model of your own class; pass an instance of it")
        defended = cls(model, saved.card["detector"])
        defended.calibration = _calibration_of(saved.tensors[_CALIBRATION], saved.card["alpha"])
        defended.classes = saved.card.get("classes")
        return defended

    def _logits_and_energies(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not isinstance(self.model, models.EnergyModel):
            return self.model(x), self.class_energies(x)
        logits, energies = self.model.logits_and_energies(x, labels)
        if labels is not None:
            energies = torch.full_like(logits, torch.inf).scatter(1, labels, energies)
        return logits, energies

    def _each(self, x: Tensor, logits: Tensor, energies: Tensor, labels: Tensor | None = None) -> Tensor:
        """What the score says of x taken for `labels` (B,), by default for what is predicted: (B,); of m scores (B, m).

        A score that compares x with its drawing is told what x is really taken for: only the drawing is under `labels`.
        """
        named = logits if labels is None else _named(labels, logits)
        redrawn = self.model(self._reconstruct(x, named.argmax(1))) if self._redraws else None
        each = [
            score(energies, logits, redrawn) if wanted else score(energies, named) for score, wanted in self._scores
        ]
        for said in each:
            if said.shape != logits.shape[:1]:
                raise InputError(f"detector: gave scores of shape {tuple(said.shape)}, must be ({len(logits)},)")
        return torch.stack(each, 1) if isinstance(self._detector, AnyOf) else each[0]

    def _reconstruct(self, x: Tensor, labels: Tensor) -> Tensor:
        return cast("Callable[[Tensor, Tensor], Tensor]", self.model.reconstruct)(x, labels)

    def _joined(self, each: Tensor) -> Tensor:
        """The score (B,) that decides, from what `_each` says."""
        if each.ndim == 1:
            return each
        calibration = self._calibrated()
        assert isinstance(calibration, JointCalibration)
        return calibration.score(each)

    def _calibrated(self) -> Calibration | JointCalibration:
        if self.calibration is None:
            raise InputError("detector: not calibrated; call calibrate(x_clean, alpha=0.05) first")
        return self.calibration

    def _judge(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and what `_each` says on the device of x, in evaluation mode, batch by batch without gradient."""
        device = device_of(self.model)

        def judge(part: Tensor) -> tuple[Tensor, Tensor]:
            images = part.to(device)
            logits, energies = self._logits_and_energies(images)
            if energies.shape != logits.shape:
                raise InputError(
                    f"model: class_energies gave {tuple(energies.shape)}, must be the logits' {tuple(logits.shape)}"
                )
            return logits.argmax(1).to(x.device), self._each(images, logits, energies).to(x.device)

        with evaluating(self):
            label, each = batched(judge, x)
        return label, each


def _named(labels: Tensor, logits: Tensor) -> Tensor:
    """Logits that predict `labels`."""
    return torch.zeros_like(logits).scatter(1, labels[:, None], 1.0)


def _calibration_of(each: Tensor, alpha: float) -> Calibration | JointCalibration:
    return calibrate(each, alpha) if each.ndim == 1 else calibrate_jointly(each, alpha)
