"""What is to be measured: attacks with their budgets and parameters, checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

from .. import attacks
from .. import detectors as known_detectors
from ..types import InputError, check_fraction, unknown_name
from .fields import Json, json_value
from .key import DEFAULT_STEPS, CellKey

if TYPE_CHECKING:
    from ..detectors import AnyOf, Detector, Score

IN_THE_KEY = ("eps", "norm", "seed", "precision")  # said once, not among an attack's parameters


@dataclass(frozen=True)
class AttackConfig:
    """An attack that is to be run; plain values, so that it can be sent to another process.

    Attributes:
        name: of `attacks.CATALOGUE`, or `module:factory`.
        eps, norm: the threat model.
        engine: the library that runs it; None for the attack's own default.
        seed: of the attack.
        n: the first n test images.
        parameters: others, of the attack: steps, restarts, ...
        precision: in which the attack searches, one of `attacks.PRECISIONS`; "auto" is what is fastest on this machine.

    Raises:
        InputError: an unknown name or a value out of range, as far as it can be told without importing torch;
            `attack` raises the rest.
    """

    name: str
    eps: float
    norm: str = "linf"
    engine: str | None = None
    seed: int = 0
    n: int = 1000
    parameters: Mapping[str, Json] = field(default_factory=dict)
    precision: str = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise InputError(f"n: got {self.n!r}, must be at least 1")
        for name in IN_THE_KEY:
            if name in self.parameters:
                raise InputError(f"parameters: got {name}, which is said beside them, as {name} of all attacks")
        if self.precision not in attacks.PRECISIONS:
            unknown_name("precision", self.precision, attacks.PRECISIONS)
        attacks.engine_of(self.name, self.engine)
        attacks.threat_model(self.norm, self.eps)
        object.__setattr__(self, "parameters", attacks.current_parameters(self.parameters))

    def __getstate__(self) -> dict[str, object]:
        """The attack itself is not sent to another process, which makes its own."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @cached_property
    def attack(self) -> attacks.Attack:
        """The attack, made once.

        Raises:
            InputError: an unknown name or a value out of range, or an attack whose goal is no wrong label.
        """
        values = {"eps": self.eps, "norm": self.norm, "seed": self.seed, **self.parameters}
        try:
            attack = attacks.load(self.name, self.engine, **values).with_precision(self.precision)
        except TypeError as error:
            given = dict(self.parameters)
            raise InputError(f"parameters: got {given}, {self.name} cannot be made with them ({error})") from error
        if attack.supported_goals == (attacks.Rejected,):
            raise InputError(
                f"attack: got {self.name}, whose goal is a rejection, must be one whose goal is a wrong label; "
                "robustrecon.bench.forced_rejection measures rejections"
            )
        return attack

    @property
    def engine_name(self) -> str | None:
        """The library that runs it; None for an attack of the user's own."""
        return attacks.engine_of(self.name, self.engine)

    @property
    def steps(self) -> int | None:
        """Gradient steps; None where the attack counts none."""
        if not _has_steps(self.name, self.engine):
            return None
        steps = self.parameters.get("steps", getattr(self.attack, "steps", None))
        return steps if isinstance(steps, int) else None

    def key(
        self,
        *,
        detector: str = "",
        alpha: float = 0.05,
        n: int = 1,
        data: str = "",
        model: str = "",
        weights: str = "",
        data_fingerprint: str | None = None,
        precision: str = "float32",
        correct_only: bool = False,
    ) -> CellKey:
        """The cell of one detector on the n images that there are; `precision` is what the attack's comes to there."""
        return CellKey(
            data=data,
            model=model,
            weights=weights,
            detector=detector,
            attack=self.name,
            engine=self.engine_name,
            norm=self.attack.threat.norm,
            eps=self.attack.threat.eps,
            steps=self.steps,
            seed=self.attack.seed,
            n=n,
            alpha=alpha,
            parameters={name: value for name, value in self.parameters.items() if name != "steps"},
            data_fingerprint=data_fingerprint,
            precision=precision,
            correct_only=correct_only,
        )

    @classmethod
    def again(cls, key: CellKey) -> AttackConfig:
        """The attack of a stored cell."""
        parameters = {**({} if key.steps is None else {"steps": key.steps}), **key.parameters}
        return cls(key.attack, key.eps, key.norm, key.engine, key.seed, key.n, parameters, key.precision)


