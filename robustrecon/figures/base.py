"""What every figure is: arrays with measured numbers and pictures of them."""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .. import plotting
from ..statistics import clopper_pearson
from ..types import InputError

Array: TypeAlias = NDArray[Any]
WIDTH = 7.0  # inches, as of the text on a page, so that letters are printed in their size
LETTERS = 100  # of a line of a caption
DPI = 170


@dataclass(frozen=True)
class Measure:
    """A number that was measured on n test images, or on n pairs of them.

    Attributes:
        value: a mean, a share or an AUROC.
        n: how many images or pairs it is of.
        spread: standard deviation of the n values; of a mean only.
        interval: 95 % confidence interval, of a share (Clopper-Pearson) or an AUROC (DeLong) only.
    """

    value: float
    n: int
    spread: float | None = None
    interval: tuple[float, float] | None = None

    @staticmethod
    def mean(values: Array) -> Measure:
        """The mean of values (n,), with their standard deviation."""
        return Measure(float(values.mean()), len(values), float(values.std(ddof=1)) if len(values) > 1 else 0.0)

    @staticmethod
    def share(flags: Array) -> Measure:
        """The share of flags (n,) that are true, with its 95 % interval."""
        low, high = clopper_pearson(int(flags.sum()), len(flags))
        return Measure(float(flags.mean()), len(flags), interval=(low, high))


@dataclass(frozen=True)
class Picture:
    """A further picture of a figure's arrays: how it is drawn on matplotlib axes, and its caption."""

    plot: Callable[[Any], None]
    caption: str


class Drawable(ABC):
    """What a figure's function returns: arrays, with the numbers measured on them and how to draw them."""

    @property
    @abstractmethod
    def measures(self) -> dict[str, Measure]:
        """The measured numbers by name, as `figures.json` and the tables have them."""

    @property
    @abstractmethod
    def caption(self) -> str:
        """What the picture shows, and on how many images the numbers in it were measured."""

    @abstractmethod
    def plot(self, ax: Any) -> None:
        """Draw the picture on matplotlib axes."""

    @property
    def further(self) -> dict[str, Picture]:
        """Further pictures of the same arrays, by name."""
        return {}


def check_count(value: int, argument: str, least: int = 1) -> None:
    """Raise for a number that is too small."""
    if value < least:
        raise InputError(f"{argument}: got {value}, must be at least {least}")


def draw(figure: Drawable, path: Path, title: str, suffixes: Sequence[str] = (".png", ".svg")) -> list[Path]:
    """Write `figure` and its further pictures, each with `title` above it and its caption below.

    Args:
        path: of the pictures, without a suffix; the names of further pictures are appended to it.
        suffixes: of the files, one for each kind: PNG and SVG by default.

    Returns:
        The files that were written.
    """
    written = []
    for name, picture in {"": Picture(figure.plot, figure.caption), **figure.further}.items():
        with mpl.rc_context({**plotting.STYLE, "svg.hashsalt": title}):
            canvas = Figure(figsize=(WIDTH, 4.8), dpi=DPI, layout="constrained")
            picture.plot(axes := canvas.subplots())
            canvas.suptitle(title, fontsize=10)
            canvas.supxlabel(textwrap.fill(picture.caption, LETTERS), fontsize=8)
            if not axes.axison:
                _fit(canvas, axes)
            elif axes.images:  # of a fixed shape, which constrained layout does not centre
                canvas.set_layout_engine("compressed")
            stem = f"{path.name}-{name}" if name else path.name
            written += [plotting.write(canvas, path.with_name(stem + suffix)) for suffix in suffixes]
    return written


def _fit(canvas: Figure, axes: Axes) -> None:
    """Give the canvas of a sheet of images the height that the images need."""
    height, width = axes.images[0].get_size() if axes.images else (1, 4)
    canvas.set_size_inches(WIDTH, WIDTH * height / width + 1.8)
    canvas.draw_without_rendering()
    unused = axes.get_position(original=True).height - axes.get_position().height
    canvas.set_size_inches(WIDTH, canvas.get_figheight() * (1 - unused))
