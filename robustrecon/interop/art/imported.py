"""Classifiers and evasion detectors of the Adversarial Robustness Toolbox (M.-I. Nicolae et al., 2018) as ours."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from art.defences.detector.evasion import (
    BeyondDetectorPyTorch,
    BinaryActivationDetector,
    BinaryInputDetector,
    SubsetScanningDetector,
)
from art.estimators.classification import PyTorchClassifier
from art.preprocessing.standardisation_mean_std.pytorch import StandardisationMeanStdPyTorch
from art.preprocessing.standardisation_mean_std.utils import broadcastable_mean_std
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, one_hot

from ...detectors import Detector, Evidence
from ...runtime import device_of, dtype_of, seeded
from ...types import ImageShape, InputError

NAMES = {
    BinaryInputDetector: "art_binary_input",
    BinaryActivationDetector: "art_binary_activation",
    BeyondDetectorPyTorch: "art_beyond",
    SubsetScanningDetector: "art_subset_scanning",
}


class _ArtDetector(Detector):
    """A detector of ART, whose score is the same whichever label is predicted."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.name = NAMES[type(detector)]

    def score(self, evidence: Evidence) -> Tensor:
        return evidence.cached(self, lambda: self._scores(evidence.x)).to(evidence.logits)

    @abstractmethod
    def _scores(self, x: Tensor) -> Tensor:
        """(B,) scores of images x (B, C, H, W), on any device."""


def from_art(art: Any) -> ArtClassifier | Detector:
    """Turn a classifier of ART into a module, or its evasion detector into a detector that is used as the others are.

    A `PyTorchClassifier` becomes a module that gives logits, after its preprocessing by mean and standard deviation. It
    is attacked, defended and put into a benchmark like any other.

    A detector is made and fitted by ART; `DefendedClassifier(model, from_art(detector)).calibrate(x)` then finds the
    threshold. What ART itself would reject plays no part.

    - `BinaryInputDetector` (Z. Gong et al., "Adversarial and Clean Data Are Not Twins", 2017) and
      `BinaryActivationDetector` (J. H. Metzen et al., "On Detecting Adversarial Perturbations", ICLR 2017): the second
      output of the detector's network, which stands for "adversarial", minus the first. Its gradient is that of the
      networks; it has none where an estimator has a postprocessing, or a preprocessing other than by mean and standard
      deviation.
    - `BeyondDetectorPyTorch` (Z. He et al., "Be Your Own Neighborhood: Detecting Adversarial Examples by the
      Neighborhood Relations Built on Self-Supervised Learning", ICML 2024): minus the similarity to its augmented
      images that ART compares with a threshold. Every image is augmented with the same random numbers. ART computes it
      without gradient; here it has one, as far as the augmentations do.
    - `SubsetScanningDetector` (S. Speakman et al., "Subset Scanning Over Neural Network Activations", 2018): the score
      of the most anomalous subset of a layer's activations. It counts ranks, so it has no gradient.

    What has no gradient is run by ART, on the device that ART put it on. To load a classifier that was saved, give
    `DefendedClassifier.load` a detector of the same architecture as `detector`; its weights are loaded.

    Args:
        art: the classifier, of images (B, C, H, W) in [0, 1] and with no other preprocessing, nor a postprocessing; or
            the detector, over estimators of type `PyTorchClassifier` that take such images.

    Raises:
        InputError: another object, a detector over other estimators, or a classifier that does more than its network.
    """
    if isinstance(art, PyTorchClassifier):
        return ArtClassifier.of(art)
    detector = art
    if type(detector) not in NAMES:
        known = ", ".join(kind.__name__ for kind in NAMES)
        raise InputError(f"art: got {type(detector).__name__}, must be ART's PyTorchClassifier, {known}")
    if isinstance(detector, BeyondDetectorPyTorch):
        return ArtBeyond(detector)
    estimators = _estimators(detector)
    for estimator in estimators:
        if not isinstance(estimator, PyTorchClassifier):
            raise InputError(
                f"art: {type(detector).__name__} is over a {type(estimator).__name__}, must be over ART's "
                "PyTorchClassifier"
            )
    if not isinstance(detector, SubsetScanningDetector) and all(map(_is_differentiable, estimators)):
        return ArtNetwork(detector)
    return ArtReport(detector)


class ArtNetwork(_ArtDetector):
    """A binary detector of ART whose networks are differentiable, without ART around them."""

    def __init__(self, detector: Any) -> None:
        super().__init__(detector)
        self.network = Standardised(detector.detector)
        self.classifier: Standardised | None = None
        if isinstance(detector, BinaryActivationDetector):
            self.classifier = Standardised(detector.classifier)
            self._layer: str = detector._layer_name

    def _scores(self, x: Tensor) -> Tensor:
        given = x if self.classifier is None else _output_of(self._layer, self.classifier, x)
        return _difference(self.network(given), self.name)


class Standardised(nn.Module):
    """The network of a `PyTorchClassifier`, after its preprocessing by mean and standard deviation."""

    def __init__(self, estimator: Any) -> None:
        super().__init__()
        self.network: nn.Module = estimator.model
        self._steps = [(step.mean, step.std) for step in estimator.preprocessing_operations if step.apply_predict]

    def forward(self, x: Tensor) -> Any:
        x = x.to(device_of(self.network), dtype_of(self.network))
        for step in self._steps:
            mean, std = (torch.as_tensor(value).to(x) for value in broadcastable_mean_std(x, *step))
            x = (x - mean) / std
        return self.network(x)


