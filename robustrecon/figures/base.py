"""What every figure is: arrays with measured numbers and pictures of them."""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Callable
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
WIDTH = 9.0  # inches


@dataclass(frozen=True)
class Measure:
    """A number over a whole test set, or over many draws from it.

    Attributes:
        value: the mean, or the share.
        n: of how many.
        spread: standard deviation over these n, of a mean.
        interval: 95 % interval of a share (Clopper-Pearson) or of an AUROC.
    """

    value: float
    n: int
    spread: float | None = None
    interval: tuple[float, float] | None = None

    @staticmethod
    def mean(values: Array) -> Measure:
        """Of values (n,), with their standard deviation."""
        return Measure(float(values.mean()), len(values), float(values.std(ddof=1)) if len(values) > 1 else 0.0)

    @staticmethod
    def share(flags: Array) -> Measure:
        """Of true flags (n,), with its interval."""
        low, high = clopper_pearson(int(flags.sum()), len(flags))
        return Measure(float(flags.mean()), len(flags), interval=(low, high))


class Drawable(ABC):
    """What a figure's function returns: arrays, with what was measured on them and how they are drawn."""

    @property
    @abstractmethod
    def measures(self) -> dict[str, Measure]:
        """The numbers that go into a table, by name."""

    @property
    @abstractmethod
    def caption(self) -> str:
        """What the picture shows, of how many images."""

    @abstractmethod
    def plot(self, ax: Any) -> None:
        """Draw it on matplotlib axes."""

    @property
    def further(self) -> dict[str, Callable[[Any], None]]:
        """Further pictures of the same arrays, by name."""
        return {}


def check_count(value: int, argument: str, least: int = 1) -> None:
    """Raise for a number that is too small."""
    if value < least:
        raise InputError(f"{argument}: got {value}, must be at least {least}")


def draw(figure: Drawable, path: Path, title: str) -> list[Path]:
    """`figure` and its further pictures as PNG and as SVG, each with `title` above it and the caption below.

    Returns the files: `path` with either suffix, and for further pictures with their name before it.
    """
    written = []
    for name, plot in {"": figure.plot, **figure.further}.items():
        with mpl.rc_context({**plotting.STYLE, "svg.hashsalt": title}):
            canvas = Figure(figsize=(WIDTH, 5.5), layout="constrained")
            plot(axes := canvas.subplots())
            canvas.suptitle(title)
            canvas.supxlabel(textwrap.fill(figure.caption, 130), fontsize=8)
            if not axes.axison:
                _fit(canvas, axes)
            stem = f"{path.name}-{name}" if name else path.name
            written += [plotting.write(canvas, path.with_name(stem + suffix)) for suffix in (".png", ".svg")]
    return written


def _fit(canvas: Figure, axes: Axes) -> None:
    """Make the figure of a sheet as high as its images need."""
    height, width = axes.images[0].get_size() if axes.images else (1, 4)
    canvas.set_size_inches(WIDTH, WIDTH * height / width + 1.8)
    canvas.draw_without_rendering()
    unused = axes.get_position(original=True).height - axes.get_position().height
    canvas.set_size_inches(WIDTH, canvas.get_figheight() * (1 - unused))
