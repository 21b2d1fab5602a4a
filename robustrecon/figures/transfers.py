"""The style of one image under every other label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import plotting
from ..data import Dataset
from ..models import EnergyModel
from .base import Array, Drawable, Measure, check_count
from .encoding import checked, decode, encode, of_class
from .judge import Judge
from .sheets import short, show


@dataclass(frozen=True)
class StyleTransfer(Drawable):
    """An image of each class drawn under every label in its own style, and what those drawings are taken for.

    Attributes:
        originals: (K, C, H, W) a test image of each class, classified correctly.
        drawings: (K, K, C, H, W) the style of row k under the label of the column.
        names: (K,) the classes.
        y: (N,) classes of the test images whose styles were measured.
        taken: (N, K) what an independent network takes the drawing under each label for.
        accuracy: of that network, on test images.
    """

    originals: Array
    drawings: Array
    names: tuple[str, ...]
    y: Array
    taken: Array
    accuracy: float

    @property
    def obeyed(self) -> Array:
        """(K, K) share of styles of the row's class whose drawing is taken for the column's label; NaN of none."""
        hits, of_row = self.taken == self._k, self._k[:, None] == self.y
        with np.errstate(invalid="ignore"):
            return np.asarray(of_row.astype(float) @ hits / of_row.sum(1, keepdims=True))

    @property
    def measures(self) -> dict[str, Measure]:
        own = self.y[:, None] == self._k
        hits, kept = self.taken == self._k, self.taken == self.y[:, None]
        others = own.shape[1] - 1
        return {
            "transfers_of_the_asked_class": Measure.mean((hits & ~own).sum(1) / others),
            "transfers_still_of_the_own_class": Measure.mean((kept & ~own).sum(1) / others),
            "drawings_of_the_own_class": Measure.share(hits[own]),
        }

    @property
    def _k(self) -> Array:
        return np.arange(len(self.names))

    @property
    def caption(self) -> str:
        m = self.measures
        between = np.where(np.eye(len(self.names), dtype=bool), np.nan, self.obeyed)
        source, label = np.unravel_index(np.nanargmin(between), between.shape)
        return (
            "First a test image of each class, then its style drawn under every label. An independent network "
            f"({self.accuracy:.1%} right on test images) takes {m['transfers_of_the_asked_class'].value:.1%} of "
            f"transfers to other labels for what was asked for and {m['transfers_still_of_the_own_class'].value:.1%} "
            f"for the class that the style came from (n = {len(self.y):,} styles under every label); least obeyed, "
            f"{between[source, label]:.1%}, are styles of {self.names[source]} drawn as {self.names[label]} "
            f"({(self.y == source).sum()} styles)."
        )

    @property
    def further(self) -> dict[str, Callable[[Any], None]]:
        return {"shares": self.plot_shares}

    def plot(self, ax: Any) -> None:
        across = np.concatenate([self.originals[:, None], self.drawings], axis=1)
        show(ax, across, rows=self.names, columns=("image", *self.names))

    def plot_shares(self, ax: Any) -> None:
        """Which class a style comes from against which label it is drawn under: the share that is taken for that."""
        obeyed = self.obeyed
        picture = ax.imshow(obeyed, cmap=plotting.HEAT, vmin=0, vmax=1)
        ax.set_xticks(self._k, self.names)
        ax.set_yticks(self._k, self.names)
        ax.set(xlabel="drawn under the label", ylabel="style of an image of class")
        ax.figure.colorbar(picture, ax=ax, label="taken for that label")
        if len(self.names) <= 12:
            for (row, column), share in np.ndenumerate(obeyed):
                colour = "black" if share > 0.5 else "white"
                ax.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=6, color=colour)


def style_transfer(model: EnergyModel, data: Dataset, judge: Judge, n: int = 2000, seed: int = 0) -> StyleTransfer:
    """Draw n random test images under every label in their own style, and let `judge` say what it sees.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, for the idea.

    Args:
        judge: a classifier that was trained apart from the model, see `train_judge`.

    Raises:
        InputError: a model without a decoder or for other data, or a class without an image to show.
    """
    check_count(n, "n")
    network = checked(model, data)
    seen = encode(network, data.test)
    labels = np.arange(data.n_classes)
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(len(seen.y))[:n]
    shown = np.array([draw.choice(of_class(seen, data.classes, int(k), least=1)) for k in labels])

    def under_every_label(rows: Array) -> Array:
        return decode(network, np.tile(labels, len(rows)), seen.style[rows].repeat(len(labels), axis=0))

    return StyleTransfer(
        seen.x[shown],
        under_every_label(shown).reshape(len(labels), len(labels), *data.image_shape),
        tuple(map(short, data.classes)),
        seen.y[chosen],
        judge.labels(under_every_label(chosen)).reshape(len(chosen), -1),
        judge.accuracy,
    )
