"""The key of a cell: everything that decides one measurement, and the file that it is stored in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from .. import attacks
from ..detectors import current_name, former_name
from ..files import slug
from .fields import Fields, Json, WrongJson, json_value

DEFAULT_STEPS = 40  # of attacks that take steps; file names say another number
SHORT = {"float32": "", "bfloat16": "bf16"}  # a precision in titles and file names, which leave out float32


@dataclass(frozen=True)
class CellKey:
    """What decides one measurement. Parameters and detectors that were renamed have their present names.

    Attributes:
        data: the data set's name.
        model: the model's name, its architecture and recipe.
        weights: hash of the model's weights; a model that was trained again is measured again.
        detector: the detector's name.
        attack: the attack's name.
        engine: the library that runs it; None for an attack of the user's own.
        norm, eps: the threat model.
        steps: gradient steps; None where the attack counts none.
        seed: of the attack.
        n: the first n test images.
        alpha: bound on the false-alarm rate that the detector is calibrated to.
        parameters: of the attack, those given beside eps, norm, seed and steps.
        data_fingerprint: hash of the data; None in results stored without one, which match any.
        precision: in which the attack searched, "float32" or "bfloat16".
        correct_only: whether alpha bounds the rate among the images that the model labels right.
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
    parameters: Mapping[str, Json] = field(default_factory=dict)
    data_fingerprint: str | None = None
    precision: str = "float32"
    correct_only: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "detector", current_name(self.detector))
        object.__setattr__(self, "parameters", attacks.current_parameters(self.parameters))

    def to_json(self) -> dict[str, Json]:
        """As stored: without what is as by default of `parameters`, `precision` and `correct_only`."""
        values: dict[str, Json] = {each.name: getattr(self, each.name) for each in fields(self)}
        if not self.parameters:
            del values["parameters"]
        if self.precision == "float32":
            del values["precision"]
        if not self.correct_only:
            del values["correct_only"]
        return values

    @classmethod
    def from_json(cls, value: object) -> CellKey:
        """What `to_json` gave, now or before something was renamed.

        Raises:
            WrongJson: an unknown or missing key, or a value of another type.
        """
        given = Fields(value, "spec")
        unknown = given.values.keys() - {each.name for each in fields(cls)}
        if unknown:
            raise WrongJson(f"spec: unknown key {min(unknown)}")
        precision = given.text("precision") if "precision" in given else "float32"
        if precision not in SHORT:
            raise WrongJson(f"precision: got {precision!r}, must be {' or '.join(SHORT)}")
        return cls(
            data=given.text("data"),
            model=given.text("model"),
            weights=given.text("weights"),
            detector=given.text("detector"),
            attack=given.text("attack"),
            engine=given.maybe_text("engine"),
            norm=given.text("norm"),
            eps=given.number("eps"),
            steps=given.maybe_whole("steps"),
            seed=given.whole("seed"),
            n=given.whole("n"),
            alpha=given.number("alpha"),
            parameters=given.mapping("parameters", json_value) if "parameters" in given else {},
            data_fingerprint=given.maybe_text("data_fingerprint") if "data_fingerprint" in given else None,
            precision=precision,
            correct_only="correct_only" in given and given.flag("correct_only"),
        )

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
        """The cell's file, below the folder of all results.

        Engine, steps, parameters and precision are named unless default.
        """
        return self._path(self.detector, self.parameters)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Where the cell may be stored: its file, and the one under names that it had before, if they differ."""
        old = {new: name for name, new in attacks.RENAMED_PARAMETERS.items()}
        parameters = {old.get(name, name): value for name, value in self.parameters.items()}
        return tuple(dict.fromkeys([self.path, self._path(former_name(self.detector), parameters)]))

    def _path(self, detector: str, parameters: Mapping[str, Json]) -> Path:
        changed = [] if self.steps in (None, DEFAULT_STEPS) else [f"steps={self.steps}"]
        changed += [f"{name}={value}" for name, value in sorted(parameters.items())]
        engine = other_engine(self.attack, self.engine)
        words = [slug(self.attack), *([engine] if engine else []), self.norm, f"{self.eps:.12g}", f"s{self.seed}"]
        precision = [SHORT[self.precision]] if SHORT[self.precision] else []
        return self.folder / slug(detector) / f"{'-'.join([*words, *map(_word, changed), *precision])}.json"

    @property
    def title(self) -> str:
        """What tables and pictures call the attack: `pgd-40`, `pgd-40 restarts=5 bf16`."""
        return attack_title(self.attack, self.engine, self.steps, self.parameter_text, self.precision)

    @property
    def parameter_text(self) -> str:
        """The attack's parameters as text: `early_exit=True restarts=5`."""
        return " ".join(f"{name}={value}" for name, value in sorted(self.parameters.items()))

    @property
    def false_alarms(self) -> str:
        """What reports call the calibration: `0.01`, `0.01 of the images labelled right`."""
        return false_alarms(self.alpha, self.correct_only)

    @property
    def budget(self) -> str:
        """What tables and pictures call the threat model: `linf 0.3`."""
        return budget(self.norm, self.eps)


def attack_title(attack: str, engine: str | None, steps: int | None, parameters: str, precision: str) -> str:
    """An attack with its steps, engine, parameters and precision; without an engine or a precision that is default."""
    other = other_engine(attack, engine)
    words = [f"{attack}-{steps}" if steps else attack, f"by {other}" if other else "", parameters, SHORT[precision]]
    return " ".join(filter(None, words))


def false_alarms(alpha: float, correct_only: bool) -> str:
    """A bound on the false-alarm rate, for a report: `0.01`, `0.01 of the images labelled right`."""
    return f"{alpha:g}{' of the images labelled right' if correct_only else ''}"  # a truth value of numpy, perhaps


def budget(norm: str, eps: float, unseen: bool = False) -> str:
    """A threat model for a table: `linf 0.3`, `linf 8/255`, `linf 0.4 (unseen)`."""
    return f"{norm} {radius(eps)}{' (unseen)' * unseen}"


def radius(eps: float) -> str:
    """A radius for a table: `0.3`; `8/255` for one that is k/255 and not a short decimal."""
    k = round(eps * 255)
    if abs(eps - k / 255) < 1e-7 and float(f"{eps:.4g}") != eps:
        return f"{k}/255"
    return f"{eps:g}"


def other_engine(attack: str, engine: str | None) -> str | None:
    """The engine, where it is not the one that the attack runs on by default."""
    entry = attacks.CATALOGUE.get(attack)
    return None if entry is None or engine in (None, next(iter(entry.engines))) else engine


def _word(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", text)