class BenchmarkPlan:
    """Which cells to measure; made, and so checked, before anything is trained or attacked.

    What needs no torch is checked first, so that the command line answers a wrong name or number at once.

    Args:
        names: attacks of `attacks.CATALOGUE`, or `module:factory`.
        eps: radii of the budget; 0 gives the figures without any attack.
        norm: "linf", "l2" or "l1".
        steps: gradient steps, of attacks that take steps.
        engine: the library that runs the attacks; by default each attack's own default.
        detectors: names of detectors, `module:factory`, or detectors; None for those that the model
            suits (`default_detectors`).
        alpha: bound on the false-alarm rate, calibrated on the calibration part.
        n: the first n images of the test part (all of them when there are fewer).
        seed: of the attacks.
        precision: in which the attacks search, one of `attacks.PRECISIONS`.
        parameters: others of the attacks, for each that has them, or with the attack's name before them for that one
            alone: {"restarts": 5, "multi-target.targets": 2}. A text is read as the parameter's type.
        correct_only: let alpha bound the rate among the calibration images that the model labels right.

    Raises:
        InputError: an unknown name or a value out of range.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        eps: Sequence[float] = (0.1, 0.2, 0.3),
        norm: str = "linf",
        steps: int = DEFAULT_STEPS,
        engine: str | None = None,
        detectors: Sequence[str | Detector | AnyOf | Score] | None = ("label_margin",),
        alpha: float = 0.05,
        n: int = 1000,
        seed: int = 0,
        precision: str = "auto",
        parameters: Mapping[str, Json] | None = None,
        correct_only: bool = False,
    ) -> None:
        if not (names and eps) or (detectors is not None and not detectors):
            raise InputError("attack, eps and detector: must be at least one each")
        self.alpha, self.correct_only = check_fraction(alpha, "alpha"), correct_only
        self.detectors = None if detectors is None else list(dict.fromkeys(detectors))
        for detector in self.detectors or ():
            if isinstance(detector, str):
                known_detectors.check_name(detector)
        without = [
            AttackConfig(name, radius, norm, engine, seed, n, precision=precision)
            for name in dict.fromkeys(names)
            for radius in dict.fromkeys(eps)
        ]
        own = _parameters_of_each(dict.fromkeys(names), steps, parameters or {}, engine)
        self.attacks = [replace(config, parameters=own[config.name]) for config in without]
        check_detectors([each for each in self.detectors or () if isinstance(each, str)])
        for config in self.attacks:
            _ = config.attack


def check_detectors(names: Sequence[str]) -> None:
    """Whether there are detectors of these names, and those that `any_of` names can be joined.

    Raises:
        InputError: an unknown name; the message suggests the closest one.
    """
    for name in names:
        known_detectors.load_detector(name)


def _parameters_of_each(
    names: Iterable[str], steps: int, parameters: Mapping[str, Json], engine: str | None
) -> dict[str, dict[str, Json]]:
    """The parameters of each attack: `steps` where it takes steps, and what was given for all attacks or for it.

    Raises:
        InputError: a value that cannot be read, or for an attack that is not among the names. A parameter that no
            attack has is given to the first, which says so.
    """
    own: dict[str, dict[str, Json]] = {name: {"steps": steps} if _has_steps(name, engine) else {} for name in names}
    for key, value in parameters.items():
        attack, _, parameter = key.rpartition(".")
        if attack and attack not in own:
            unknown_name("param: attack", attack, own)
        having = [attack] if attack else [name for name in own if attacks.has_parameter(name, parameter, engine)]
        for name in having or list(own)[:1]:
            read = attacks.read_parameter(name, parameter, value, engine) if isinstance(value, str) else value
            own[name][parameter] = json_value(read)
    return own


def _has_steps(name: str, engine: str | None) -> bool:
    return attacks.has_parameter(name, "steps", engine)
