"""A cell: everything that decides one measurement, and the file that it is stored in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..files import slug


@dataclass(frozen=True)
class Spec:
    """One measurement.

    Attributes:
        data: the data set's name.
        model: the model's name, its architecture and recipe.
        weights: hash of the model's weights; a model trained anew is measured anew.
        detector: the score's name.
        attack: the attack's name.
        engine: the library that runs it; None for an attack of the user's own.
        norm, eps: the threat model.
        steps: gradient steps; None where the attack counts none.
        seed: of the attack.
        n: the first n test images.
        alpha: bound on the false-alarm rate that the detector is calibrated to.
    """

    data: str
    model: str
    weights: str
    detector: str
    attack: str
    engine: str | None
    norm: str
    eps: float
    steps: int | None
    seed: int
    n: int
    alpha: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def folder(self) -> Path:
        """Where the results for this data and model are, below the folder of all results."""
        return Path(slug(self.data)) / slug(self.model)

    @property
    def path(self) -> Path:
        """The cell's file, below the folder of all results."""
        name = f"{slug(self.attack)}-{self.norm}-{self.eps:.12g}-s{self.seed}.json"
        return self.folder / slug(self.detector) / name


def attack_title(spec: Mapping[str, Any]) -> str:
    """How tables and pictures call the attack of a stored spec: `pgd-40`."""
    return f"{spec['attack']}-{spec['steps']}" if spec["steps"] else str(spec["attack"])


def budget(spec: Mapping[str, Any]) -> str:
    """How tables and pictures call the threat model of a stored spec: `linf 0.3`."""
    return f"{spec['norm']} {spec['eps']:g}"
