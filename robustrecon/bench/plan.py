"""What is to be measured: attacks with their budgets and parameters, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import attacks
from ..detectors import load_score
from ..types import InputError, check_fraction
from .key import STEPS, CellKey

IN_THE_SPEC = ("eps", "norm", "seed")  # said once, not among an attack's parameters


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
    """

    name: str
    eps: float
    norm: str = "linf"
    engine: str | None = None
    seed: int = 0
    n: int = 1000
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise InputError(f"n: got {self.n!r}, must be at least 1")
        for name in IN_THE_SPEC:
            if name in self.parameters:
                raise InputError(f"parameters: got {name}, which is said beside them")

    def load(self) -> attacks.Attack:
        """Make the attack.

        Raises:
            InputError: an unknown name or a value out of range.
        """
        try:
            return attacks.load(self.name, self.engine, eps=self.eps, norm=self.norm, seed=self.seed, **self.parameters)
        except TypeError as error:
            given = dict(self.parameters)
            raise InputError(f"parameters: got {given}, {self.name} cannot be made with them ({error})") from error

    def engine_name(self) -> str | None:
        """The library that runs it; None for an attack of the user's own."""
        return attacks.engine_of(self.name, self.engine)

    def steps(self) -> int | None:
        """Gradient steps; None where the attack counts none."""
        if not attacks.takes(self.name, "steps", self.engine):
            return None
        steps: int | None = self.parameters.get("steps", getattr(self.load(), "steps", None))
        return steps

    def spec(self, *, detector: str, alpha: float, n: int, data: str, model: str, weights: str) -> CellKey:
        """The cell of one detector on the n images that there are."""
        attack = self.load()
        return CellKey(
            data=data,
            model=model,
            weights=weights,
            detector=detector,
            attack=self.name,
            engine=self.engine_name(),
            norm=attack.threat.norm,
            eps=attack.threat.eps,
            steps=self.steps(),
            seed=attack.seed,
            n=n,
            alpha=alpha,
            parameters={key: value for key, value in self.parameters.items() if key != "steps"},
        )

    @classmethod
    def again(cls, spec: CellKey) -> AttackConfig:
        """The attack of a stored cell."""
        steps = {} if spec.steps is None else {"steps": spec.steps}
        return cls(spec.attack, spec.eps, spec.norm, spec.engine, spec.seed, spec.n, {**steps, **spec.parameters})


class BenchmarkPlan:
    """Which cells to measure; made, and so checked, before anything is trained or attacked.

    Args:
        names: attacks of `attacks.CATALOGUE`, or `module:factory`.
        eps: radii of the budget.
        norm: "linf" or "l2".
        steps: gradient steps, of attacks that take steps.
        engine: the library that runs the attacks; by default each attack's own default.
        detectors: names of scores.
        alpha: bound on the false-alarm rate, calibrated on the calibration part.
        n: the first n images of the test part (all of them when there are fewer).
        seed: of the attacks.

    Raises:
        InputError: an unknown name or a value out of range.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        eps: Sequence[float] = (0.1, 0.2, 0.3),
        norm: str = "linf",
        steps: int = STEPS,
        engine: str | None = None,
        detectors: Sequence[str] = ("label_margin",),
        alpha: float = 0.05,
        n: int = 1000,
        seed: int = 0,
    ) -> None:
        if not (names and eps and detectors):
            raise InputError("attack, eps and detector: must be at least one each")
        self.alpha, self.detectors = check_fraction(alpha, "alpha"), list(dict.fromkeys(detectors))
        for detector in self.detectors:
            load_score(detector)
        counted = {name: {"steps": steps} if attacks.takes(name, "steps", engine) else {} for name in names}
        self.attacks = [
            AttackConfig(name, radius, norm, engine, seed, n, counted[name])
            for name in dict.fromkeys(names)
            for radius in dict.fromkeys(eps)
        ]
        for config in self.attacks:
            config.load()
