"""What happened to each image of a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..statistics import Flags
from ..types import InputError
from .fields import Fields, Json, WrongJson, number, whole

Scores: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Images:
    """Labels and scores of n images, each a sequence of length n.

    Attributes:
        y: true labels.
        clean_label, clean_score: what classifier and detector say of the clean images.
        label, score: what they say of the attacked images.
        distance: how far the attack moved each, in the threat model's norm; empty where nobody measured it.

    Raises:
        InputError: no images, or sequences of different lengths.
    """

    y: Sequence[int]
    clean_label: Sequence[int]
    clean_score: Sequence[float]
    label: Sequence[int]
    score: Sequence[float]
    distance: Sequence[float] = ()

    def __post_init__(self) -> None:
        lengths = {len(column) for column in (self.y, self.clean_label, self.clean_score, self.label, self.score)}
        if len(lengths) != 1 or lengths == {0} or len(self.distance) not in (0, *lengths):
            raise InputError("images: must be n > 0 labels and scores each")

    def __len__(self) -> int:
        return len(self.y)

    def to_json(self) -> dict[str, Json]:
        return {each.name: list(getattr(self, each.name)) for each in fields(self)}

    @classmethod
    def from_json(cls, value: object) -> Images:
        """What `to_json` gave.

        Raises:
            WrongJson: it is something else.
        """
        given = Fields(value, "images")
        try:
            return cls(
                y=given.several("y", whole),
                clean_label=given.several("clean_label", whole),
                clean_score=given.several("clean_score", number),
                label=given.several("label", whole),
                score=given.several("score", number),
                distance=given.several("distance", number),
            )
        except InputError as error:
            raise WrongJson(str(error)) from error

    def flags(self, threshold: float) -> ImageFlags:
        """What is true of each image, for a detector that rejects scores above `threshold`."""
        y, clean_label, label = (np.asarray(column) for column in (self.y, self.clean_label, self.label))
        rejected, caught = (as_scores(column) > threshold for column in (self.clean_score, self.score))
        return ImageFlags(clean_label == y, rejected, label != y, (label != y) & ~caught)


@dataclass(frozen=True)
class ImageFlags:
    """What is true of each of n images, as (n,) booleans.

    Attributes:
        correct: classified correctly when clean.
        rejected: rejected when clean.
        misclassified: a wrong label under attack.
        undetected: a wrong label under attack, and accepted.
    """

    correct: Flags
    rejected: Flags
    misclassified: Flags
    undetected: Flags

    @property
    def broken(self) -> Flags:
        """Successful attacks: classified correctly when clean, wrong under attack."""
        return self.correct & self.misclassified

    @property
    def at_risk_when_clean(self) -> Flags:
        """Wrong or rejected without any attack."""
        return ~self.correct | self.rejected


def as_scores(values: Sequence[float] | Scores) -> Scores:
    """(n,) scores; one that is not a number counts as the most suspicious of all."""
    return np.nan_to_num(np.asarray(values, dtype=np.float64), nan=float(np.finfo(np.float64).max))
