"""Figures 5 and 6 of the paper: misclassified images, reconstructed as predicted and under the true label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata
from torch import Tensor

from .. import plotting
from ..data import Dataset
from ..defence import DefendedClassifier, fit_to
from ..detectors import DETECTORS, Detector, Evidence, applicable, parts
from ..models import EnergyModel
from ..types import unknown_name
from .base import Array, Drawable, Measure, Picture, check_count
from .encoding import checked, decode, encode, evaluated
from .sheets import short, show


@dataclass(frozen=True)
class Misclassified(Drawable):
    """Every misclassified test image with two reconstructions, and how well scores separate them from all others.

    Attributes:
        indices: (M,) of the misclassified images, in random order.
        originals: (M, C, H, W) the misclassified images.
        as_predicted, as_true: (M, C, H, W) reconstructions from the network's own output, and under the true label.
        confidence: (M,) softmax probability of the predicted label.
        energies: (N, K) class energies of all test images.
        y, labels: (N,) true and predicted labels.
        classes: (K,) the class names.
        scores: by detector, (N,) higher is more suspicious.
        shown: how many of the misclassified images the sheet shows.
    """

    indices: Array
    originals: Array
    as_predicted: Array
    as_true: Array
    confidence: Array
    energies: Array
    y: Array
    labels: Array
    classes: tuple[str, ...]
    scores: dict[str, Array]
    shown: int

    @property
    def wrong(self) -> Array:
        """(N,) whether the image is misclassified."""
        return np.asarray(self.labels != self.y)

    @property
    def measures(self) -> dict[str, Measure]:
        wrong = self.wrong
        if not wrong.any() or wrong.all():
            return {"misclassified": Measure.share(wrong)}
        rows = np.arange(len(wrong))
        of_true, of_predicted = self.energies[rows, self.y], self.energies[rows, self.labels]
        best = self.energies.argmin(1)
        return {
            "misclassified": Measure.share(wrong),
            "true_label_explains_misclassified_better": Measure.share((of_true < of_predicted)[wrong]),
            "true_label_explains_misclassified_best": Measure.share((best == self.y)[wrong]),
            "another_label_explains_correct_better": Measure.share((best != self.labels)[~wrong]),
            **{f"auroc_{name}": auroc(scores[~wrong], scores[wrong]) for name, scores in self.scores.items()},
            **{f"aurc_{name}": Measure(self.risk_coverage(name)[1].mean(), len(wrong)) for name in self.scores},
        }

    @property
    def caption(self) -> str:
        m = self.measures
        if len(m) == 1:
            return f"{m['misclassified'].value:.2%} of n = {len(self.y):,} test images are misclassified."
        better = m["true_label_explains_misclassified_better"]
        low, high = better.interval or (0, 1)
        return (
            f"Of n = {len(self.y):,} test images {better.n} are misclassified. For {better.value:.1%} [{low:.1%}, "
            f"{high:.1%}] of these the true label has a lower energy E than the predicted one; for "
            f"{m['another_label_explains_correct_better'].value:.1%} of the correctly classified images another label "
            "has a lower energy. E is the class energy: the lower, the better a label explains the image. p is the "
            "softmax probability of the predicted label."
        )

    @property
    def caption_of_risk_coverage(self) -> str:
        m = self.measures
        found = [f"{name} {m[f'auroc_{name}'].value:.3f}" for name in self.scores if f"auroc_{name}" in m]
        return (
            f"n = {len(self.y):,} test images, accepted in the order of a detector's score, the least suspicious "
            f"first; {m['misclassified'].value:.2%} of all are misclassified."
            + (f" AUROC of misclassified against correctly classified images: {', '.join(found)}." if found else "")
        )

    def risk_coverage(self, detector: str) -> tuple[Array, Array]:
        """Coverage (N,), the share of accepted images, least suspicious first, and risk (N,), the share of errors."""
        order = self.scores[detector].argsort(kind="stable")
        accepted = np.arange(1, len(order) + 1)
        return accepted / len(order), self.wrong[order].cumsum() / accepted

    @property
    def further(self) -> dict[str, Picture]:
        return {"risk-coverage": Picture(self.plot_risk_coverage, self.caption_of_risk_coverage)}

    def plot(self, ax: Any) -> None:
        if not len(self.indices):
            ax.text(0.5, 0.5, "no image is misclassified", ha="center", va="center")
            ax.set_axis_off()
            return
        first = slice(0, self.shown)
        names = [short(name) for name in self.classes]
        rows, confidence = self.indices[first], self.confidence[first]
        true, label = self.y[rows], self.labels[rows]
        show(
            ax,
            np.stack([self.originals[first], self.as_predicted[first], self.as_true[first]]),
            rows=("image", "as predicted", "under true label"),
            columns=[
                f"true {names[t]}\npredicted {names[k]}\np = {p:.0%}"
                for t, k, p in zip(true, label, confidence, strict=True)
            ],
            below=[
                f"E[{names[k]}] = {wrong:.1f}\nE[{names[t]}] = {right:.1f}"
                for k, t, wrong, right in zip(
                    label, true, self.energies[rows, label], self.energies[rows, true], strict=True
                )
            ],
        )

    def plot_risk_coverage(self, ax: Any) -> None:
        """Share of errors among the accepted images against how many are accepted (Geifman & El-Yaniv 2017)."""
        for index, (name, width) in enumerate(zip(self.scores, plotting.widths(len(self.scores)), strict=True)):
            colour, line = plotting.COLOURS[index % len(plotting.COLOURS)], plotting.LINES[index % len(plotting.LINES)]
            ax.plot(*self.risk_coverage(name), color=colour, linestyle=line, linewidth=width, label=name)
        ax.set(xlabel="coverage: share of test images accepted", ylabel="risk: share of these that are misclassified")
        ax.set(xlim=(0, 1), ylim=(0, None))
        ax.grid(alpha=0.25)
        ax.legend(frameon=False)


def misclassified(
    model: EnergyModel, data: Dataset, detectors: Sequence[str] | None = None, shown: int = 8, seed: int = 0
) -> Misclassified:
    """Reconstruct every misclassified test image as predicted and under its true label; a random few are shown.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, figures 5 and 6;
    Y. Geifman, R. El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017, for risk and coverage.

    Args:
        detectors: names of `robustrecon.detectors.DETECTORS`; by default those whose methods the model has and that
            need no training images. One that needs them learns from those of the data.
        shown: how many misclassified images the sheet shows.

    Raises:
        InputError: a model without a decoder or for other data, or an unknown detector.
    """
    for name in detectors or ():
        if name not in DETECTORS:
            unknown_name("detector", name, DETECTORS)
    check_count(shown, "shown")
    network = checked(model, data)
    encoded = encode(network, data.test)
    class_energies, scores = _energies_and_scores(network, data, detectors or applicable(network))
    wrong = np.random.default_rng(seed).permutation(np.flatnonzero(~encoded.correct))
    probabilities = encoded.probabilities[wrong]
    return Misclassified(
        wrong,
        encoded.x[wrong],
        decode(network, probabilities, encoded.style[wrong]),
        decode(network, encoded.y[wrong], encoded.style[wrong]),
        probabilities.max(1, initial=0),
        class_energies,
        encoded.y,
        encoded.predicted,
        data.classes,
        scores,
        shown,
    )


def _energies_and_scores(model: EnergyModel, data: Dataset, names: Sequence[str]) -> tuple[Array, dict[str, Array]]:
    """The class energies (N, K) of the test images and, by detector, their scores (N,), from one pass."""
    detectors: list[Detector] = []
    for name in names:
        defended = DefendedClassifier(model, DETECTORS[name]())
        fit_to(defended, data)
        detectors += parts(defended.detector)

    def judge(part: Tensor) -> tuple[Tensor, ...]:
        evidence = Evidence(model, part, with_energies=True)
        return evidence.energies, *(detector.score(evidence) for detector in detectors)

    energies, *scores = evaluated(model, judge, data.test.x)
    return energies, dict(zip(names, scores, strict=True))


def auroc(negative: Array, positive: Array) -> Measure:
    """The AUROC of scores that are higher for positives, with its 95 % interval; n is the number of positives.

    E. DeLong, D. DeLong, D. Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating
    Characteristic Curves", Biometrics 1988.
    """
    n, m = len(negative), len(positive)
    ranks = rankdata(np.concatenate([negative, positive]))
    above = (ranks[n:] - rankdata(positive)) / n  # share of negatives below each positive
    below = 1 - (ranks[:n] - rankdata(negative)) / m  # share of positives above each negative
    value = float(above.mean())
    variance = sum(part.var(ddof=1) / len(part) for part in (above, below) if len(part) > 1)
    half_width = float(norm.ppf(0.975) * np.sqrt(variance))
    return Measure(value, m, interval=(max(0.0, value - half_width), min(1.0, value + half_width)))
