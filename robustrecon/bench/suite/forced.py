"""Forced rejection in a suite: a curve for each model, detector and budget, stored beside the cells.

It is no cell: its attack wants a rejection, so that it says nothing of robust risk under other attacks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ... import attacks
from ...files import atomic_write, slug
from ...runtime import Progress
from ..fields import Fields, Json, WrongJson, json_value
from ..forced import FRACTIONS, ForcedRejection, forced_rejection
from ..key import budget
from ..result import error_line
from ..runner import Bench
from .read import Suite, SuiteModel


@dataclass(frozen=True)
class ForcedResult:
    """The curve of one model and detector at one budget, or why there is none.

    Attributes:
        data, model, detector, norm, eps: what was attacked.
        curve: the shares of its images; None where it failed.
        error: why it failed, in a line; empty where it did not.
    """

    data: str
    model: str
    detector: str
    norm: str
    eps: float
    curve: ForcedRejection | None
    error: str = ""


@dataclass(frozen=True)
class ForcedJob:
    """One curve that is to be measured, or that is stored.

    Attributes:
        bench: of the model.
        detector, norm, eps: what is attacked, and with what budget.
        n: the first n test images.
    """

    bench: Bench
    detector: str
    norm: str
    eps: float
    n: int

    @property
    def path(self) -> Path:
        name = f"forced-rejection-{self.norm}-{self.eps:.12g}-n{self.n}.json"
        return self.bench.root / self.bench.folder / slug(self.detector) / name

    @property
    def force(self) -> attacks.Attack:
        return attacks.ForceReject(norm=self.norm)

    @property
    def wrong_label(self) -> attacks.Attack:
        return attacks.SelectivePGD(norm=self.norm, early_exit=True)

    @property
    def key(self) -> dict[str, Json]:
        """What decides the curve."""
        bench = self.bench
        return {
            "data": bench.target.data.name,
            "data_fingerprint": bench.target.data.fingerprint,
            "model": bench.target.name,
            "weights": bench.weights,
            "detector": self.detector,
            "alpha": bench.alpha,
            "correct_only": bench.correct_only,
            "norm": self.norm,
            "eps": self.eps,
            "n": self.n,
            "fractions": list(map(float, FRACTIONS)),
            "force": repr(self.force),
            "wrong_label": repr(self.wrong_label),
        }

    @property
    def passes(self) -> int:
        """About how many passes of one image it takes, where no image is ever broken; the radii are bisected."""
        n_classes, tries = self.bench.target.data.n_classes, sum(fraction > 0 for fraction in FRACTIONS).bit_length()
        return self.n * (self.wrong_label.passes(n_classes) + tries * self.force.passes(n_classes))

    def stored(self) -> ForcedRejection | None:
        """The curve that is stored for exactly this; None where there is none."""
        try:
            given = Fields(json.loads(self.path.read_text()))
            if given.inner("forced_rejection").values != json_value(self.key):
                return None
            return ForcedRejection.from_json(given.inner("curve").values)
        except (OSError, WrongJson, ValueError):
            return None


def force_rejections(suite: Suite, benches: Sequence[Bench], progress: bool = True) -> tuple[ForcedResult, ...]:
    """The curves of all models, detectors and budgets of a suite; what is stored is not run again.

    One that fails is not stored, so that it is tried again the next time, and the others go on.

    Args:
        suite: on how many images is its `forced_rejection`.
        benches: one for each of its models.
        progress: show progress on stderr.
    """
    jobs = [job for model, bench in zip(suite.models, benches, strict=True) for job in forced_jobs(suite, model, bench)]
    results = []
    with Progress("forced rejection", len(jobs), "curves", progress and bool(jobs)) as bar:
        for job in jobs:
            results.append(_run(job))
            bar.advance()
    return tuple(results)


def forced_jobs(suite: Suite, model: SuiteModel, bench: Bench) -> list[ForcedJob]:
    """The curves of one model, whether they are stored or not; none where the suite asks for none."""
    n = min(suite.forced_rejection, len(bench.y))
    return [ForcedJob(bench, *each, n) for each in forced_budgets(suite, model)]


def forced_budgets(suite: Suite, model: SuiteModel) -> list[tuple[str, str, float]]:
    """Detector, norm and eps of each of them."""
    budgets = sorted({(each.norm, each.eps) for each in model.attacks if each.eps > 0})
    return [(detector, *each) for detector in model.detectors for each in budgets if suite.forced_rejection]


def _run(job: ForcedJob) -> ForcedResult:
    target = job.bench.target
    place = target.data.name, target.name, job.detector, job.norm, job.eps
    curve = job.stored()
    if curve is None:
        try:
            defended, n = job.bench.calibrated(job.detector), job.n
            (curve,) = forced_rejection(
                defended,
                job.bench.x[:n],
                job.bench.y[:n],
                [job.eps],
                job.norm,
                FRACTIONS,
                force=job.force,
                wrong_label=job.wrong_label,
            )
        except Exception as error:  # whatever it is, the other curves go on
            return ForcedResult(*place, curve=None, error=error_line(error))
        text = json.dumps({"forced_rejection": job.key, "curve": curve.to_json()}, allow_nan=False)
        atomic_write(job.path, f"{text}\n")
    return ForcedResult(*place, curve)


def described(result: ForcedResult) -> str:
    """What was attacked, for a report."""
    return f"force-reject, {budget(result.norm, result.eps)}, {result.detector} ({result.model} on {result.data})"
