"""The figures that papers on rejection report, computed from the labels and scores of stored cells alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..statistics import Flags, Rate
from .images import as_scores
from .key import CellKey
from .result import Cell, CellResult, measured
from .worst_case import WorstCase, over_all, worst_case

ACCEPTANCES = (95, 99)  # true acceptance, in per cent


@dataclass(frozen=True)
class AtAcceptance:
    """The worst case over some attacks with the threshold at a true acceptance, whatever alpha was.

    D. Stutz, M. Hein, B. Schiele, "Confidence-Calibrated Adversarial Training: Generalizing to Unseen Attacks", ICML
    2020; T. Pang et al., "Two Coupled Rejection Metrics Can Tell Adversarial Examples Apart", CVPR 2022.

    Attributes:
        acceptance: in per cent, the share of the images classified correctly when clean that are accepted, at least.
        threshold: the lowest that accepts so many; of the test images themselves.
        stricter: whether an attack that knows the detector worked towards a higher threshold, so that it may have
            stopped where it was accepted there and is rejected here.
        at_risk: (n,) wrong or rejected when clean, or turned into a wrong label that is accepted.
        wrong: (n,) a wrong label that is accepted, clean or under some attack.
        accepted: (n,) accepted, clean or under some attack.
    """

    acceptance: int
    threshold: float
    stricter: bool
    at_risk: Flags
    wrong: Flags
    accepted: Flags

    @property
    def robust_risk(self) -> Rate:
        """Share of all images at risk."""
        return Rate(self.at_risk)

    @property
    def robust_accuracy(self) -> Rate:
        """Share of the images that are ever accepted that never are with a wrong label: 1 − the robust error of Stutz
        et al. with rejection. None where no image is accepted."""
        return Rate(~self.wrong, among=self.accepted)


def at_acceptance(results: Sequence[CellResult], acceptance: int) -> AtAcceptance | None:
    """The worst case of one model and detector over the attacks of `results` at a true acceptance, in per cent.

    An attack that was run on fewer images counts for those alone. None where no image is classified correctly.

    Raises:
        InputError: results that are of other images.
    """
    largest = max(results, key=lambda result: len(result.images))
    clean = largest.flags
    scores = np.sort(as_scores(largest.images.clean_score)[clean.correct])
    if not len(scores):
        return None
    threshold = float(scores[-(-acceptance * len(scores) // 100) - 1])
    at = largest.images.flags(threshold)
    wrong, accepted = ~at.correct & ~at.rejected, ~at.rejected
    undetected = np.zeros_like(wrong)
    for result in results:
        flags = result.images.flags(threshold)
        undetected |= over_all(result, largest, flags.undetected)
        accepted |= over_all(result, largest, as_scores(result.images.score) <= threshold)
    return AtAcceptance(
        acceptance=acceptance,
        threshold=threshold,
        stricter=any(result.knows_detector and result.metrics.threshold > threshold for result in results),
        at_risk=at.at_risk_when_clean | undetected,
        wrong=wrong | undetected,
        accepted=accepted,
    )


def caught(results: Sequence[CellResult]) -> Rate:
    """Share of the images that some attack turned into a wrong label whose wrong labels are all rejected.

    Of the images classified correctly when clean, at the threshold of the cells. F. Granese, M. Picot, M. Romanelli, F.
    Messina, P. Piantanida, "MEAD: A Multi-Armed Approach for Evaluation of Adversarial Examples Detectors", ECML 2022.
    """
    largest = max(results, key=lambda result: len(result.images))
    broken, undetected = (np.zeros(len(largest.images), dtype=np.bool_) for _ in range(2))
    for result in results:
        flags = result.flags
        broken |= over_all(result, largest, flags.broken)
        undetected |= over_all(result, largest, flags.correct & flags.undetected)
    return Rate(~undetected, among=broken)


def plain_accuracy(results: Sequence[CellResult], eps: float) -> Rate | None:
    """Robust accuracy of the classifier alone, without rejection, over all attacks within eps.

    Args:
        results: of one model and norm, whatever the detector.
        eps: the radius; None is returned where no attack has it.

    Raises:
        InputError: results that are of other images.
    """
    if not any(math.isclose(result.key.eps, eps, rel_tol=1e-6) for result in results):
        return None
    within = [result for result in results if result.key.eps <= eps * (1 + 1e-6)]
    largest = max(within, key=lambda result: len(result.images))
    wrong = ~largest.flags.correct
    for result in within:
        wrong = wrong | over_all(result, largest, result.flags.misclassified)
    return Rate(~wrong)


@dataclass(frozen=True)
class Protocols:
    """One model and detector at one budget, as papers on rejection report them.

    Attributes:
        worst: the worst case at alpha.
        at: at each of `ACCEPTANCES`; None where no image is classified correctly.
        caught: see `caught`.
        plain, plain_half: robust accuracy of the classifier alone at eps and at eps / 2; None where no cell has that
            radius. F. Tramèr, "Detecting Adversarial Examples Is (Nearly) As Hard As Classifying Them", ICML 2022: a
            detector that is robust at eps implies a classifier, if a slow one, that is robust at eps / 2.
    """

    worst: WorstCase
    at: tuple[AtAcceptance | None, ...]
    caught: Rate
    plain: Rate | None
    plain_half: Rate | None


def protocols(cells: Sequence[Cell], entries: Sequence[WorstCase] | None = None) -> list[Protocols]:
    """An entry for each worst case of the cells, over the same attacks: those within its eps.

    Args:
        cells: as for `worst_case`.
        entries: what `worst_case` gave for them; made where it is not given.

    Raises:
        InputError: cells of one data set that are of other images.
    """
    results = measured(cells)
    return [_entry(results, worst) for worst in (worst_case(cells) if entries is None else entries)]


def _entry(results: Sequence[CellResult], worst: WorstCase) -> Protocols:
    model = [result for result in results if _model(result.key) == _model(worst)]
    within = [r for r in model if _detector(r.key) == _detector(worst) and r.key.eps <= worst.eps]
    return Protocols(
        worst=worst,
        at=tuple(at_acceptance(within, acceptance) for acceptance in ACCEPTANCES),
        caught=caught(within),
        plain=plain_accuracy(model, worst.eps),
        plain_half=plain_accuracy(model, worst.eps / 2),
    )


def _model(each: CellKey | WorstCase) -> tuple[str, ...]:
    return each.data, each.model, each.weights, each.norm


def _detector(each: CellKey | WorstCase) -> tuple[object, ...]:
    return each.detector, each.alpha, each.correct_only
