"""The style of one image under every other label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bench.suite_plots import HEAT
from ..data import Dataset
from ..models import EnergyModel
from .base import Array, Drawable, Measure, checked, decode, encode, short, show
from .judge import Judge


@dataclass(frozen=True)
class StyleTransfer(Drawable):
    """An image of each class drawn under every label in its own style, and whether those are taken for that label.

    Attributes:
        originals: (K, C, H, W) a test image of each class, classified correctly.
        drawings: (K, K, C, H, W) the style of row k under the label of the column.
        names: (K,) the classes.
        obeyed: (K, K) share of styles of the row's class whose drawing under the column's label an independent
            network takes for that label; NaN where there is no image of the class.
        n: how many test images these shares are of.
    """

    originals: Array
    drawings: Array
    names: tuple[str, ...]
    obeyed: Array
    n: int

    @property
    def measures(self) -> dict[str, Measure]:
        own = np.eye(len(self.names), dtype=bool)
        return {
            "transfers_of_the_asked_class": Measure(float(np.nanmean(self.obeyed[~own])), self.n),
            "drawings_of_the_own_class": Measure(float(np.nanmean(self.obeyed[own])), self.n),
        }

    @property
    def caption(self) -> str:
        asked = self.measures["transfers_of_the_asked_class"].value
        source, label = np.unravel_index(np.nanargmin(self.obeyed), self.obeyed.shape)
        return (
            "First a test image of each class, then its style drawn under every label. An independent network takes "
            f"{asked:.1%} of transfers between classes for the asked-for label (n = {self.n:,} images under every "
            f"label); least, {self.obeyed[source, label]:.1%}, those of {self.names[source]} as {self.names[label]}."
        )

    @property
    def further(self) -> dict[str, Callable[[Any], None]]:
        return {"shares": self.plot_shares}

    def plot(self, ax: Any) -> None:
        across = np.concatenate([self.originals[:, None], self.drawings], axis=1)
        show(ax, across, rows=self.names, columns=("image", *self.names))

    def plot_shares(self, ax: Any) -> None:
        """Which class a style comes from against which label it is drawn under: the share that is taken for that."""
        picture = ax.imshow(self.obeyed, cmap=HEAT, vmin=0, vmax=1)
        ticks = range(len(self.names))
        ax.set_xticks(ticks, self.names)
        ax.set_yticks(ticks, self.names)
        ax.set(xlabel="drawn under the label", ylabel="style of an image of class")
        ax.figure.colorbar(picture, ax=ax, label="taken for that label")
        if len(self.names) <= 12:
            for (row, column), share in np.ndenumerate(self.obeyed):
                colour = "black" if share > 0.5 else "white"
                ax.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=6, color=colour)


def style_transfer(model: EnergyModel, data: Dataset, judge: Judge, n: int = 2000, seed: int = 0) -> StyleTransfer:
    """Draw n random test images under every label in their own style, and let `judge` say what it sees.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, for the idea.

    Args:
        judge: a classifier that was trained apart from the model, see `train_judge`.

    Raises:
        InputError: a model without a decoder, or one for other data.
    """
    network = checked(model, data)
    seen = encode(network, data.test)
    labels = np.arange(data.n_classes)
    chosen = np.random.default_rng(seed).permutation(len(seen.y))[:n]
    asked = np.tile(labels, len(chosen))
    drawn = decode(network, asked, seen.style[chosen].repeat(len(labels), axis=0))
    taken = (judge(drawn)[0] == asked).reshape(len(chosen), -1)
    of_class = seen.y[chosen][None] == labels[:, None]
    with np.errstate(invalid="ignore"):
        obeyed = of_class.astype(float) @ taken / of_class.sum(1, keepdims=True)
    shown = np.array([chosen[np.argmax((seen.y[chosen] == k) & seen.right[chosen])] for k in labels])
    sheet = decode(network, np.tile(labels, len(labels)), seen.style[shown].repeat(len(labels), axis=0))
    return StyleTransfer(
        seen.x[shown],
        sheet.reshape(len(labels), len(labels), *data.image_shape),
        tuple(map(short, data.classes)),
        obeyed,
        len(chosen),
    )
