"""Every wrong label in turn: lead among the logits and be accepted under it, both at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ..base import at_least
from ..goals import judged
from .apgd import Found, Seen
from .base import SLACK, DetectorAware, Pursuit, confirmed, leads, scales

RIVALS = 4  # labels compared at a step, the target among them
LOOK_AROUND = 10  # steps between looks at all labels
NEAREST = 0.25  # share of a batch that is worth deepening
FACTOR = 1.05  # by which the weight of the part that alone is unmet grows a step


@dataclass(kw_only=True, eq=False)
class MultiTarget(DetectorAware):
    """For each wrong label, the likeliest first: descend what its logit lacks and what its score has too much.

    The loss of a target is the sum of two hinges, in units of the clean images' margins, so that each pulls only while
    it is not met, and harder the longer it alone is not. The detector judges under the target from the first step
    on, and only the labels that explain the image best are compared; what seems accepted is confirmed against all.
    F. Tramèr, N. Carlini, W. Brendel, A. Madry, "On Adaptive Attacks to Adversarial Example Defenses", NeurIPS 2020,
    takes every target in turn and attacks what decides, both parts at once.

    Args:
        targets: how many wrong labels an image; by default all.
        deepen: so many further ascents towards the two nearest labels of the quarter of a batch that is nearest to
            falling, from new random starts, and for some images up the smaller of the two parts instead of the hinges.
        Others as for every `DetectorAware` attack.
    """

    name = "multi-target"

    targets: int | None = None
    deepen: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.deepen = at_least(0, self.deepen, "deepen")
        if self.targets is not None:
            self.targets = at_least(1, self.targets, "targets")

    def hunt(self, victim: nn.Module, x: Tensor, y: Tensor, pursuit: Pursuit) -> Found:
        wanted = self._targets(victim, x, y, pursuit)
        units = scales(victim, x, y, pursuit)
        best, reached = Found.nothing(x), torch.full(wanted.shape, -torch.inf, device=x.device)
        everyone = torch.arange(len(x), device=x.device)

        def attack(rows: Tensor, column: Tensor, *, varied: bool) -> None:
            if self.early_exit or varied:
                stands = ~(best.misread & (best.score <= pursuit.threshold))[rows]
                rows, column = rows[stands], column[stands]
            if len(rows):
                found = self._towards(victim, x[rows], y[rows], wanted[rows, column], units, pursuit, varied)
                best.take(rows, found)
                reached[rows, column] = torch.maximum(reached[rows, column], found.value)

        for column in range(wanted.shape[1]):
            attack(everyone, torch.full_like(everyone, column), varied=False)
        for _ in range(self.deepen):
            fell = best.misread & (best.score <= pursuit.threshold)
            near = reached.amax(1).masked_fill(fell, -torch.inf).topk(math.ceil(len(x) * NEAREST)).indices
            for column in reached[near].topk(min(2, wanted.shape[1]), dim=1).indices.T:
                attack(near, column, varied=True)
        return best

    @torch.no_grad()
    def _targets(self, victim: nn.Module, x: Tensor, y: Tensor, pursuit: Pursuit) -> Tensor:
        """(B, T) wrong labels, that of the highest logit first."""
        if pursuit.target is not None:
            return torch.full_like(y, pursuit.target)[:, None]
        logits = victim(x).scatter(1, y[:, None], -torch.inf)
        most = logits.shape[1] - 1
        return logits.topk(most if self.targets is None else min(self.targets, most), dim=1).indices

    def _towards(
        self,
        victim: nn.Module,
        x: Tensor,
        y: Tensor,
        target: Tensor,
        units: tuple[float, float],
        pursuit: Pursuit,
        varied: bool,
    ) -> Found:
        labels: Tensor | None = None
        weight = torch.ones(len(x), device=x.device)
        smaller = torch.rand(len(x), device=x.device) < (0.5 if varied else 0.0)
        taken = 0

        def look(point: Tensor, rows: Tensor) -> Seen:
            nonlocal labels, taken
            if taken % LOOK_AROUND == 0:
                chosen = rivals(victim, point, target[rows])
                if chosen is not None:
                    labels = chosen.new_zeros(len(x), chosen.shape[1]) if labels is None else labels
                    labels[rows] = chosen
            taken += 1
            compared = None if labels is None else labels[rows]
            moved = point.detach().requires_grad_()
            logits, score = judged(victim, moved, target[rows], compared)
            lead, excess = leads(logits, target[rows]), pursuit.excess(score)
            unread, suspicious = relu(SLACK - lead / units[0]), relu(SLACK + excess / units[1])
            lacking = torch.where(
                smaller[rows], torch.maximum(-lead / units[0], excess / units[1]), unread + weight[rows] * suspicious
            )
            (gradient,) = torch.autograd.grad(-lacking.sum(), moved)
            unread, suspicious = unread.detach(), suspicious.detach()
            weight[rows] *= FACTOR ** ((suspicious > 0).float() - (unread > 0).float())
            misread = pursuit.misread(logits, y[rows])
            exact = confirmed(victim, point, misread, score.detach())
            return Seen(misread, exact, -unread - suspicious, gradient)

        return self.climb(look, x, pursuit)


@torch.no_grad()
def rivals(victim: nn.Module, x: Tensor, target: Tensor) -> Tensor | None:
    """(B, J) the target and the labels that explain x best; None where the victim cannot compare a part of them."""
    energies = getattr(victim, "class_energies", None)
    if energies is None or getattr(victim, "logits_and_score", None) is None:
        return None
    others = energies(x).scatter(1, target[:, None], torch.inf)
    best = others.topk(min(RIVALS - 1, others.shape[1] - 1), dim=1, largest=False).indices
    return torch.cat([target[:, None], best], dim=1)
