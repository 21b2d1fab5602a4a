"""Running cells: attack, judge, measure, store; what is stored already is not run again."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import attacks

from .. import provenance
from ..defence import DefendedClassifier
from ..detectors import images_needed, load_score
from ..files import check_writable
from ..runtime import Progress, batched, device_of, evaluating
from ..subject import Subject
from ..types import InputError, Verdict, check_fraction
from . import plots, store
from .cell import Spec, attack_title, budget
from .metrics import measure


class Plan:
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
        steps: int = 40,
        engine: str | None = None,
        detectors: Sequence[str] = ("label_margin",),
        alpha: float = 0.05,
        n: int = 1000,
        seed: int = 0,
    ) -> None:
        if n < 1:
            raise InputError(f"n: got {n}, must be at least 1")
        if not (names and eps and detectors):
            raise InputError("attack, eps and detector: must be at least one each")
        self.n, self.alpha, self.detectors = n, check_fraction(alpha, "alpha"), list(dict.fromkeys(detectors))
        for detector in self.detectors:
            load_score(detector)
        try:
            self.attacks = [
                _Planned(name, engine, norm, radius, steps, seed)
                for name in dict.fromkeys(names)
                for radius in dict.fromkeys(eps)
            ]
        except attacks.InputError as error:
            raise InputError(str(error)) from error


def run(subject: Subject, plan: Plan, out: str | Path = "results", progress: bool = True) -> list[dict[str, Any]]:
    """Measure every detector under every attack at every eps; returns the cells' results in that order.

    Args:
        subject: the model and its data.
        plan: what to measure.
        out: folder of all results; a cell that is stored there already is not run again.
        progress: show progress on stderr.

    Raises:
        InputError: too few calibration images for alpha, or an unwritable folder.
    """
    calibrating, needed = len(subject.data.calibration), images_needed(plan.alpha)
    if calibrating < needed:
        raise InputError(
            f"alpha: got {plan.alpha}, needs {needed} calibration images, {subject.data.name} has {calibrating}"
        )
    check_writable(Path(out))
    bench = _Bench(subject, plan.detectors, plan.alpha, plan.n, Path(out), progress)
    return [result for planned in plan.attacks for result in bench.cells(planned)]


def draw_examples(
    subject: Subject, results: Sequence[dict[str, Any]], path: Path, most: int = 8, among: int = 64
) -> Path | None:
    """Attack the first `among` test images again and draw up to `most` that fell; None if none did.

    Of the results, it is the one that tells most of the detector: where it is closest to catching half of what fell.
    """
    result = max(results, key=_divided)
    spec = Spec(**result["spec"])
    planned = _Planned(spec.attack, spec.engine, spec.norm, spec.eps, spec.steps or 1, spec.seed)
    bench = _Bench(subject, [spec.detector], spec.alpha, min(among, spec.n), path.parent, progress=False)
    attacked, defended = bench.attack(planned, spec.detector), bench.calibrated(spec.detector)
    right = attacked.distance > 0
    picked = plots.pick_examples(defended, bench.x[right], attacked.x[right], bench.y[right], most)
    if not picked:
        path.unlink(missing_ok=True)  # of an earlier run
        return None
    title = (
        f"{spec.data}, {spec.model}, {attack_title(result['spec'])} {budget(result['spec'])}: rejected ones first, "
        f"half of each where there are\n{spec.detector} rejects scores above {defended.threshold:.4g}; "
        f"of all attacked images that fell it accepts {_accepted(result):.0%}"
    )
    return plots.examples(picked, subject.data.classes, path, title)


def _accepted(result: dict[str, Any]) -> float:
    threshold, images = result["detection"]["threshold"], result["images"]
    fell = [
        score <= threshold
        for y, clean, label, score in zip(
            images["y"], images["clean_label"], images["label"], images["score"], strict=True
        )
        if clean == y != label
    ]
    return sum(fell) / len(fell)


def _divided(result: dict[str, Any]) -> float:
    undetected, fell = result["detection"]["undetected_success"], 1 - result["attack"]["accuracy"]
    return min(undetected, fell - undetected)


class _Planned:
    """An attack that is to be run."""

    def __init__(self, name: str, engine: str | None, norm: str, eps: float, steps: int, seed: int) -> None:
        self.name, self.engine = name, attacks.engine_of(name, engine)
        self.steps = steps if attacks.takes(name, "steps", engine) else None
        counted = {} if self.steps is None else {"steps": self.steps}
        self.attack = attacks.load(name, engine, eps=eps, norm=norm, seed=seed, **counted)


class _Bench:
    """The cells of one model; what they share is computed once, and only when a cell needs it."""

    def __init__(
        self,
        subject: Subject,
        detectors: Sequence[str],
        alpha: float,
        n: int,
        root: Path,
        progress: bool,
    ) -> None:
        self.subject, self.alpha, self.root, self.progress = subject, alpha, root, progress
        self.defences = {detector: DefendedClassifier(subject.model, detector) for detector in detectors}
        part = subject.data.test.head(n)
        self.device = device_of(subject.model)
        self.x, self.y = part.x.to(self.device), part.y.to(self.device)
        self._clean: dict[str, Verdict] = {}

    def cells(self, planned: _Planned) -> list[dict[str, Any]]:
        """One result a detector; an attack that does not know the detector is run once for all of them."""
        attacked: _Attacked | None = None
        results = []
        for detector in self.defences:
            spec = self._spec(planned, detector)
            # An attack of the user's own may have changed since: it is run anew.
            result = store.find(self.root, spec) if planned.engine is not None else None
            if result is None:
                if attacked is None or planned.attack.knows_detector:
                    attacked = self.attack(planned, detector)
                result = {"spec": spec.as_dict(), **self._result(attacked, detector)}
                store.write(self.root, spec, result)
            elif self.progress:
                print(f"done before: {self.root / spec.path}", file=sys.stderr)
            results.append(result)
        return results

    def _spec(self, planned: _Planned, detector: str) -> Spec:
        return Spec(
            data=self.subject.data.name,
            model=self.subject.name,
            weights=self.subject.weights,
            detector=detector,
            attack=planned.name,
            engine=planned.engine,
            norm=planned.attack.threat.norm,
            eps=planned.attack.threat.eps,
            steps=planned.steps,
            seed=planned.attack.seed,
            n=len(self.y),
            alpha=self.alpha,
        )

    def calibrated(self, detector: str) -> DefendedClassifier:
        defended = self.defences[detector]
        if defended.calibration is None:
            defended.calibrate(self.subject.data.calibration.x, self.alpha)
            self._clean[detector] = defended.inspect(self.x)
        return defended

    def attack(self, planned: _Planned, detector: str) -> _Attacked:
        """Attack the images that are classified correctly when clean; the others stay as they are."""
        attack = planned.attack
        victim: nn.Module = self.subject.model
        goal: attacks.Goal = attacks.Misclassified()
        if attack.knows_detector:
            victim = self.calibrated(detector)
            goal = goal & attacks.Undetected(victim.threshold)
        right = (self._labels() == self.y).nonzero()[:, 0]
        x, y = self.x[right], self.y[right]
        moved, distance = self.x.clone(), torch.zeros(len(self.x), device=self.device)
        fired: list[attacks.Check] = []
        started = time.monotonic()
        if len(right):
            title = f"{planned.name} {attack.threat.norm} {attack.threat.eps:g}"
            with Progress(title, len(y), "images", self.progress) as bar:
                outcome = attack(victim, x, y, goal, advance=bar.advance)
            moved[right], distance[right] = outcome.x, outcome.distance
            fired = attacks.check(victim, x, y, outcome, goal)
        seconds = time.monotonic() - started
        return _Attacked(moved, distance, attack.knows_detector, [asdict(sign) for sign in fired], seconds)

    def _labels(self) -> Tensor:
        """The model's labels of the clean images."""
        model = self.subject.model
        with evaluating(model):
            return batched(lambda part: (model(part).argmax(1),), self.x)[0]

    def _result(self, attacked: _Attacked, detector: str) -> dict[str, Any]:
        started = time.monotonic()
        defended = self.calibrated(detector)
        clean, verdict = self._clean[detector], defended.inspect(attacked.x)
        seconds = attacked.seconds + time.monotonic() - started
        images = {
            "y": self.y.tolist(),
            "clean_label": clean.label.tolist(),
            "clean_score": _digits(clean.score),
            "label": verdict.label.tolist(),
            "score": _digits(verdict.score),
            "distance": _digits(attacked.distance),
        }
        return {
            **measure(images, defended.threshold),
            "knows_detector": attacked.knows_detector,
            "checks": attacked.checks,
            "environment": provenance.environment(self.device),
            "seconds": seconds,
            "images_per_second": len(self.y) / seconds,
            "images": images,
        }


@dataclass(frozen=True)
class _Attacked:
    x: Tensor
    distance: Tensor
    knows_detector: bool
    checks: list[dict[str, str]]
    seconds: float


def _digits(values: Tensor) -> list[float]:
    """float32 values with as many digits as tell them apart."""
    return [float(f"{value:.9g}") for value in values.tolist()]
