"""The experiments of the style-memory paper: each a function that returns arrays, which know how to be drawn.

`reconstruction`, `misclassified`, `neighbours`, `interpolation`, `style_transfer` and `leakage` of (model, data).
"""

from __future__ import annotations

from .base import Drawable, Measure, draw
from .interpolation import Interpolation, interpolation
from .judge import Judge, train_judge
from .leakage import Leakage, leakage
from .misclassified import Misclassified, misclassified
from .neighbours import Neighbours, neighbours
from .paper import FIGURES, chosen, make, report
from .reconstruction import Reconstruction, reconstruction
from .style_transfer import StyleTransfer, style_transfer

__all__ = [
    "FIGURES",
    "Drawable",
    "Interpolation",
    "Judge",
    "Leakage",
    "Measure",
    "Misclassified",
    "Neighbours",
    "Reconstruction",
    "StyleTransfer",
    "chosen",
    "draw",
    "interpolation",
    "leakage",
    "make",
    "misclassified",
    "neighbours",
    "reconstruction",
    "report",
    "style_transfer",
    "train_judge",
]
