"""How much the style memory tells about the class: the paper says that it is not fully class-agnostic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import plotting
from ..data import Dataset
from ..models import EnergyModel
from .base import Array, Drawable, Measure
from .encoding import checked, encode, energies

PROBE, LOWEST = "class predicted from the style by a linear probe", "true label has the lowest energy"


@dataclass(frozen=True)
class Leakage(Drawable):
    """For each of M models: the class as a linear probe predicts it from the style memory, and the lowest energy.

    Attributes:
        names: (M,) of the models.
        style_dims: (M,) how many style neurons they have.
        probe: (M, N) whether the probe predicts the class of a test image correctly.
        lowest: (M, N) whether the true label of a test image has the lowest energy.
        majority: share of the most frequent class: the accuracy of a probe that uses nothing of the style.
    """

    names: tuple[str, ...]
    style_dims: Array
    probe: Array
    lowest: Array
    majority: float

    @property
    def measures(self) -> dict[str, Measure]:
        return {
            f"{what}_{name}": Measure.share(flags)
            for what, of_models in (("class_read_from_style", self.probe), ("lowest_energy_is_true", self.lowest))
            for name, flags in zip(self.names, of_models, strict=True)
        }

    @property
    def caption(self) -> str:
        return (
            f"n = {self.probe.shape[1]:,} test images. If the style told nothing about the class, the probe would be "
            f"correct on {self.majority:.1%}, the share of the most frequent class (dotted line). The probe is linear, "
            "so its accuracy is a lower bound on what the style tells. When the style tells the class, drawings follow "
            "the label less, and the true label has the lowest energy less often. A poor decoder lowers that share too."
        )

    def plot(self, ax: Any) -> None:
        place = np.arange(len(self.names))
        for index, (label, flags) in enumerate({PROBE: self.probe, LOWEST: self.lowest}.items()):
            shares, colour = flags.mean(1), plotting.COLOURS[index]
            bars = ax.bar(place + 0.4 * index, shares, 0.36, color=colour, label=label, hatch="/" * index)
            ax.bar_label(bars, [f"{share:.1%}" for share in shares], fontsize=7)
        ax.axhline(self.majority, color="0.4", linewidth=0.8, linestyle=":")
        ax.set_xticks(
            place + 0.2, [f"{name}\n{dim} style neurons" for name, dim in zip(self.names, self.style_dims, strict=True)]
        )
        ax.set(xlim=(-0.8, len(self.names) + 0.2), ylim=(0, 1.1), ylabel="share of the test images")
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=2)


def leakage(models: EnergyModel | Mapping[str, EnergyModel], data: Dataset, seed: int = 0) -> Leakage:
    """Measure how much the style memory of a model, or of several models by name, tells about the class.

    The probe is a logistic regression on the style memories of the calibration part, on which no model was trained:
    G. Alain, Y. Bengio, "Understanding intermediate layers using linear classifier probes", ICLR 2017 workshop.

    Args:
        seed: random seed of the probe.

    Raises:
        InputError: a model without a decoder, or one for other data.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    named = models if isinstance(models, Mapping) else {checked(models, data).name: models}
    probes, lowest, dims = [], [], []
    for model in named.values():
        network = checked(model, data)
        calibration, test = encode(network, data.calibration), encode(network, data.test)
        regression = LogisticRegression(max_iter=1000, random_state=seed)
        probe = make_pipeline(StandardScaler(), regression).fit(calibration.style, calibration.y)
        probes.append(probe.predict(test.style) == test.y)
        lowest.append(energies(network, test.x).argmin(1) == test.y)
        dims.append(test.style.shape[1])
    counts = np.bincount(data.test.y.numpy())
    return Leakage(tuple(named), np.array(dims), np.stack(probes), np.stack(lowest), float(counts.max() / counts.sum()))
