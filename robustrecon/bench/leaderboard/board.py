"""The leaderboard's file: entries of typed values, in the shape of RobustBench's model files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...files import atomic_write
from ...types import InputError
from ..fields import Fields, Interval, Json
from ..worst_case import AttackCount, AttackNote, WorstCase
from .about import Defence

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}  # ours -> RobustBench's


@dataclass(frozen=True)
class Entry:
    """The worst case of a model and a detector at one threat model, and whose they are.

    Attributes:
        defence: what its authors say of it.
        case: over all attacks that were run, image by image.
        results: the folder of the results, from that of the leaderboard's file where it is below.
    """

    defence: Defence
    case: WorstCase
    results: str

    @property
    def place(self) -> tuple[str, str, str, str, float]:
        """What there is one entry for: data set, model, detector, norm and eps."""
        case = self.case
        return case.data, case.model, case.detector, case.norm, case.eps

    def to_json(self) -> dict[str, Json]:
        """RobustBench's keys where it has them (`clean_acc` in percent), and those of a defence with a detector.

        `autoattack_acc` has no counterpart: `robust_risk` counts images that are wrong or rejected when clean, or that
        an attack turns into a wrong label that is accepted, also in percent.
        """
        case = self.case
        return {
            **self.defence.to_json(),
            "dataset": case.data,
            "threat_model": NORMS.get(case.norm, case.norm),
            "eps": case.eps,
            "model": case.model,
            "weights": case.weights,
            "detector": case.detector,
            "alpha": case.alpha,
            "correct_only": case.correct_only,
            "n": case.n,
            "clean_acc": _percent(case.clean_accuracy),
            "clean_rejection": _percent(case.clean_rejection_rate),
            "robust_risk": _percent(case.robust_risk),
            "robust_risk_interval": [_percent(end) for end in case.robust_risk_interval],
            "n_all_attacks": case.images_least,
            "robust_risk_all_attacks": _percent(case.robust_risk_least),
            "robust_risk_all_attacks_interval": [_percent(end) for end in case.robust_risk_least_interval],
            "detector_aware": [attack.attack for attack in case.aware],
            "attacks": [attack.to_json() for attack in case.attacks],
            "checks": [note.to_json() for note in case.checks],
            "results": self.results,
        }

    @classmethod
    def from_json(cls, value: object) -> Entry:
        """What `to_json` gave.

        Raises:
            WrongJson: it is something else.
        """
        given = Fields(value, "entry")
        norm = given.text("threat_model")
        case = WorstCase(
            data=given.text("dataset"),
            model=given.text("model"),
            weights=given.text("weights"),
            detector=given.text("detector"),
            norm={theirs: ours for ours, theirs in NORMS.items()}.get(norm, norm),
            alpha=given.number("alpha"),
            eps=given.number("eps"),
            n=given.whole("n"),
            clean_accuracy=given.number("clean_acc") / 100,
            clean_rejection_rate=given.number("clean_rejection") / 100,
            robust_risk=given.number("robust_risk") / 100,
            robust_risk_interval=_shares(given.interval("robust_risk_interval")),
            images_least=given.whole("n_all_attacks"),
            robust_risk_least=given.number("robust_risk_all_attacks") / 100,
            robust_risk_least_interval=_shares(given.interval("robust_risk_all_attacks_interval")),
            attacks=given.several("attacks", AttackCount.from_json),
            checks=given.several("checks", AttackNote.from_json),
            failed=(),
            correct_only=given.flag("correct_only"),
        )
        return cls(Defence.from_fields(given), case, given.text("results"))


def read_board(path: Path) -> list[Entry]:
    """The entries of a leaderboard's file; none where there is no file yet.

    Raises:
        InputError: the file is no leaderboard.
    """
    if not path.exists():
        return []
    try:
        return list(Fields(json.loads(path.read_text()), "leaderboard").several("entries", Entry.from_json))
    except (OSError, ValueError, RecursionError) as error:  # WrongJson is a ValueError
        raise InputError(f"leaderboard: {path} is none ({error})") from error


def write_board(path: Path, entries: Sequence[Entry]) -> Path:
    """Write the entries by data set and threat model, the lowest risk first.

    Raises:
        InputError: an unwritable folder.
    """
    ordered = sorted(entries, key=lambda entry: (entry.case.data, entry.case.norm, entry.case.eps, _rank(entry)))
    said = {"entries": [entry.to_json() for entry in ordered]}
    return atomic_write(path, json.dumps(said, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def _rank(entry: Entry) -> tuple[float, str, str]:
    return entry.case.robust_risk, entry.case.model, entry.case.detector


def _percent(value: float) -> float:
    return round(100 * value, 2)


def _shares(interval: Interval) -> Interval:
    return interval[0] / 100, interval[1] / 100
