"""Running cells: attack, judge, measure, store; what is stored already is not run again."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import attacks
from ..defence import DefendedClassifier, check_fits_to
from ..detectors import DEFAULTS, as_detector, images_needed, is_own, parts, shares_of
from ..files import check_writable, clear_partial
from ..runtime import Progress, batched, device_of, evaluating
from ..types import InputError, Verdict
from .images import Images
from .keeping import InFolder, InMemory, Keeper
from .key import CellKey, budget
from .learned import Learned
from .metrics import measure
from .model import BenchmarkModel
from .plan import AttackConfig, BenchmarkPlan
from .result import Cell, CellFailure, CellResult, Environment, FiredCheck, measured

if TYPE_CHECKING:
    from ..detectors import AnyOf, Detector, Score

KEPT = 16  # undetected successes whose images are stored with a cell
WITHOUT_ENERGIES = ("msp",)  # what a model without class energies is judged by where no detector is named


def run(
    target: BenchmarkModel, plan: BenchmarkPlan, out: str | Path | None = "results", progress: bool = True
) -> list[Cell]:
    """Measure every detector under every attack at every eps; returns the cells in that order.

    A cell that failed (a loss that is not finite, a goal that the attack does not support, any error) is recorded as
    failed, with its error, and the others go on; it is tried again the next time.

    Args:
        target: the model and its data.
        plan: what to measure.
        out: folder of all results; a cell that is stored there already is not run again. None writes nothing.
        progress: show progress on stderr.

    Raises:
        InputError: too few calibration images for alpha, an unwritable folder, "bfloat16" for a processor or a model
            that cannot, or a `front_end` for a model that has none.
    """
    return prepared(target, plan, out, progress).run(plan.attacks)


def prepared(target: BenchmarkModel, plan: BenchmarkPlan, out: str | Path | None, progress: bool) -> Bench:
    """What `run` measures with; it raises what `run` does."""
    root = None if out is None else Path(out)
    if root is not None:
        check_writable(root)
    detectors = plan.detectors or default_detectors(target.model)
    most = max(config.n for config in plan.attacks)
    bench = Bench(target, detectors, plan.alpha, most, root, progress, plan.correct_only)
    bench.check_attacks(plan.attacks)
    return bench


def default_detectors(model: nn.Module) -> tuple[str, ...]:
    """What a model is judged by where no detector is named: by its energies, or by its logits where it has none."""
    if not callable(getattr(model, "class_energies", None)):
        return WITHOUT_ENERGIES
    own: str = getattr(model, "default_detector", DEFAULTS[0])
    return DEFAULTS if own in DEFAULTS else (own, DEFAULTS[0])


class Bench:
    """The cells of one model; what they share is computed once, and only when a cell needs it.

    Args:
        target: the model and its data.
        detectors: names of detectors, or detectors of the user's own (`module:factory` too), whose cells are always run
            anew.
        alpha: bound on the false-alarm rate.
        n: the most test images that an attack gets.
        root: folder of all results; None keeps them in memory.
        progress: show each attack's progress on stderr.
        correct_only: whether alpha bounds the rate among the images that the model labels right.

    Raises:
        InputError: too few calibration images for alpha, or none with a label where `correct_only`; two detectors of
            one name, one that does not fit the model, or one that needs training images where the data has none.
    """

    def __init__(
        self,
        target: BenchmarkModel,
        detectors: Sequence[str | Detector | AnyOf | Score],
        alpha: float,
        n: int,
        root: Path | None,
        progress: bool,
        correct_only: bool = False,
    ) -> None:
        self.defences: dict[str, DefendedClassifier] = {}
        self._own: set[str] = set()
        for given in detectors:
            name = given if isinstance(given, str) else as_detector(given).name
            if name in self.defences:
                raise InputError(f"detectors: got two called {name}, must have a name each")
            self.defences[name] = DefendedClassifier(target.model, given)
            check_fits_to(self.defences[name], target.data)
            if not isinstance(given, str) or is_own(given):
                self._own.add(name)
        needed = max(images_needed(alpha, shares_of(defended.detector)) for defended in self.defences.values())
        calibrating = len(target.data.calibration)
        if calibrating < needed:
            raise InputError(
                f"alpha: got {alpha}, needs {needed} calibration images, {target.data.name} has {calibrating}"
            )
        if correct_only and not bool((target.data.calibration.y >= 0).any()):
            raise InputError("correct_only: needs the labels of the calibration images, which have none")
        self.target, self.alpha, self.correct_only, self.progress = target, alpha, correct_only, progress
        self.weights = target.weights
        part = target.data.test.head(n)
        self.device = device_of(target.model)
        self.x, self.y = part.x.to(self.device), part.y.to(self.device)
        self._clean: dict[str, Verdict] = {}
        self._precisions: dict[tuple[str, str | None], str] = {}
        self.kept: Keeper = InMemory() if root is None else InFolder(root)
        if root is not None:
            clear_partial(root / self.folder)

    @property
    def root(self) -> Path:
        """Folder of all results, of a bench that has one."""
        assert isinstance(self.kept, InFolder)
        return self.kept.root

    @property
    def folder(self) -> Path:
        """Where this model's results are, below the folder of all results."""
        return CellKey.folder_of(self.target.data.name, self.target.name)

    def run(self, configs: Sequence[AttackConfig]) -> list[Cell]:
        """The cells of these attacks, in their order."""
        return [cell for config in configs for cell in self.cells(config)]

    def environment(self, precision: str) -> Environment:
        """Where cells are measured, by a search in `precision`."""
        return Environment.of(self.device, precision)

    def check_attacks(self, configs: Sequence[AttackConfig]) -> None:
        """Whether the model can have the backward pass and the precision that the attacks ask for.

        Raises:
            InputError: a `front_end` for a model that has none, or "bfloat16", but the processor, the model's weights
                or a layer cannot.
        """
        for config in configs:
            config.attack.searched(self.target.model)
            for detector in self.defences:
                self.precision(config, detector)

    def precision(self, config: AttackConfig, detector: str) -> str:
        """What the precision of an attack comes to for what it attacks: "float32" or "bfloat16"; tried once for each.

        The model stands in for a detector that has not learned from training images yet.

        Raises:
            InputError: "bfloat16", but the processor, the model's weights or a layer cannot.
        """
        if not config.attack.in_bfloat16:
            return "float32"
        tried = config.attack.knows_detector and self.can_score(detector)
        asked = config.precision, detector if tried else None
        if asked not in self._precisions:
            self._precisions[asked] = self._resolved(*asked)
        return self._precisions[asked]

    def key(self, config: AttackConfig, detector: str) -> CellKey:
        """The cell of this model."""
        return config.key(
            detector=detector,
            alpha=self.alpha,
            n=min(config.n, len(self.y)),
            data=self.target.data.name,
            model=self.target.name,
            weights=self.weights,
            data_fingerprint=self.target.data.fingerprint,
            precision=self.precision(config, detector),
            correct_only=self.correct_only,
        )

    def keys(self, config: AttackConfig, detector: str) -> tuple[CellKey, ...]:
        """The cells that give what is asked for, first the one that would be run.

        Success is decided in float32 either way, so that for "auto" a stored result of the other precision will do; not
        one of an attack of the user's own, which may have changed since.
        """
        key = self.key(config, detector)
        if config.precision != "auto" or config.engine_name is None:
            return (key,)
        return key, replace(key, precision="float32" if key.precision == "bfloat16" else "bfloat16")

    def found(self, config: AttackConfig, detector: str) -> Cell | None:
        """What is stored of a cell: its result, else its failure."""
        cells = [cell for key in self.keys(config, detector) if (cell := self.kept.find(key)) is not None]
        return next(iter([*measured(cells), *cells]), None)

    def done(self, config: AttackConfig, detector: str) -> CellResult | None:
        """The stored result of a cell; None where it is to be run, or its images are to be made again."""
        result = self._stored(config, detector)
        return result if result is not None and self.kept.has_images(result) else None

    def cells(self, config: AttackConfig, detectors: Sequence[str] | None = None) -> list[Cell]:
        """One cell a detector (all by default); an attack that does not know the detector is run once for all."""
        attacked: dict[str, _Attacked | Exception] = {}  # by what the precision was asked to be
        cells: list[Cell] = []
        for detector in self.defences if detectors is None else detectors:
            key, stored = self.key(config, detector), self._stored(config, detector)
            if stored is not None and self.kept.has_images(stored):
                self._say(f"done before: {self.kept.place(stored.key)}")
                cells.append(stored)
                continue
            again = config
            if stored is not None and stored.key.precision != key.precision:  # its images are lost
                again = replace(config, precision="float32")
            if again.precision not in attacked or config.attack.knows_detector:
                attacked[again.precision] = self._attempt(again, detector)
            found = attacked[again.precision]
            if stored is not None:
                key = stored.key
            elif not isinstance(found, Exception):  # the detector may have learned meanwhile
                key = self.key(config, detector)
            cells.append(self._cell(key, detector, found, stored))
        return cells

    def can_score(self, detector: str) -> bool:
        """Whether a detector has learned from training images, now or in an earlier run, or needs none."""
        return self._learned(detector).recall(self.defences[detector])

    def fitted(self, detector: str) -> DefendedClassifier:
        """The model defended by a detector that has learned from training images, where it needs them."""
        self._learned(detector).learn(self.defences[detector])
        return self.defences[detector]

    def calibrated(self, detector: str) -> DefendedClassifier:
        """The model defended by a detector, ready to judge."""
        defended = self.fitted(detector)
        if defended.calibration is None:
            known = self.target.data.calibration
            given = (known.x, known.y) if self.correct_only else known.x
            defended.calibrate(given, self.alpha, correct_only=self.correct_only)
            self._clean[detector] = defended.inspect(self.x)
        return defended

    def attack(self, config: AttackConfig, detector: str) -> _Attacked:
        """Attack the images that are classified correctly when clean; the others stay as they are."""
        victim: nn.Module = self.calibrated(detector) if config.attack.knows_detector else self.target.model
        attack = config.attack.with_precision(self.precision(config, detector))
        goal = attack.default_goal(victim)
        images, truth = self.x[: config.n], self.y[: config.n]
        correct = (self._labels[: config.n] == truth).nonzero()[:, 0]
        x, y = images[correct], truth[correct]
        x_adv, distance = images.clone(), torch.zeros(len(images), device=self.device)
        fired: list[attacks.Check] = []
        started = time.monotonic()
        if len(correct) and attack.threat.eps > 0:  # a budget of nothing leaves every image as it is
            title = f"{config.name} {budget(attack.threat.norm, attack.threat.eps)}"
            with Progress(title, len(y), "images", self.progress) as bar:
                outcome = attack(victim, x, y, goal, advance=bar.advance)
            x_adv[correct], distance[correct] = outcome.x, outcome.distance
            fired = attacks.check(victim, x, y, outcome, goal, attack)
        checks = tuple(FiredCheck(check.name, check.message) for check in fired)
        return _Attacked(x_adv, distance, attack.knows_detector, checks, time.monotonic() - started)

    @property
    def correct(self) -> Tensor:
        """(n,) bool: which of the images x are classified correctly when clean."""
        return self._labels == self.y

    @cached_property
    def _labels(self) -> Tensor:
        """The model's labels of the clean images."""
        model = self.target.model
        with evaluating(model):
            return batched(lambda part: (model(part).argmax(1),), self.x)[0]

    def _resolved(self, precision: str, detector: str | None) -> str:
        """What a precision comes to for the model, or for what a detector sees of it."""
        model = self.target.model
        victims: list[nn.Module] = [model]
        if detector is not None:
            victims = [DefendedClassifier(model, part) for part in parts(self.defences[detector].detector)]
        try:
            found = [attacks.resolve_precision(precision, victim, self.x[:1]) for victim in victims]
        except InputError:
            raise
        except Exception:  # the model fails in every precision: its cells will say how
            return "float32"
        return "bfloat16" if set(found) == {"bfloat16"} else "float32"

    def _learned(self, detector: str) -> Learned:
        # A detector of the user's own may have changed since: it learns anew.
        folder = self.root / self.folder if isinstance(self.kept, InFolder) and detector not in self._own else None
        return Learned(folder, self.weights, self.target.data)

    def _stored(self, config: AttackConfig, detector: str) -> CellResult | None:
        # An attack or a detector of the user's own may have changed since: it is run anew.
        if config.engine_name is None or detector in self._own:
            return None
        cell = self.found(config, detector)
        return cell if isinstance(cell, CellResult) else None

    def _attempt(self, config: AttackConfig, detector: str) -> _Attacked | Exception:
        try:
            return self.attack(config, detector)
        except Exception as error:
            return error

    def _cell(self, key: CellKey, detector: str, attacked: _Attacked | Exception, stored: CellResult | None) -> Cell:
        """Judge and store what was attacked; a result that was stored before stays, and gets its images again."""
        try:
            if isinstance(attacked, Exception):
                raise attacked
            result = self._result(key, attacked, detector)
        except Exception as error:  # whatever it is, the other cells go on
            failure = CellFailure.of(key, error, self.environment(key.precision))
            self._say(f"failed: {self.kept.place(key)}: {failure.error}")
            if stored is not None:
                return stored
            self.kept.write(failure)
            return failure
        self._keep_images(result, attacked, empty=stored is not None)
        if stored is not None:
            return stored
        self.kept.write(result)
        return result

    def _result(self, key: CellKey, attacked: _Attacked, detector: str) -> CellResult:
        started, n = time.monotonic(), len(attacked.x)
        defended = self.calibrated(detector)
        clean, verdict = self._clean[detector], defended.inspect(attacked.x)
        seconds = attacked.seconds + time.monotonic() - started
        images = Images(
            y=tuple(self.y[:n].tolist()),
            clean_label=tuple(clean.label[:n].tolist()),
            clean_score=_digits(clean.score[:n]),
            label=tuple(verdict.label.tolist()),
            score=_digits(verdict.score),
            distance=_digits(attacked.distance),
        )
        return CellResult(
            key=key,
            metrics=measure(images, defended.threshold),
            knows_detector=attacked.knows_detector,
            checks=attacked.checks,
            environment=self.environment(key.precision),
            seconds=seconds,
            images_per_second=n / seconds,
            images=images,
        )

    def _keep_images(self, result: CellResult, attacked: _Attacked, empty: bool) -> None:
        """Store the first images with an accepted wrong label, for a report's pictures.

        Where there are none, no file is written, except an empty one for a cell whose images were lost (`empty`): it
        is not attacked again for them.
        """
        flags = result.flags
        index = torch.from_numpy(flags.correct & flags.undetected).nonzero()[:KEPT, 0]
        if len(index) or empty:
            self.kept.write_images(result.key, index, attacked.x[index.to(self.device)].cpu())
        else:
            self.kept.remove_images(result.key)

    def _say(self, line: str) -> None:
        if self.progress:
            print(line, file=sys.stderr)


@dataclass(frozen=True)
class _Attacked:
    x: Tensor
    distance: Tensor
    knows_detector: bool
    checks: tuple[FiredCheck, ...]
    seconds: float


def _digits(values: Tensor) -> tuple[float, ...]:
    """float32 values with as many digits as tell them apart; not a number becomes the highest score."""
    finite = values.nan_to_num(nan=torch.finfo(values.dtype).max)
    return tuple(float(f"{value:.9g}") for value in finite.tolist())
