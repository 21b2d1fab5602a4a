"""Style transfer: the style of an image drawn under every label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import plotting
from ..data import Dataset
from ..models import EnergyModel
from .base import Array, Drawable, Measure, Picture, check_count
from .encoding import checked, decode, encode, of_class
from .judge import Judge
from .sheets import short, show


@dataclass(frozen=True)
class StyleTransfer(Drawable):
    """An image of each class drawn under every label in its own style, and how a judge classifies such drawings.

    Attributes:
        originals: (K, C, H, W) one correctly classified test image of each class.
        drawings: (K, K, C, H, W) the style of the row's image under the label of the column.
        names: (K,) the classes.
        y: (N,) classes of the test images whose styles were measured.
        judged: (N, K) the class that the judge sees in the drawing of each style under each label.
        accuracy: the judge's accuracy on test images.
    """

    originals: Array
    drawings: Array
    names: tuple[str, ...]
    y: Array
    judged: Array
    accuracy: float

    @property
    def recognised(self) -> Array:
        """(K, K) share of the row's styles that the judge sees as the column's label; NaN without such styles."""
        hits, of_row = self.judged == self._k, self._k[:, None] == self.y
        with np.errstate(invalid="ignore"):
            return np.asarray(of_row.astype(float) @ hits / of_row.sum(1, keepdims=True))

    @property
    def measures(self) -> dict[str, Measure]:
        own = self.y[:, None] == self._k
        hits, unchanged = self.judged == self._k, self.judged == self.y[:, None]
        others = own.shape[1] - 1
        return {
            "transfers_of_the_asked_class": Measure.mean((hits & ~own).sum(1) / others),
            "transfers_still_of_the_own_class": Measure.mean((unchanged & ~own).sum(1) / others),
            "drawings_of_the_own_class": Measure.share(hits[own]),
        }

    @property
    def _k(self) -> Array:
        return np.arange(len(self.names))

    @property
    def caption(self) -> str:
        m = self.measures
        return (
            "First column: a test image of each class. Other columns: its style drawn under every label. An "
            f"independent classifier (accuracy {self.accuracy:.1%} on test images) recognises the other label in "
            f"{m['transfers_of_the_asked_class'].value:.1%} of the drawings under another label, and the class of the "
            f"image that the style is from in {m['transfers_still_of_the_own_class'].value:.1%} (n = {len(self.y):,} "
            "styles under every label)."
        )

    @property
    def caption_of_shares(self) -> str:
        between = np.where(np.eye(len(self.names), dtype=bool), np.nan, self.recognised)
        source, label = np.unravel_index(np.nanargmin(between), between.shape)
        return (
            f"n = {len(self.y):,} test images, the style of each drawn under every label: the share of the drawings in "
            f"which an independent classifier (accuracy {self.accuracy:.1%} on test images) recognises the label, by "
            f"class of the image (rows) and label (columns). The lowest share, {between[source, label]:.1%}, is of "
            f"styles of {self.names[source]} drawn as {self.names[label]} ({(self.y == source).sum()} styles)."
        )

    @property
    def further(self) -> dict[str, Picture]:
        return {"shares": Picture(self.plot_shares, self.caption_of_shares)}

    def plot(self, ax: Any) -> None:
        sheet = np.concatenate([self.originals[:, None], self.drawings], axis=1)
        show(ax, sheet, rows=self.names, columns=("image", *self.names))

    def plot_shares(self, ax: Any) -> None:
        """Share of drawings in which the judge recognises the label, by class of the style and by label."""
        recognised = self.recognised
        picture = ax.imshow(recognised, cmap=plotting.HEAT, vmin=0, vmax=1)
        ax.set_xticks(self._k, self.names)
        ax.set_yticks(self._k, self.names)
        ax.set(xlabel="drawn under the label", ylabel="style of an image of class")
        ax.figure.colorbar(picture, ax=ax, label="share recognised as that label")
        if len(self.names) <= 12:
            for (row, column), share in np.ndenumerate(recognised):
                colour = "black" if share > 0.5 else "white"
                ax.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=6, color=colour)


def style_transfer(model: EnergyModel, data: Dataset, judge: Judge, n: int = 2000, seed: int = 0) -> StyleTransfer:
    """Draw n random test images under every label in their own style, and let `judge` classify the drawings.

    R. Wiyatno, J. Orchard, "Style Memory: Making a Classifier Network Generative", IEEE ICCI*CC 2018, for the idea.

    Args:
        judge: a classifier that was trained separately from the model; see `train_judge`.

    Raises:
        InputError: a model without a decoder or for other data, or a class without an image to show.
    """
    check_count(n, "n")
    network = checked(model, data)
    encoded = encode(network, data.test)
    labels = np.arange(data.n_classes)
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(encoded.y))[:n]
    shown = np.array([random.choice(of_class(encoded, data.classes, int(k), least=1)) for k in labels])

    def under_every_label(rows: Array) -> Array:
        return decode(network, np.tile(labels, len(rows)), encoded.style[rows].repeat(len(labels), axis=0))

    return StyleTransfer(
        encoded.x[shown],
        under_every_label(shown).reshape(len(labels), len(labels), *data.image_shape),
        tuple(map(short, data.classes)),
        encoded.y[chosen],
        judge.labels(under_every_label(chosen)).reshape(len(chosen), -1),
        judge.accuracy,
    )
