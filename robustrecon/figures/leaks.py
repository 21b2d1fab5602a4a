"""How much of the class the style memory holds, which the paper calls not fully class-agnostic."""

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

READ, EXPLAINED = "class read from the style", "lowest energy is the true label's"


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
            f"{what}_{name}": Measure.share(flags)
            for what, of_models in (("class_read_from_style", self.probe), ("lowest_energy_is_true", self.explained))
            for name, flags in zip(self.names, of_models, strict=True)
        }

    @property
    def caption(self) -> str:
        return (
            f"n = {self.probe.shape[1]:,} test images. A linear probe of a style memory that told nothing of the class "
            f"would name {self.majority:.1%}, the share of the commonest class (dotted); what it names is a lower "
            "bound of what the style tells. Where the style tells the class, drawings obey their label less, and the "
            "label of the lowest energy is the true one less often; that of a poor drawer is too."
        )

    def plot(self, ax: Any) -> None:
        place = np.arange(len(self.names))
        for index, (label, flags) in enumerate({READ: self.probe, EXPLAINED: self.explained}.items()):
            shares, colour = flags.mean(1), plotting.COLOURS[index]
            bars = ax.bar(place + 0.4 * index, shares, 0.36, color=colour, label=label, hatch="/" * index)
            ax.bar_label(bars, [f"{share:.1%}" for share in shares], fontsize=7)
        ax.axhline(self.majority, color="0.4", linewidth=0.8, linestyle=":")
        ax.set_xticks(
            place + 0.2, [f"{name}\n{dim} style neurons" for name, dim in zip(self.names, self.style_dims, strict=True)]
        )
        ax.set(ylim=(0, 1.1), ylabel="share of the test images")
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.1), ncols=2)


def leakage(models: EnergyModel | Mapping[str, EnergyModel], data: Dataset, seed: int = 0) -> Leakage:
    """Measure how much of the class the style memory of a model, or of several by name, gives away.

    The probe is a logistic regression on the style memories of the calibration part, which no model was trained on:
    G. Alain, Y. Bengio, "Understanding intermediate layers using linear classifier probes", ICLR 2017 workshop.

    Args:
        seed: of the probe.

    Raises:
        InputError: a model without a decoder, or one for other data.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    named = models if isinstance(models, Mapping) else {checked(models, data).name: models}
    probes, explained, dims = [], [], []
    for model in named.values():
        network = checked(model, data)
        known, seen = encode(network, data.calibration), encode(network, data.test)
        regression = LogisticRegression(max_iter=1000, random_state=seed)
        probe = make_pipeline(StandardScaler(), regression).fit(known.style, known.y)
        probes.append(probe.predict(seen.style) == seen.y)
        explained.append(energies(network, seen.x).argmin(1) == seen.y)
        dims.append(network.style_dim)
    counts = np.bincount(data.test.y.numpy())
    return Leakage(
        tuple(named), np.array(dims), np.stack(probes), np.stack(explained), float(counts.max() / counts.sum())
    )
