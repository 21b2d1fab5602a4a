"""How much of the class the style memory holds, which the paper calls not fully class-agnostic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bench import plots
from ..data import Dataset
from ..models import EnergyModel
from .base import Array, Drawable, Measure, checked, encode, energies

PROBED = 10_000  # training images that a probe learns from


@dataclass(frozen=True)
class Leakage(Drawable):
    """What a linear probe reads from the style memory, and whether the lowest energy is the true label's, by model.

    Attributes:
        names: (M,) of the models.
        style_dims: (M,).
        probe: (M, N) whether the probe names the class of a test image.
        explained: (M, N) whether its true label has the lowest energy.
        majority: share of the commonest class, which a probe reaches that reads nothing.
    """

    names: tuple[str, ...]
    style_dims: Array
    probe: Array
    explained: Array
    majority: float

    @property
    def measures(self) -> dict[str, Measure]:
        return {
            f"{what}_{name}": Measure.mean(flags)
            for what, of_models in (("class_read_from_style", self.probe), ("lowest_energy_is_true", self.explained))
            for name, flags in zip(self.names, of_models, strict=True)
        }

    @property
    def caption(self) -> str:
        return (
            f"n = {self.probe.shape[1]:,} test images. A linear probe of a style memory that told nothing of the class "
            f"would name {self.majority:.1%}, the share of the commonest class; a network whose style leaves the class "
            "to the label neurons would have the lowest energy under the true label always."
        )

    def plot(self, ax: Any) -> None:
        place = np.arange(len(self.names))
        for shift, (label, flags) in enumerate(
            (
                ("class read from the style by a linear probe", self.probe),
                ("lowest energy is the true label's", self.explained),
            )
        ):
            shares = flags.mean(1)
            bars = ax.bar(place + 0.4 * shift, shares, 0.36, color=plots.COLOURS[shift], label=label, hatch="/" * shift)
            ax.bar_label(bars, [f"{share:.1%}" for share in shares], fontsize=7)
        ax.axhline(self.majority, color="0.4", linewidth=0.8, linestyle=":")
        ax.set_xticks(
            place + 0.2, [f"{name}\n{dim} style neurons" for name, dim in zip(self.names, self.style_dims, strict=True)]
        )
        ax.set(ylim=(0, 1.1), ylabel="share of the test images")
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=2)


def leakage(models: EnergyModel | Mapping[str, EnergyModel], data: Dataset, seed: int = 0) -> Leakage:
    """Measure how much of the class the style memory of a model, or of several by name, gives away.

    The probe is a logistic regression on the style memories of 10,000 training images: G. Alain, Y. Bengio,
    "Understanding intermediate layers using linear classifier probes", ICLR 2017 workshop.

    Raises:
        InputError: a model without a decoder, or one for other data.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    named = models if isinstance(models, Mapping) else {models.name: models}
    probes, explained, dims = [], [], []
    learned = np.random.default_rng(seed).permutation(len(data.train))[:PROBED]
    for model in named.values():
        network = checked(model, data)
        known, seen = encode(network, data.train.pick(learned)), encode(network, data.test)
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(known.style, known.y)
        probes.append(probe.predict(seen.style) == seen.y)
        explained.append(energies(network, seen.x).argmin(1) == seen.y)
        dims.append(network.style_dim)
    counts = np.bincount(data.test.y.numpy())
    return Leakage(
        tuple(named), np.array(dims), np.stack(probes), np.stack(explained), float(counts.max() / counts.sum())
    )
