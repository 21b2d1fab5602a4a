"""The binarization tests of the attacks of a benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from .. import attacks
from ..runtime import Progress
from .fields import Json
from .key import budget
from .plan import AttackConfig
from .result import error_line
from .runner import Bench


@dataclass(frozen=True)
class AttackTest:
    """What the tests say of one attack at one budget.

    Attributes:
        norm, eps: the budget.
        detector: that the attack knows; None where it knows none.
        attack: its name.
        test: what the binarization test found, or why there is none, in a line.
        inverted: the same of the inverted test; None where the attack knows no detector.
    """

    norm: str
    eps: float
    detector: str | None
    attack: str
    test: attacks.BinarizationTest | str
    inverted: attacks.BinarizationTest | str | None = None

    def __str__(self) -> str:
        where = f"{budget(self.norm, self.eps)}{f', {self.detector}' if self.detector else ''}"
        said = f"{where}: binarization test {_said(self.test)}"
        return said if self.inverted is None else f"{said}; inverted test {_said(self.inverted)}"

    def to_json(self) -> dict[str, Json]:
        """The figures of the test, or its error, and those of the inverted one under `inverted`."""
        place: dict[str, Json] = {
            "attack": self.attack,
            "norm": self.norm,
            "eps": self.eps,
            "detector": self.detector,
            **_figures(self.test),
        }
        return place if self.inverted is None else {**place, "inverted": _figures(self.inverted)}


def _said(test: attacks.BinarizationTest | str) -> str:
    return f"not possible: {test}" if isinstance(test, str) else str(test)


def _figures(test: attacks.BinarizationTest | str) -> dict[str, Json]:
    if isinstance(test, str):
        return {"error": test}
    return {
        "passed": test.passed,
        "planted": test.planted,
        "found": test.found,
        "found_by_chance": test.found_by_chance,
        "left_out": test.left_out,
    }


def tested_attacks(bench: Bench, configs: Sequence[AttackConfig]) -> list[AttackTest]:
    """Whether each attack finds adversarial examples that were planted, see `attacks.binarization_test`.

    On the first images that are classified correctly, and accepted where the attack knows the detector.
    """
    tests = list(_tests(bench, configs))
    made = []
    with Progress("binarization test", len(tests), "attacks", bench.progress) as bar:
        for config, detector in tests:
            made.append(_tested(bench, config, detector))
            bar.advance()
    return made


def _tests(bench: Bench, configs: Sequence[AttackConfig]) -> Iterator[tuple[AttackConfig, str | None]]:
    for config in configs:
        if config.attack.threat.eps > 0:
            known: Sequence[str | None] = list(bench.defences) if config.attack.knows_detector else [None]
            for detector in known:
                yield config, detector


def _tested(bench: Bench, config: AttackConfig, detector: str | None) -> AttackTest:
    def found(inverted: bool) -> attacks.BinarizationTest | str:
        try:
            victim, x = _victim(bench, detector)
            attack = config.attack.with_precision(bench.precision(config, detector or next(iter(bench.defences))))
            return attacks.binarization_test(victim, x, attack, inverted=inverted)
        except Exception as error:  # whatever it is, the other attacks go on
            return error_line(error)

    inverse = None if detector is None else found(inverted=True)
    return AttackTest(config.norm, config.eps, detector, config.name, found(inverted=False), inverse)


def _victim(bench: Bench, detector: str | None) -> tuple[nn.Module, Tensor]:
    """What is attacked, and the images."""
    chosen = bench.correct
    if detector is None:
        return bench.target.model, bench.x[chosen][: attacks.PLANTED]
    defended = bench.calibrated(detector)
    images = bench.x[chosen]
    return defended, images[~defended.inspect(images).rejected][: attacks.PLANTED]
