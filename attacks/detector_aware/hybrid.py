"""Gradient ascent, then a random search from where it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor, nn

from ..base import at_least
from ..errors import InputError
from ..goals import judged
from ..squares import redrawn
from .apgd import Found
from .base import Pursuit, leads, scales
from .multi_target import MultiTarget, rivals

FIRST_SHARE = 0.3  # of the image in the first squares
HALVINGS = (0.001, 0.005, 0.02, 0.1, 0.2, 0.4, 0.6, 0.8)  # after so much of the search the squares halve
LOOK_AROUND = 25  # queries between looks at all labels
ROUNDS = 4  # after each the half that is further from falling is left alone


@dataclass(kw_only=True, eq=False)
class Hybrid(MultiTarget):
    """`multi-target`, then squares drawn at random from where it ended, for models whose gradients show too little.

    Where a unit is dead at a pixel no gradient says that the pixel matters; a search finds out. It goes on with the
    part of a batch that is nearest to falling and raises the smaller of two: by how much its label leads among the
    logits, and how far its score is below the threshold. After each quarter of the queries the half of the images that
    is further from falling is given up.

    F. Suya, J. Chi, D. Evans, Y. Tian, "Hybrid Batch Attacks: Finding Black-box Adversarial Examples with Limited
    Queries", USENIX Security 2020, start a search where gradients ended; the squares and how they shrink are from
    M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, "Square Attack: a query-efficient black-box adversarial attack
    via random search", ECCV 2020.

    Args:
        queries: of the search, for an image that is never given up.
        searched: share of a batch that is searched around, in (0, 1].
        Others as for `MultiTarget`.
    """

    name = "hybrid"

    queries: int = 5000
    searched: float = 0.125

    def __post_init__(self) -> None:
        super().__post_init__()
        self.queries = at_least(1, self.queries, "queries")
        if isinstance(self.searched, bool) or not (isinstance(self.searched, Real) and 0 < self.searched <= 1):
            raise InputError(f"searched: got {self.searched!r}, must be a share in (0, 1]")

    def hunt(self, victim: nn.Module, x: Tensor, y: Tensor, pursuit: Pursuit) -> Found:
        best = super().hunt(victim, x, y, pursuit)
        fell = best.misread & (best.score <= pursuit.threshold)
        near = best.value.masked_fill(fell, -math.inf).topk(math.ceil(len(x) * self.searched)).indices
        near = near[~fell[near]]
        if len(near):
            units = scales(victim, x, y, pursuit)
            best.take(near, self._search(victim, x[near], y[near], best.x[near], units, pursuit))
        return best

    @torch.no_grad()
    def _search(
        self, victim: nn.Module, x: Tensor, y: Tensor, start: Tensor, units: tuple[float, float], pursuit: Pursuit
    ) -> Found:
        target = pursuit.wanted(victim(start), y)

        def margin(moved: Tensor, rows: Tensor, labels: Tensor | None = None) -> Tensor:
            logits, score = judged(victim, moved, target[rows], labels)
            lead, leeway = leads(logits, target[rows]) / units[0], -pursuit.excess(score) / units[1]
            return lead if math.isinf(pursuit.threshold) else torch.minimum(lead, leeway)

        point, highest = start.clone(), torch.zeros(len(x), device=x.device)
        rows = torch.arange(len(x), device=x.device)
        looks = math.ceil(self.queries / LOOK_AROUND)
        for number in range(looks):
            highest[rows] = margin(point[rows], rows)
            rows = rows[highest[rows] <= 0]
            if number and number % math.ceil(looks / ROUNDS) == 0:
                rows = rows[highest[rows].topk(math.ceil(len(rows) / 2)).indices]
            if not len(rows):
                break
            labels = rivals(victim, point[rows], target[rows])
            for query in range(number * LOOK_AROUND, min((number + 1) * LOOK_AROUND, self.queries)):
                moved = redrawn(point[rows], x[rows], _share(query / self.queries), self.threat)
                value = margin(moved, rows, labels)
                better = value > highest[rows]
                point[rows[better]], highest[rows[better]] = moved[better], value[better]
        logits, score = judged(victim, point)
        misread = pursuit.misread(logits, y)
        return Found(point, misread, score.masked_fill(~misread, math.inf), highest)


def _share(passed: float) -> float:
    """Of the image in a square, when this much of the search has passed."""
    return FIRST_SHARE / 2 ** sum(passed > moment for moment in HALVINGS)
