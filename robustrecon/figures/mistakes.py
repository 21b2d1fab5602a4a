"""Figures 5 and 6 of the paper: misclassified images, reconstructed as predicted and under the true label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import norm, rankdata

from .. import plotting
from ..data import Dataset
from ..detectors import SCORES, wants_redrawn
from ..models import EnergyModel
from ..types import unknown_name
from .base import Array, Drawable, Measure, check_count
from .encoding import checked, decode, encode, energies, logits_of
from .sheets import short, show

CONFIDENCE = "confidence"  # name of the classifier's own score, which is compared with the detectors


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
        scores: by detector, (N,) higher is more suspicious. `confidence` is the log odds against the predicted label.
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
        found = ", ".join(f"{name} {m[f'auroc_{name}'].value:.3f}" for name in self.scores)
        return (
            f"Of n = {len(self.y):,} test images {better.n} are misclassified. For {better.value:.1%} [{low:.1%}, "
            f"{high:.1%}] of these the true label has a lower energy E than the predicted one; for "
            f"{m['another_label_explains_correct_better'].value:.1%} of the correctly classified images another label "
            f"has a lower energy. AUROC of misclassified against correctly classified images: {found}. p is the "
            "softmax probability of the predicted label."
        )

    def risk_coverage(self, detector: str) -> tuple[Array, Array]:
        """Coverage (N,), the share of accepted images, least suspicious first, and risk (N,), the share of errors."""
        order = self.scores[detector].argsort(kind="stable")
        accepted = np.arange(1, len(order) + 1)
        return accepted / len(order), self.wrong[order].cumsum() / accepted

    @property
    def further(self) -> dict[str, Callable[[Any], None]]:
        return {"risk-coverage": self.plot_risk_coverage}

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
        for index, name in enumerate(self.scores):
            colour, line = plotting.COLOURS[index % len(plotting.COLOURS)], plotting.LINES[index % len(plotting.LINES)]
            ax.plot(*self.risk_coverage(name), color=colour, linestyle=line, label=name)
        ax.set(xlabel="coverage: share of test images accepted", ylabel="risk: share of these that are misclassified")
        ax.set(xlim=(0, 1), ylim=(0, None))
        ax.grid(alpha=0.25)
        ax.legend(frameon=False)


def misclassified(
    model: EnergyModel, data: Dataset, detectors: Sequence[str] = tuple(SCORES), shown: int = 8, seed: int = 0
) -> Misclassified:
    """Reconstruct every misclassified test image as predicted and under its true label; a random few are shown.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, figures 5 and 6;
    Y. Geifman, R. El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017, for risk and coverage.

    Args:
        detectors: names of `robustrecon.detectors.SCORES`.
        shown: how many misclassified images the sheet shows.

    Raises:
        InputError: a model without a decoder or for other data, or an unknown detector.
    """
    for name in detectors:
        if name not in SCORES:
            unknown_name("detector", name, SCORES)
    check_count(shown, "shown")
    network = checked(model, data)
    encoded = encode(network, data.test)
    class_energies = energies(network, encoded.x)
    redrawn_logits = logits_of(network, decode(network, encoded.predicted, encoded.style))
    scores = _detector_scores(detectors, class_energies, encoded.logits, redrawn_logits)
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
        {**scores, CONFIDENCE: _log_odds_against(encoded.logits)},
        shown,
    )


def _detector_scores(names: Sequence[str], energies: Array, logits: Array, redrawn_logits: Array) -> dict[str, Array]:
    """By detector, the (N,) scores of images with these class energies, logits and logits of their reconstructions."""
    evidence = [torch.as_tensor(values) for values in (energies, logits, redrawn_logits)]
    return {name: SCORES[name](*evidence[: 3 if wants_redrawn(SCORES[name]) else 2]).numpy() for name in names}


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


def _log_odds_against(logits: Array) -> Array:
    """(N,) log odds against the predicted label; unlike its probability, they do not saturate at 1."""
    exact = logits.astype(np.float64)
    top = exact.max(1, keepdims=True)
    others = np.where(np.arange(exact.shape[1]) == exact.argmax(1)[:, None], -np.inf, exact)
    return np.asarray(logsumexp(others, axis=1) - top[:, 0])