class ArtClassifier(Standardised):
    """A classifier of ART as a module: logits (B, K) of images (B, C, H, W) in [0, 1]."""

    def __init__(self, estimator: Any, image_shape: ImageShape) -> None:
        super().__init__(estimator)
        self.image_shape, self.n_classes = image_shape, int(estimator.nb_classes)

    @classmethod
    def of(cls, estimator: Any) -> ArtClassifier:
        """Of a `PyTorchClassifier`.

        Raises:
            InputError: what it does beside its network cannot be done here.
        """
        if not _is_differentiable(estimator):
            raise InputError(
                "art: the PyTorchClassifier has a postprocessing, or a preprocessing that is no mean and standard "
                "deviation, must have none: put it into its module"
            )
        shape, clip = tuple(estimator.input_shape), estimator.clip_values
        if len(shape) != 3 or not estimator.channels_first:
            raise InputError(f"art: the PyTorchClassifier takes inputs of shape {shape}, must take images (C, H, W)")
        if clip is not None and (np.any(np.asarray(clip[0]) != 0) or np.any(np.asarray(clip[1]) != 1)):
            raise InputError(f"art: the PyTorchClassifier has the clip_values {clip}, must be of images in [0, 1]")
        return cls(estimator, (shape[0], shape[1], shape[2])).eval()


class ArtBeyond(_ArtDetector):
    """ART's `BeyondDetectorPyTorch` with gradient."""

    several_passes = True

    def __init__(self, detector: Any) -> None:
        super().__init__(detector)
        self.backbone: nn.Module = detector.backbone
        self.head: nn.Module = detector.model_classifier
        self.projector: nn.Module = detector.projector
        self.augment: Callable[[Tensor], Tensor] = detector.img_augmentations
        self.n_augmented, self.rank, self.label_weight = detector.aug_num, detector.var_K, detector.alpha

    def _scores(self, x: Tensor) -> Tensor:
        images = x.to(device_of(self.backbone), dtype_of(self.backbone))
        # One by one: augmentations may draw their random numbers for a whole batch.
        return torch.cat([self._score(image) for image in images.split(1)])

    def _score(self, image: Tensor) -> Tensor:
        with seeded(0):
            augmented = torch.cat([self.augment(image) for _ in range(self.n_augmented)])
        own, others = self.backbone(image), self.backbone(augmented)
        outputs = self.head(others)
        label = one_hot(self.head(own).argmax(1), outputs.shape[1])
        same_label = cosine_similarity(label, outputs)
        same_features = cosine_similarity(self.projector(own).flatten(1), self.projector(others).flatten(1))
        similarity = self.label_weight * same_label + (1 - self.label_weight) * same_features
        return -similarity.topk(self.rank).values[-1:]


class ArtReport(_ArtDetector):
    """A detector of ART that ART runs: without gradient, on the device and in the precision that ART gave it."""

    differentiable = False

    def __init__(self, detector: Any) -> None:
        super().__init__(detector)
        self._detector = detector
        self.networks = nn.ModuleList([estimator.model for estimator in _estimators(detector)])
        if isinstance(detector, SubsetScanningDetector):
            # The same memory: what is loaded into the buffer is what ART looks at.
            self.register_buffer("background", torch.from_numpy(detector.sorted_bgd_activations))

    def _apply(self, fn: Any, recurse: bool = True) -> ArtReport:
        return self  # ART would not find its networks on another device

    def _scores(self, x: Tensor) -> Tensor:
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):  # numpy has no bfloat16
            report, _ = self._detector.detect(x.detach().float().cpu().numpy())
        if isinstance(self._detector, SubsetScanningDetector):
            return torch.from_numpy(np.asarray(report["scores"]))
        return _difference(torch.from_numpy(report["predictions"]), self.name)


def _estimators(detector: Any) -> list[Any]:
    return [getattr(detector, name) for name in ("detector", "classifier") if hasattr(detector, name)]


def _is_differentiable(estimator: Any) -> bool:
    steps = estimator.preprocessing_operations
    return not estimator.postprocessing_defences and all(type(step) is StandardisationMeanStdPyTorch for step in steps)


def _output_of(layer: str, classifier: Standardised, x: Tensor) -> Tensor:
    """What a layer of the classifier gives, after layers that write into it have: as ART sees it."""
    seen: list[Tensor] = []
    hook = classifier.network.get_submodule(layer).register_forward_hook(lambda *given: seen.append(given[-1]))
    try:
        classifier(x)
    finally:
        hook.remove()
    return seen[-1]


def _difference(outputs: Tensor, name: str) -> Tensor:
    if outputs.ndim != 2 or outputs.shape[1] != 2:
        raise InputError(
            f"detector: the network of {name} gave outputs of shape {tuple(outputs.shape)}, must be "
            f"({len(outputs)}, 2), for clean and adversarial"
        )
    outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
    return outputs[:, 1] - outputs[:, 0]
