"""Figures 5 and 6: what is drawn of an image that was misread, under the label it was given and under its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from ..bench import plots
from ..data import Dataset
from ..defence import DefendedClassifier
from ..detectors import SCORES
from ..models import EnergyModel
from ..runtime import batched, device_of, evaluating
from .base import Array, Drawable, Measure, checked, decode, encode, energies, short, show


@dataclass(frozen=True)
class Misclassified(Drawable):
    """Every misclassified test image with its two drawings, and how well scores tell them from the others.

    Attributes:
        originals, as_predicted, as_true: (M, C, H, W) images, drawn under the predicted and the true label.
        predicted, true: (M,) labels.
        confidence: (M,) softmax probability of the predicted label.
        energy_predicted, energy_true: (M,) squared errors of the two drawings.
        classes: the class names.
        wrong: (N,) flags of all test images.
        scores: (N,) by detector; higher is more suspicious. `confidence` is −max softmax, for comparison.
        shown: how many columns the sheet has.
    """

    originals: Array
    as_predicted: Array
    as_true: Array
    predicted: Array
    true: Array
    confidence: Array
    energy_predicted: Array
    energy_true: Array
    classes: tuple[str, ...]
    wrong: Array
    scores: dict[str, Array]
    shown: int

    @property
    def measures(self) -> dict[str, Measure]:
        if not self.wrong.any() or self.wrong.all():
            return {"misclassified": Measure.mean(self.wrong)}
        return {
            "misclassified": Measure.mean(self.wrong),
            "true_label_explains_better": Measure.mean(self.energy_true < self.energy_predicted),
            **{f"auroc_{name}": Measure(roc_auc_score(self.wrong, s), len(s)) for name, s in self.scores.items()},
            **{f"aurc_{name}": Measure(self.risk_coverage(name)[1].mean(), len(s)) for name, s in self.scores.items()},
        }

    @property
    def caption(self) -> str:
        m = self.measures
        if len(m) == 1:
            return f"{m['misclassified'].value:.2%} of n = {len(self.wrong):,} test images are misclassified."
        auroc = ", ".join(f"{name} {m[f'auroc_{name}'].value:.3f}" for name in self.scores)
        return (
            f"Of n = {len(self.wrong):,} test images {len(self.true)} are misclassified; the true label explains "
            f"{m['true_label_explains_better'].value:.1%} of these better than the predicted one. "
            f"AUROC, misclassified against correctly classified: {auroc}."
        )

    def risk_coverage(self, detector: str) -> tuple[Array, Array]:
        """(N,) shares of images that are accepted, the least suspicious first, and of these the share that is wrong."""
        order = self.scores[detector].argsort(kind="stable")
        accepted = np.arange(1, len(order) + 1)
        return accepted / len(order), self.wrong[order].cumsum() / accepted

    @property
    def further(self) -> dict[str, Callable[[Any], None]]:
        return {"risk-coverage": self.plot_risk_coverage}

    def plot(self, ax: Any) -> None:
        if not len(self.true):
            ax.text(0.5, 0.5, "no image is misclassified", ha="center", va="center")
            ax.set_axis_off()
            return
        few = slice(0, self.shown)
        images = np.stack([self.originals[few], self.as_predicted[few], self.as_true[few]])
        names = [short(name) for name in self.classes]
        said = zip(self.true[few], self.predicted[few], self.confidence[few], strict=True)
        below = zip(self.energy_predicted[few], self.energy_true[few], strict=True)
        show(
            ax,
            images,
            rows=("image", "drawn as predicted", "drawn as true label"),
            columns=[f"is {names[true]}\nread as {names[label]}\n{sure:.0%} sure" for true, label, sure in said],
            below=[f"E = {wrong:.1f}\nagainst {right:.1f}" for wrong, right in below],
        )

    def plot_risk_coverage(self, ax: Any) -> None:
        """Share of errors among the accepted images against how many are accepted (Geifman & El-Yaniv 2017)."""
        for name, colour, line in zip(self.scores, plots.COLOURS, plots.LINES, strict=False):
            ax.plot(*self.risk_coverage(name), color=colour, linestyle=line, label=name)
        ax.set(xlabel="coverage: share of the test images that is accepted", ylabel="share of these that is wrong")
        ax.set(xlim=(0, 1), ylim=(0, None))
        ax.grid(alpha=0.25)
        ax.legend(frameon=False)


def misclassified(
    model: EnergyModel, data: Dataset, detectors: Sequence[str] = tuple(SCORES), shown: int = 8, seed: int = 0
) -> Misclassified:
    """Draw every misclassified test image under the predicted and under the true label; `shown` are drawn from `seed`.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, figures 5 and 6;
    Y. Geifman, R. El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017, for risk and coverage.

    Args:
        detectors: what `DefendedClassifier` takes, by name.

    Raises:
        InputError: a model without a decoder or for other data, or an unknown detector.
    """
    network = checked(model, data)
    seen = encode(network, data.test)
    costs = energies(network, seen.x)
    sure = softmax(seen.logits, axis=1).max(1)
    scores = {name: _scores(network, name, seen.x) for name in detectors}
    wrong = np.random.default_rng(seed).permutation(np.flatnonzero(~seen.right))
    predicted, true = seen.predicted[wrong], seen.y[wrong]
    return Misclassified(
        seen.x[wrong],
        decode(network, predicted, seen.style[wrong]),
        decode(network, true, seen.style[wrong]),
        predicted,
        true,
        sure[wrong],
        costs[wrong, predicted],
        costs[wrong, true],
        data.classes,
        ~seen.right,
        {**scores, "confidence": -sure},
        shown,
    )


def _scores(model: EnergyModel, detector: str, x: Array) -> Array:
    """(N,) scores of images (N, C, H, W)."""
    defended, place = DefendedClassifier(model, detector), device_of(model)
    with evaluating(model):
        (scores,) = batched(lambda part: (defended.score(part.to(place)).cpu(),), torch.as_tensor(x))
    return np.asarray(scores.numpy())
