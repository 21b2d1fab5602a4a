"""One shard of a chain: some images of one model and detector, attacked by one attack after the other.

After each attack the state is stored, and a killed run goes on from there with the same numbers.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ... import attacks
from ...attacks import CHECKED, NearestPoints, attack_remaining
from ...defence import DefendedClassifier
from ...files import atomic_write
from ..fields import Fields, Json, WrongJson, whole
from ..plan import AttackConfig
from ..result import FiredCheck, error_line
from ..runner import Bench
from .result import SHARD, ChainKey

if TYPE_CHECKING:
    from ..parallel import WorkerSetup


@dataclass(frozen=True)
class Stage:
    """What one attack at one radius did to a shard.

    Attributes:
        images: how many it was run on.
        broken: the images that it broke, counted from the first of the shard.
        seconds: attacking and checking took.
        checked: how many images its checks looked at.
        checks: those that fired.
        error: why it failed; empty where it did not.
    """

    images: int = 0
    broken: tuple[int, ...] = ()
    seconds: float = 0.0
    checked: int = 0
    checks: tuple[FiredCheck, ...] = ()
    error: str = ""

    def to_json(self) -> dict[str, Json]:
        return {
            "images": self.images,
            "broken": list(self.broken),
            "seconds": self.seconds,
            "checked": self.checked,
            "checks": [check.to_json() for check in self.checks],
            "error": self.error,
        }

    @classmethod
    def from_json(cls, value: object) -> Stage:
        given = Fields(value, "stage")
        return cls(
            images=given.whole("images"),
            broken=given.several("broken", whole),
            seconds=given.number("seconds"),
            checked=given.whole("checked"),
            checks=given.several("checks", FiredCheck.from_json),
            error=given.text("error"),
        )


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a shard's images, counted from its first.

    Attributes:
        n: their number.
        wrong: those that are classified wrongly when clean.
        rejected: those that are rejected when clean.
        stages: of the attacks that are done, in the order of the chain.
    """

    n: int
    wrong: tuple[int, ...]
    rejected: tuple[int, ...]
    stages: tuple[Stage, ...] = ()

    def to_json(self) -> dict[str, Json]:
        return {
            "n": self.n,
            "wrong": list(self.wrong),
            "rejected": list(self.rejected),
            "stages": [stage.to_json() for stage in self.stages],
        }

    @classmethod
    def from_json(cls, value: object) -> ShardRecord:
        """What `to_json` gave.

        Raises:
            WrongJson: it is something else.
        """
        given = Fields(value, "shard")
        return cls(
            n=given.whole("n"),
            wrong=given.several("wrong", whole),
            rejected=given.several("rejected", whole),
            stages=given.several("stages", Stage.from_json),
        )


@dataclass(frozen=True)
class ShardJob:
    """A shard for a worker.

    Attributes:
        setup: where the model is.
        configs: the chain's attacks, in the order in which they run.
        detector: its detector.
        index: of the shard.
    """

    setup: WorkerSetup
    configs: tuple[AttackConfig, ...]
    detector: str
    index: int

    def run(self, bench: Bench) -> int:
        """Run it; returns the number of attacks."""
        run_shard(bench, self.configs, self.detector, self.index)
        return len(self.configs)


def chain_key(bench: Bench, configs: Sequence[AttackConfig], detector: str) -> ChainKey:
    """The key of a chain of attacks on this model."""
    bench.fitted(detector)  # which may change what a precision comes to
    return ChainKey(tuple(bench.key(config, detector) for config in configs))


def read_record(root: Path, key: ChainKey, index: int) -> ShardRecord | None:
    """The record of a shard that is complete, or None."""
    try:
        return ShardRecord.from_json(json.loads(_place(root, key, index).with_suffix(".json").read_text()))
    except (OSError, ValueError, RecursionError):  # WrongJson is a ValueError
        return None


