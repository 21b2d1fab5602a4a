"""A cell: everything that decides one measurement, and the file that it is stored in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import attacks
from ..files import slug

STEPS = 40  # of attacks that take steps; file names say another number


@dataclass(frozen=True)
class CellKey:
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
        parameters: of the attack, those given beside eps, norm, seed and steps.
        data_fingerprint: hash of the data; None in results stored without one, which stand for any.
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
    parameters: Mapping[str, Any] = field(default_factory=dict)
    data_fingerprint: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """As stored: without `parameters` where there are none."""
        return {key: value for key, value in asdict(self).items() if key != "parameters" or value}

    @property
    def folder(self) -> Path:
        """Where the results for this data and model are, below the folder of all results."""
        return self.folder_of(self.data, self.model)

    @staticmethod
    def folder_of(data: str, model: str) -> Path:
        """That of any data and model."""
        return Path(slug(data)) / slug(model)

    @property
    def path(self) -> Path:
        """The cell's file, below the folder of all results; engine, steps and parameters are named unless default."""
        changed = [] if self.steps in (None, STEPS) else [f"steps={self.steps}"]
        changed += [f"{key}={value}" for key, value in sorted(self.parameters.items())]
        words = [slug(self.attack), *_engine(self.as_dict()), self.norm, f"{self.eps:.12g}", f"s{self.seed}"]
        return self.folder / slug(self.detector) / f"{'-'.join([*words, *map(_word, changed)])}.json"


def attack_title(spec: Mapping[str, Any]) -> str:
    """How tables and pictures call the attack of a stored spec: `pgd-40`, `pgd-40 restarts=5`."""
    name = f"{spec['attack']}-{spec['steps']}" if spec["steps"] else str(spec["attack"])
    given = [f"{key}={value}" for key, value in sorted(spec.get("parameters", {}).items())]
    return " ".join([name, *(f"by {engine}" for engine in _engine(spec)), *given])


def budget(spec: Mapping[str, Any]) -> str:
    """How tables and pictures call the threat model of a stored spec: `linf 0.3`."""
    return f"{spec['norm']} {spec['eps']:g}"


def _engine(spec: Mapping[str, Any]) -> list[str]:
    """The engine, where it is not the one that the attack runs on by default."""
    entry, engine = attacks.CATALOGUE.get(spec["attack"]), spec["engine"]
    return [] if entry is None or engine in (None, next(iter(entry.engines))) else [engine]


def _word(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", text)
