"""Hybrid attack: gradient ascent, then a random search from where it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor, nn

from ..base import at_least
from ..errors import InputError
from ..goals import Goal, logits_and_score
from ..objective import AttackObjective, logit_margin, margin_scales, nearness
from ..precision import exact_model
from ..squares import redraw_window, window_share
from .apgd import BestPoints
from .multi_target import MultiTarget, rival_labels

FIRST_SHARE = 0.3  # share of the image in the first squares
COMPARE_EVERY = 25  # queries between comparisons of all labels
ROUNDS = 4  # at the end of each but the last, the half with the lower margin is dropped


@dataclass(kw_only=True, eq=False)
class Hybrid(MultiTarget):
    """`multi-target`, then a random search with squares, for models whose gradients show too little.

    A dead unit has no gradient, but a search finds out which pixels matter to it. The search takes the images of a
    batch that are nearest to being broken and raises the smaller of the target label's logit margin and the score
    margin. After each quarter of the queries it drops the half of the images with the lower margin.

    F. Suya, J. Chi, D. Evans, Y. Tian, "Hybrid Batch Attacks: Finding Black-box Adversarial Examples with Limited
    Queries", USENIX Security 2020, start a search where gradients ended; the squares and how they shrink are from
    M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, "Square Attack: a query-efficient black-box adversarial attack
    via random search", ECCV 2020.

    Args:
        queries: queries of the search for an image that is never dropped.
        search_fraction: share of a batch that the search takes, in (0, 1]. From given starts only the search is run.
        Others: as for `MultiTarget`.
    """

    name = "hybrid"

    queries: int = 5000
    search_fraction: float = 0.125

    def __post_init__(self) -> None:
        super().__post_init__()
        self.queries = at_least(1, self.queries, "queries")
        share = self.search_fraction
        if isinstance(share, bool) or not (isinstance(share, Real) and 0 < share <= 1):
            raise InputError(f"search_fraction: got {share!r}, must be a share in (0, 1]")

    def find_best(self, victim: nn.Module, x: Tensor, y: Tensor, objective: AttackObjective) -> BestPoints:
        best = super().find_best(victim, x, y, objective)
        broken = best.broken(objective.threshold)
        nearest = best.loss.masked_fill(broken, -math.inf).topk(math.ceil(len(x) * self.search_fraction)).indices
        nearest = nearest[~broken[nearest]]
        if len(nearest):
            scales = margin_scales(victim, x, y, objective)
            best.update(nearest, self._search(victim, x[nearest], y[nearest], best.x[nearest], scales, objective))
        return best

    def perturb_from(self, victim: nn.Module, x: Tensor, y: Tensor, goal: Goal, start: Tensor) -> Tensor:
        """The random search alone, on the points that are nearest to the goal, of a full batch's number."""
        objective = AttackObjective.of(goal)
        most = min(len(x), math.ceil(self.batch_size * self.search_fraction))
        nearest = nearness(exact_model(victim), x, start, y, goal).topk(most).indices
        scales = margin_scales(victim, x, y, objective)
        x_adv = start.clone()
        x_adv[nearest] = self._search(victim, x[nearest], y[nearest], start[nearest], scales, objective).x
        return x_adv

    def passes(self, n_classes: int) -> int:
        searched = self.search_fraction * sum(0.5**done for done in range(ROUNDS)) / ROUNDS
        return super().passes(n_classes) + round(self.restarts * self.queries * searched / 2)  # no backward passes

    @torch.no_grad()
    def _search(
        self,
        victim: nn.Module,
        x: Tensor,
        y: Tensor,
        start: Tensor,
        scales: tuple[float, float],
        objective: AttackObjective,
    ) -> BestPoints:
        exact = exact_model(victim)
        target = objective.target_label(victim(start), y)

        def margin(model: nn.Module, x_adv: Tensor, rows: Tensor, compared: Tensor | None = None) -> Tensor:
            logits, score = logits_and_score(model, x_adv, target[rows], compared)
            label_margin = logit_margin(logits, target[rows]) / scales[0]
            if math.isinf(objective.threshold):
                return label_margin
            return torch.minimum(label_margin, objective.score_margin(score) / scales[1])

        x_best, margin_best = start.clone(), torch.zeros(len(x), device=x.device)
        rows = torch.arange(len(x), device=x.device)
        n_comparisons = math.ceil(self.queries / COMPARE_EVERY)
        for comparison in range(n_comparisons):
            margin_best[rows] = margin(exact, x_best[rows], rows)
            rows = rows[margin_best[rows] <= 0]
            if comparison and comparison % math.ceil(n_comparisons / ROUNDS) == 0:
                rows = rows[margin_best[rows].topk(math.ceil(len(rows) / 2)).indices]
            if not len(rows):
                break
            compared = rival_labels(victim, x_best[rows], target[rows])
            for query in range(comparison * COMPARE_EVERY, min((comparison + 1) * COMPARE_EVERY, self.queries)):
                x_adv = redraw_window(
                    x_best[rows], x[rows], window_share(query / self.queries, FIRST_SHARE), self.threat
                )
                found = margin(victim, x_adv, rows, compared)
                better = found > margin_best[rows]
                x_best[rows[better]], margin_best[rows[better]] = x_adv[better], found[better]
        logits, score = logits_and_score(exact, x_best)
        misclassified = objective.misclassified(logits, y)
        return BestPoints(x_best, misclassified, score.masked_fill(~misclassified, math.inf), margin_best)
