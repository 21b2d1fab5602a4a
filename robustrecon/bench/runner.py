"""Running cells: attack, judge, measure, store; what is stored already is not run again."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import attacks, provenance
from ..defence import DefendedClassifier
from ..detectors import images_needed, load_score, parts
from ..files import check_writable, clear_partial
from ..runtime import Progress, batched, device_of, evaluating
from ..types import InputError, Verdict
from . import store
from .key import CellKey
from .metrics import flags, measure
from .model import BenchmarkModel
from .plan import AttackConfig, BenchmarkPlan

KEPT = 16  # undetected successes whose images are stored with a cell


def run(
    target: BenchmarkModel, plan: BenchmarkPlan, out: str | Path = "results", progress: bool = True
) -> list[dict[str, Any]]:
    """Measure every detector under every attack at every eps; returns the cells' results in that order.

    A cell that failed (a loss that is not finite, a goal that the attack cannot pursue, any error) is recorded as
    failed, with its error, and the others go on; it is tried again the next time.

    Args:
        target: the model and its data.
        plan: what to measure.
        out: folder of all results; a cell that is stored there already is not run again.
        progress: show progress on stderr.

    Raises:
        InputError: too few calibration images for alpha, or an unwritable folder.
    """
    check_writable(Path(out))
    bench = Bench(target, plan.detectors, plan.alpha, max(config.n for config in plan.attacks), Path(out), progress)
    return [result for config in plan.attacks for result in bench.cells(config)]


class Bench:
    """The cells of one model; what they share is computed once, and only when a cell needs it.

    Args:
        target: the model and its data.
        detectors: names of scores.
        alpha: bound on the false-alarm rate.
        n: the most test images that an attack gets.
        root: folder of all results.
        progress: show each attack's progress on stderr.

    Raises:
        InputError: too few calibration images for alpha.
    """

    def __init__(
        self,
        target: BenchmarkModel,
        detectors: Sequence[str],
        alpha: float,
        n: int,
        root: Path,
        progress: bool,
    ) -> None:
        calibrating = len(target.data.calibration)
        needed = max(images_needed(alpha, len(parts(load_score(detector)))) for detector in detectors)
        if calibrating < needed:
            raise InputError(
                f"alpha: got {alpha}, needs {needed} calibration images, {target.data.name} has {calibrating}"
            )
        self.target, self.alpha, self.root, self.progress = target, alpha, root, progress
        self.defences = {detector: DefendedClassifier(target.model, detector) for detector in detectors}
        part = target.data.test.head(n)
        self.device = device_of(target.model)
        self.x, self.y = part.x.to(self.device), part.y.to(self.device)
        self._clean: dict[str, Verdict] = {}
        clear_partial(root / self.folder)

    def cells(self, config: AttackConfig, detectors: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One result a detector (all by default); an attack that does not know the detector is run once for all."""
        aware = config.load().knows_detector
        attacked: _Attacked | Exception | None = None
        results = []
        for detector in self.defences if detectors is None else detectors:
            spec = self.spec(config, detector)
            result = self.done(config, detector)
            if result is None:
                if attacked is None or aware:
                    attacked = self._attempt(config, detector)
                try:
                    if isinstance(attacked, Exception):
                        raise attacked
                    result = {"spec": spec.as_dict(), **self._result(attacked, detector)}
                except Exception as error:  # whatever it is, the other cells go on
                    result = store.failure(spec, error, provenance.environment(self.device))
                    if self.progress:
                        print(f"failed: {self.root / spec.path}: {result['error']}", file=sys.stderr)
                else:
                    self._keep_undetected(spec, attacked, result)
                store.write(self.root, spec, result)
            elif self.progress:
                print(f"done before: {self.root / spec.path}", file=sys.stderr)
            results.append(result)
        return results

    def done(self, config: AttackConfig, detector: str) -> dict[str, Any] | None:
        """The stored result of a cell, or None where it is to be run."""
        # An attack of the user's own may have changed since: it is run anew.
        return store.find(self.root, self.spec(config, detector)) if config.engine_name() is not None else None

    def spec(self, config: AttackConfig, detector: str) -> CellKey:
        """The cell of this model."""
        spec = config.spec(
            detector=detector,
            alpha=self.alpha,
            n=min(config.n, len(self.y)),
            data=self.target.data.name,
            model=self.target.name,
            weights=self.target.weights,
        )
        return replace(spec, data_fingerprint=self.target.data.fingerprint)

    @property
    def folder(self) -> Path:
        """Where this model's results are, below the folder of all results."""
        return CellKey.folder_of(self.target.data.name, self.target.name)

    def calibrated(self, detector: str) -> DefendedClassifier:
        """The model defended by a detector."""
        defended = self.defences[detector]
        if defended.calibration is None:
            defended.calibrate(self.target.data.calibration.x, self.alpha)
            self._clean[detector] = defended.inspect(self.x)
        return defended

    def attack(self, config: AttackConfig, detector: str) -> _Attacked:
        """Attack the images that are classified correctly when clean; the others stay as they are."""
        attack = config.load()
        victim: nn.Module = self.target.model
        goal: attacks.Goal = attacks.Misclassified()
        if attack.knows_detector:
            victim = self.calibrated(detector)
            goal = goal & attacks.Undetected(victim.threshold)
        images, truth = self.x[: config.n], self.y[: config.n]
        right = (self._labels[: config.n] == truth).nonzero()[:, 0]
        x, y = images[right], truth[right]
        moved, distance = images.clone(), torch.zeros(len(images), device=self.device)
        fired: list[attacks.Check] = []
        started = time.monotonic()
        if len(right):
            title = f"{config.name} {attack.threat.norm} {attack.threat.eps:g}"
            with Progress(title, len(y), "images", self.progress) as bar:
                outcome = attack(victim, x, y, goal, advance=bar.advance)
            moved[right], distance[right] = outcome.x, outcome.distance
            fired = attacks.check(victim, x, y, outcome, goal, attack)
        seconds = time.monotonic() - started
        return _Attacked(moved, distance, attack.knows_detector, [asdict(sign) for sign in fired], seconds)

    def _attempt(self, config: AttackConfig, detector: str) -> _Attacked | Exception:
        try:
            return self.attack(config, detector)
        except Exception as error:
            return error

    @cached_property
    def _labels(self) -> Tensor:
        """The model's labels of the clean images."""
        model = self.target.model
        with evaluating(model):
            return batched(lambda part: (model(part).argmax(1),), self.x)[0]

    def _result(self, attacked: _Attacked, detector: str) -> dict[str, Any]:
        started, n = time.monotonic(), len(attacked.x)
        defended = self.calibrated(detector)
        clean, verdict = self._clean[detector], defended.inspect(attacked.x)
        seconds = attacked.seconds + time.monotonic() - started
        images = {
            "y": self.y[:n].tolist(),
            "clean_label": clean.label[:n].tolist(),
            "clean_score": _digits(clean.score[:n]),
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
            "images_per_second": n / seconds,
            "images": images,
        }

    def _keep_undetected(self, spec: CellKey, attacked: _Attacked, result: dict[str, Any]) -> None:
        """Store the first images that beat both classifier and detector, for a report's pictures."""
        fell = flags(result)
        index = torch.from_numpy(fell.right & fell.undetected).nonzero()[:KEPT, 0]
        store.write_undetected(self.root, spec, index, attacked.x[index.to(self.device)].cpu())


@dataclass(frozen=True)
class _Attacked:
    x: Tensor
    distance: Tensor
    knows_detector: bool
    checks: list[dict[str, str]]
    seconds: float


def _digits(values: Tensor) -> list[float]:
    """float32 values with as many digits as tell them apart; one that is not a number is as suspicious as can be."""
    return [float(f"{value:.9g}") for value in values.nan_to_num(nan=torch.finfo(values.dtype).max).tolist()]