def run_shard(
    bench: Bench,
    configs: Sequence[AttackConfig],
    detector: str,
    index: int,
    advance: Callable[[int], object] = lambda _: None,
) -> None:
    """Run all attacks on a shard, or those that a killed run left; what was done before is not done again.

    Args:
        bench: the model.
        configs: the chain's attacks, in the order in which they run.
        detector: the detector.
        index: of the shard.
        advance: called with the number of attacks that are done.
    """
    key = chain_key(bench, configs, detector)
    place = _place(bench.root, key, index)
    if read_record(bench.root, key, index) is not None:
        advance(len(configs))
        return
    first = index * SHARD
    shard = slice(first, min(first + SHARD, key.n))
    x, y, defended = bench.x[shard], bench.y[shard], bench.calibrated(detector)
    goal = attacks.Misclassified() & attacks.Undetected(defended.threshold)
    with attacks.frozen_eval(defended):
        record, points = _stored(place, x) or _clean(defended, x, y, goal)
        advance(len(record.stages))
        for position in range(len(record.stages), len(configs)):
            config = configs[position]
            done = zip(configs, record.stages, strict=False)
            before = [each.attack for each, stage in done if each.eps == config.eps and not stage.error]
            # A share of the attack's images, so that all shards together get as many as it may have.
            share = [min(config.n, key.n) * end // key.n for end in (shard.start, shard.stop)]
            most = share[1] - share[0]
            attack = config.attack.with_precision(bench.precision(config, detector))
            stage = _stage(attack, points, defended, x, y, goal, before, most, checking=index == 0)
            record = ShardRecord(record.n, record.wrong, record.rejected, (*record.stages, stage))
            _store(place, record, points)
            advance(1)
    atomic_write(place.with_suffix(".json"), json.dumps(record.to_json(), allow_nan=False))
    place.with_suffix(".npz").unlink(missing_ok=True)


def _stage(
    attack: attacks.Attack,
    points: NearestPoints,
    defended: DefendedClassifier,
    x: Tensor,
    y: Tensor,
    goal: attacks.Goal,
    before: Sequence[attacks.Attack],
    most: int,
    checking: bool,
) -> Stage:
    if attack.threat.eps == 0:  # a budget of nothing leaves every image as it is
        return Stage()
    started = time.monotonic()
    try:
        attempt = attack_remaining(points, attack, defended, x, y, goal, before, most, defended.model)
        rows, checked, fired = attempt.rows, 0, list[attacks.Check]()
        if checking and attack.knows_detector and attempt.outcome is not None:
            fired = attacks.check(defended, x[rows], y[rows], attempt.outcome, attempt.goal, attack)
            checked = min(len(rows), CHECKED)
    except Exception as error:  # whatever it is, the other attacks go on
        return Stage(error=error_line(error), seconds=time.monotonic() - started)
    return Stage(
        images=len(rows),
        broken=tuple(rows[attempt.broken].tolist()),
        seconds=time.monotonic() - started,
        checked=checked,
        checks=tuple(FiredCheck(check.name, check.message) for check in fired),
    )


def _clean(defended: DefendedClassifier, x: Tensor, y: Tensor, goal: attacks.Goal) -> tuple[ShardRecord, NearestPoints]:
    """A shard before any attack. What is wrong or rejected when clean is at risk already, and is not attacked."""
    verdict = defended.inspect(x)
    wrong = verdict.label != y
    points = NearestPoints.clean(defended, x, y, goal)
    points.broken = wrong | verdict.rejected
    return ShardRecord(len(y), _indices(wrong), _indices(verdict.rejected)), points


def _indices(flags: Tensor) -> tuple[int, ...]:
    return tuple(flags.nonzero()[:, 0].tolist())


def _place(root: Path, key: ChainKey, index: int) -> Path:
    """A shard's file, without its ending: .npz while it is run, then .json."""
    return root / key.shards / f"{index:04d}"


def _store(place: Path, record: ShardRecord, points: NearestPoints) -> None:
    buffer = io.BytesIO()
    arrays = {name: getattr(points, name).cpu().numpy() for name in ("x", "nearness", "broken")}
    np.savez(buffer, record=np.array(json.dumps(record.to_json(), allow_nan=False)), **arrays)
    atomic_write(place.with_suffix(".npz"), buffer.getvalue())


def _stored(place: Path, x: Tensor) -> tuple[ShardRecord, NearestPoints] | None:
    """The state of a shard that a killed run left; None where there is none, or it is not whole."""
    with (
        contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, WrongJson),
        np.load(place.with_suffix(".npz"), allow_pickle=False) as arrays,
    ):
        points = NearestPoints(*(torch.from_numpy(arrays[name]).to(x.device) for name in ("x", "nearness", "broken")))
        record = ShardRecord.from_json(json.loads(str(arrays["record"])))
        return (record, points) if points.x.shape == x.shape else None
    return None
