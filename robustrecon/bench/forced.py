"""The curve of forced rejection: how near to the clean image an attacker can have it rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import attacks
from ..defence import DefendedClassifier
from ..statistics import Flags, Rate
from ..types import InputError
from .fields import Fields, Interval, Json, flag, number, optional, whole
from .metrics import ends, share

FRACTIONS = (0, 0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 1)


@dataclass(frozen=True)
class ForcedRejection:
    """What attackers who want a wrong label or a rejection do to n images within a radius.

    Attributes:
        norm, eps: the threat model.
        fractions: of eps, ascending; the radii at which a rejection was tried.
        at_risk_when_clean: n flags, wrong or rejected without any attack.
        undetected: n flags, turned into a wrong label that is accepted within eps.
        rejected_from: of each image the index of the smallest of `fractions` at which it is rejected; None where it is
            not rejected at any. 0 for the images that are at risk when clean, which are not attacked.

    Raises:
        InputError: sequences of different lengths, or no image.
    """

    norm: str
    eps: float
    fractions: tuple[float, ...]
    at_risk_when_clean: tuple[bool, ...]
    undetected: tuple[bool, ...]
    rejected_from: tuple[int | None, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.at_risk_when_clean), len(self.undetected), len(self.rejected_from)}
        if len(lengths) != 1 or lengths == {0}:
            raise InputError("images: must be n > 0 flags and indices each")

    def __len__(self) -> int:
        return len(self.rejected_from)

    def rejection(self, fraction: float) -> tuple[float | None, Interval | None]:
        """Share of the images right and accepted when clean that are rejected within fraction · eps; 95 % interval.

        None where there is no such image.
        """
        rate = Rate(self._rejected(fraction), among=~np.asarray(self.at_risk_when_clean))
        return rate.value, (ends(rate) if rate.interval else None)

    def total_error(self, fraction: float) -> tuple[float, Interval]:
        """Share of the images at risk when clean, rejected within fraction · eps or undetected; 95 % interval.

        J. Chen, J. Raghuram, J. Choi, X. Wu, Y. Liang, S. Jha, "Stratified Adversarial Robustness with Rejection", ICML
        2023: at the fraction 0 it is the robust risk, and at 1 the error of a classifier for which a rejection is an
        error.
        """
        wrong = np.asarray(self.at_risk_when_clean) | np.asarray(self.undetected)
        rate = Rate(wrong | self._rejected(fraction))
        return share(rate), ends(rate)

    def _rejected(self, fraction: float) -> Flags:
        if fraction not in self.fractions:
            raise InputError(f"fraction: got {fraction}, must be one of {', '.join(map(str, self.fractions))}")
        index = self.fractions.index(fraction)
        return np.array([first is not None and first <= index for first in self.rejected_from])

    def to_json(self) -> dict[str, Json]:
        return {
            "norm": self.norm,
            "eps": self.eps,
            "fractions": list(self.fractions),
            "at_risk_when_clean": list(self.at_risk_when_clean),
            "undetected": list(self.undetected),
            "rejected_from": list(self.rejected_from),
        }

    @classmethod
    def from_json(cls, value: object) -> ForcedRejection:
        """What `to_json` gave.

        Raises:
            WrongJson: it is something else.
        """
        given = Fields(value, "forced rejection")
        return cls(
            norm=given.text("norm"),
            eps=given.number("eps"),
            fractions=given.several("fractions", number),
            at_risk_when_clean=given.several("at_risk_when_clean", flag),
            undetected=given.several("undetected", flag),
            rejected_from=given.several("rejected_from", optional(whole)),
        )


def forced_rejection(
    defended: DefendedClassifier,
    x: Tensor,
    y: Tensor,
    eps: Sequence[float],
    norm: str = "linf",
    fractions: Sequence[float] = FRACTIONS,
    force: attacks.Attack | None = None,
    wrong_label: attacks.Attack | None = None,
) -> tuple[ForcedRejection, ...]:
    """What attackers who know the detector can do to images x, one who wants a rejection and one a wrong label.

    Args:
        defended: calibrated.
        x: (N, C, H, W) images in [0, 1].
        y: (N,) true labels.
        eps: radii; a result for each, in their order.
        norm: of the radii, "linf", "l2" or "l1".
        fractions: of each radius, at which a rejection is tried.
        force: what has images rejected; `ForceReject` with its defaults by default. Only its radius is changed.
        wrong_label: what has wrong labels accepted; `selective` by default. Only its radius is changed.

    Raises:
        InputError: a wrong radius or fraction, or images or labels that do not fit.
    """
    if not eps:
        raise InputError("eps: got none, must be at least one radius")
    if not fractions or not all(0 <= fraction <= 1 for fraction in fractions):
        raise InputError(f"fractions: got {list(fractions)}, must be shares in [0, 1]")
    shares = tuple(sorted({float(fraction) for fraction in fractions}))
    force = attacks.ForceReject(norm=norm) if force is None else force
    wrong_label = attacks.SelectivePGD(norm=norm, early_exit=True) if wrong_label is None else wrong_label
    verdict = defended.inspect(x)
    at_risk = (verdict.label != y) | verdict.rejected
    attacked = (~at_risk).nonzero()[:, 0]
    undetected = [torch.zeros_like(at_risk) for _ in eps]
    radii = sorted({share * radius for share in shares for radius in eps} - {0})
    smallest = torch.zeros(len(x), dtype=torch.float64, device=x.device)  # radius at which each is rejected
    if len(attacked):
        images, labels = x[attacked], y[attacked]
        for flags, outcome in zip(undetected, wrong_label.over(defended, images, labels, eps), strict=True):
            flags[attacked] = outcome.success
        first = _first_rejecting(force, defended, images, labels, radii)
        smallest[attacked] = torch.tensor([*radii, torch.inf], dtype=torch.float64).to(smallest)[first]
    return tuple(
        ForcedRejection(
            norm=norm,
            eps=float(radius),
            fractions=shares,
            at_risk_when_clean=tuple(at_risk.tolist()),
            undetected=tuple(flags.tolist()),
            rejected_from=tuple(_index(each, [share * radius for share in shares]) for each in smallest.tolist()),
        )
        for radius, flags in zip(eps, undetected, strict=True)
    )


def _first_rejecting(
    force: attacks.Attack, defended: DefendedClassifier, x: Tensor, y: Tensor, radii: Sequence[float]
) -> Tensor:
    """(N,) the index of the smallest of the ascending radii at which each image is rejected; their number where none.

    By bisection: what is rejected within a radius is so within a larger one.
    """
    low, high = torch.zeros_like(y), torch.full_like(y, len(radii))
    while (open_ := low < high).any():
        middle = (low + high) // 2
        for index in middle[open_].unique().tolist():
            rows = (open_ & (middle == index)).nonzero()[:, 0]
            success = force.with_budget(radii[index], force.restarts)(defended, x[rows], y[rows]).success
            high[rows[success]], low[rows[~success]] = index, index + 1
    return low


def _index(smallest: float, radii: Sequence[float]) -> int | None:
    """Of the first of the ascending radii that is at least as large."""
    return next((index for index, radius in enumerate(radii) if radius >= smallest), None)
