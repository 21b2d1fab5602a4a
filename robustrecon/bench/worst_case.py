"""The worst case: image by image, over all attacks of a suite. This is a suite's headline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..statistics import Flags, Rate
from ..types import InputError
from .fields import Fields, Interval, Json, text
from .key import budget
from .metrics import ends, share
from .result import Cell, CellResult, FiredCheck, failed, measured


@dataclass(frozen=True)
class AttackCount:
    """What one attack did at one eps.

    Attributes:
        attack: its title.
        knows_detector: whether it knows the detector.
        images: how many it was run on.
        broken: how many it turned into an accepted wrong label, of those that were not at risk when clean.
        only: how many of those no other attack at this eps broke.
        checks: names of those that fired.
        seconds: it took; None where nobody said.
        checked: how many images the checks looked at; None where they were among all.
    """

    attack: str
    knows_detector: bool
    images: int
    broken: int
    only: int
    checks: tuple[str, ...]
    seconds: float | None = None
    checked: int | None = None

    @property
    def vouches(self) -> bool:
        """Whether it knows the detector and was checked, and no check fired."""
        return self.knows_detector and not self.checks and self.checked != 0

    def to_json(self) -> dict[str, Json]:
        values: dict[str, Json] = {
            "attack": self.attack,
            "knows_detector": self.knows_detector,
            "images": self.images,
            "broke": self.broken,
            "only": self.only,
            "checks": list(self.checks),
        }
        more: dict[str, Json] = {"seconds": self.seconds, "checked": self.checked}
        return values | {name: value for name, value in more.items() if value is not None}

    @classmethod
    def from_json(cls, value: object) -> AttackCount:
        given = Fields(value, "attack")
        return cls(
            attack=given.text("attack"),
            knows_detector=given.flag("knows_detector"),
            images=given.whole("images"),
            broken=given.whole("broke"),
            only=given.whole("only"),
            checks=given.several("checks", text),
            seconds=given.maybe_number("seconds") if "seconds" in given else None,
            checked=given.maybe_whole("checked") if "checked" in given else None,
        )


@dataclass(frozen=True)
class AttackNote:
    """A note on one attack: a check that fired, or why the attack failed.

    Attributes:
        attack: its title.
        check: that fired; None for an attack that failed.
        error: why it failed; empty where a check fired.
    """

    attack: str
    check: FiredCheck | None = None
    error: str = ""

    def to_json(self) -> dict[str, Json]:
        said = self.check.to_json() if self.check else {"error": self.error}
        return {"attack": self.attack, **said}

    @classmethod
    def from_json(cls, value: object) -> AttackNote:
        given = Fields(value, "attack")
        if "error" in given:
            return cls(given.text("attack"), error=given.text("error"))
        return cls(given.text("attack"), FiredCheck.from_json(value))


@dataclass(frozen=True)
class WorstCase:
    """The worst case of one model and detector at one budget.

    Attributes:
        data, model, weights, detector, norm, alpha, eps, correct_only: as in a cell's key.
        n: the images of the largest cell.
        clean_accuracy, clean_rejection_rate: on those.
        robust_risk, robust_risk_interval: over them and all attacks.
        images_least: the first images that every attack was run on.
        robust_risk_least, robust_risk_least_interval: over those alone, which no attack on fewer images lowers.
        attacks: at this eps.
        checks: that fired at this eps.
        failed: attacks at this eps.
        unseen: whether the suite says that training did not see the budget.
    """

    data: str
    model: str
    weights: str
    detector: str
    norm: str
    alpha: float
    eps: float
    n: int
    clean_accuracy: float
    clean_rejection_rate: float
    robust_risk: float
    robust_risk_interval: Interval
    images_least: int
    robust_risk_least: float
    robust_risk_least_interval: Interval
    attacks: tuple[AttackCount, ...]
    checks: tuple[AttackNote, ...]
    failed: tuple[AttackNote, ...]
    correct_only: bool = False
    unseen: bool = False

    @property
    def budget(self) -> str:
        """What tables call the threat model: `linf 0.3`, `linf 0.4 (unseen)`."""
        return budget(self.norm, self.eps, self.unseen)

    @property
    def aware(self) -> list[AttackCount]:
        """The attacks that know the detector."""
        return [attack for attack in self.attacks if attack.knows_detector]

    def to_json(self) -> dict[str, Json]:
        return {
            "data": self.data,
            "model": self.model,
            "weights": self.weights,
            "detector": self.detector,
            "norm": self.norm,
            "alpha": self.alpha,
            **({"correct_only": True} if self.correct_only else {}),
            "eps": self.eps,
            **({"unseen": True} if self.unseen else {}),
            "n": self.n,
            "clean_accuracy": self.clean_accuracy,
            "clean_rejection_rate": self.clean_rejection_rate,
            "robust_risk": self.robust_risk,
            "robust_risk_interval": list(self.robust_risk_interval),
            "images_least": self.images_least,
            "robust_risk_least": self.robust_risk_least,
            "robust_risk_least_interval": list(self.robust_risk_least_interval),
            "attacks": [attack.to_json() for attack in self.attacks],
            "checks": [note.to_json() for note in self.checks],
            "failed": [note.to_json() for note in self.failed],
        }

    @classmethod
    def from_json(cls, value: object) -> WorstCase:
        """What `to_json` gave.

        Raises:
            WrongJson: it is something else.
        """
        given = Fields(value, "worst case")
        return cls(
            data=given.text("data"),
            model=given.text("model"),
            weights=given.text("weights"),
            detector=given.text("detector"),
            norm=given.text("norm"),
            alpha=given.number("alpha"),
            eps=given.number("eps"),
            n=given.whole("n"),
            clean_accuracy=given.number("clean_accuracy"),
            clean_rejection_rate=given.number("clean_rejection_rate"),
            robust_risk=given.number("robust_risk"),
            robust_risk_interval=given.interval("robust_risk_interval"),
            images_least=given.whole("images_least"),
            robust_risk_least=given.number("robust_risk_least"),
            robust_risk_least_interval=given.interval("robust_risk_least_interval"),
            attacks=given.several("attacks", AttackCount.from_json),
            checks=given.several("checks", AttackNote.from_json),
            failed=given.several("failed", AttackNote.from_json),
            correct_only="correct_only" in given and given.flag("correct_only"),
            unseen="unseen" in given and given.flag("unseen"),
        )


def worst_case(cells: Sequence[Cell]) -> list[WorstCase]:
    """An entry for each data set, model, detector, norm and eps, in the order in which they come.

    An image is at risk when it is wrong or rejected when clean, or when some attack ends with a wrong label that is
    accepted; attacks with a smaller eps of the same norm count too, which an adversary with the larger may use. An
    attack that was run on fewer images counts for those alone, so that the risk stays a lower bound.

    Raises:
        InputError: cells of one data set that are of other images.
    """
    entries = []
    for group_key in dict.fromkeys(map(_group, cells)):
        group = [cell for cell in cells if _group(cell) == group_key]
        for eps in sorted({cell.key.eps for cell in group}):
            at = [cell for cell in group if cell.key.eps == eps]
            within = [cell for cell in group if cell.key.eps <= eps]
            if measured(at):
                entries.append(_entry(at, within))
    return entries


def _entry(at: list[Cell], within: list[Cell]) -> WorstCase:
    results, all_results = measured(at), measured(within)
    largest = max(all_results, key=lambda result: len(result.images))
    key, clean = results[0].key, largest.flags
    broken = np.stack(
        [over_all(result, largest, result.flags.undetected) & ~clean.at_risk_when_clean for result in results]
    )
    at_risk = clean.at_risk_when_clean | np.any(
        [over_all(result, largest, result.flags.undetected) for result in all_results], axis=0
    )
    least = min(len(result.images) for result in all_results)
    risk, risk_least = Rate(at_risk), Rate(at_risk[:least])
    return WorstCase(
        data=key.data,
        model=key.model,
        weights=key.weights,
        detector=key.detector,
        norm=key.norm,
        alpha=key.alpha,
        correct_only=key.correct_only,
        eps=key.eps,
        n=len(largest.images),
        clean_accuracy=float(clean.correct.mean()),
        clean_rejection_rate=float(clean.rejected.mean()),
        robust_risk=share(risk),
        robust_risk_interval=ends(risk),
        images_least=least,
        robust_risk_least=share(risk_least),
        robust_risk_least_interval=ends(risk_least),
        attacks=tuple(
            AttackCount(
                attack=result.key.title,
                knows_detector=result.knows_detector,
                images=len(result.images),
                broken=int(mine.sum()),
                only=int((mine & (broken.sum(0) == 1)).sum()),
                checks=tuple(check.name for check in result.checks),
            )
            for result, mine in zip(results, broken, strict=True)
        ),
        checks=tuple(AttackNote(result.key.title, check) for result in results for check in result.checks),
        failed=tuple(AttackNote(cell.key.title, error=cell.error) for cell in failed(at)),
    )


def over_all(result: CellResult, largest: CellResult, flags: Flags) -> Flags:
    """Flags of a cell's images as (n,) of those of the largest cell, false where this cell's attack was not run.

    Raises:
        InputError: the cells are of other images.
    """
    n = len(result.images)
    if list(result.images.y) != list(largest.images.y[:n]):
        raise InputError(
            f"results: {result.key.title} and {largest.key.title} are of other images, must be of one data set; "
            "measure them anew"
        )
    padded = np.zeros(len(largest.images), dtype=np.bool_)
    padded[:n] = flags
    return padded


def _group(cell: Cell) -> tuple[str, str, str, str, str, str]:
    key = cell.key
    return key.data, key.model, key.weights, key.detector, key.norm, key.false_alarms
